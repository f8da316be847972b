package main

import (
	"fmt"
	"io"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/internal/plugins"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// changers has the plugins that may change an answer on its way to the client. Nobody listens where dnstap sends to.
const changers = `.:0 {
    bind 127.0.0.1
    errors
    log
    dnstap tcp://127.0.0.1:9 full
    metadata
    header {
        response set ra
    }
    rewrite continue {
        ttl regex .* 77
    }
    rewrite stop {
        name suffix .example.org .clusterset.local answer auto
    }
    dns64 {
        translate_all
        allow_ipv4
    }
    minimal
    loadbalance
    CACHE
    clusterset {
        local east
        cluster east %[1]q
        cluster west %[1]q {
            address endpoints
        }
        answer all
        prefer none
    }
}
`

// TestRecordsSurviveWhatOtherPluginsDoToAnswers asks the same names at the same time: answers share records, so that a plugin
// which changed one would change the answers of others. The race detector sees it too.
func TestRecordsSurviveWhatOtherPluginsDoToAnswers(t *testing.T) {
	for _, tc := range []struct{ name, cache string }{{"each query reaches the records", ""}, {"what is cached is a copy", "cache 30"}} {
		t.Run(tc.name, func(t *testing.T) {
			addr := chainFor(t, strings.Replace(changers, "CACHE", tc.cache, 1), "db-3.east.db.shop.svc.example.org.", "db-3.west.db.shop.svc.example.org.")
			var asking sync.WaitGroup
			var mu sync.Mutex // guards first
			first := map[dns.Question]string{}
			for range 8 {
				asking.Go(func() {
					for i := range 100 {
						m := new(dns.Msg).SetQuestion([]string{"web", "db", "nobody"}[i%3]+".shop.svc."+[]string{"clusterset.local.", "example.org."}[i/3%2], []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV}[i/6%3])
						m.SetEdns0(4096, i%5 == 0)
						reply, _, err := new(dns.Client).Exchange(m, addr)
						if err != nil {
							t.Error(err)
							return
						}
						text := sortedText(reply, tc.cache != "")
						mu.Lock()
						if known, there := first[m.Question[0]]; there && known != text {
							t.Errorf("One answer was\n%s\nand another\n%s", known, text)
						}
						first[m.Question[0]] = text
						mu.Unlock()
					}
				})
			}
			asking.Wait()
			for q, text := range first {
				has := q.Qtype
				if strings.HasPrefix(q.Name, "nobody.") {
					has = dns.TypeSOA
				}
				if !strings.Contains(text, "\t"+dns.TypeToString[has]+"\t") || tc.cache == "" && strings.Contains(text, "\t5\t") {
					t.Errorf("The answer to %s %s is\n%s", q.Name, dns.TypeToString[q.Qtype], text)
				}
			}
		})
	}
}

// sortedText is what an answer holds, whatever the order; without TTLs where a cache lets them run down.
func sortedText(m *dns.Msg, cached bool) string {
	lines := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		if cached {
			rr.Header().Ttl = 0
		}
		lines = append(lines, rr.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// chainFor starts the server in this process, waits until it answers each of the names with one address, so that it knows all of
// its world, and returns its own. The Corefile has a place for the path of a kubeconfig.
func chainFor(tb testing.TB, corefile string, names ...string) string {
	tb.Helper()
	instance := startHere(tb, fmt.Appendf(nil, corefile, cluster(tb)))
	tb.Cleanup(func() { stopHere(tb, instance) })
	addr := instance.Servers()[0].LocalAddr().String()
	for deadline := time.Now().Add(patience); len(names) > 0; {
		reply, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(names[0], dns.TypeA), addr)
		if err == nil && len(reply.Answer) == 1 {
			names = names[1:]
			continue
		}
		if time.Now().After(deadline) {
			tb.Fatalf("The server does not know its world: %v\n%v", err, reply)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return addr
}

// startHere starts the server in this process.
func startHere(tb testing.TB, corefile []byte) *caddy.Instance {
	tb.Helper()
	defaults := dnsserver.Directives
	tb.Cleanup(func() { dnsserver.Directives = defaults })
	if err := dnsserver.SetDirectives(plugins.Directives); err != nil {
		tb.Fatal(err)
	}
	caddy.Quiet = true
	instance, err := caddy.Start(caddy.CaddyfileInput{Contents: corefile, Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		tb.Fatal(err)
	}
	return instance
}

func stopHere(tb testing.TB, instance *caddy.Instance) {
	tb.Helper()
	instance.ShutdownCallbacks()
	if err := instance.Stop(); err != nil {
		tb.Error(err)
	}
}

// cluster starts an API server with two exported Services, and returns the path of its kubeconfig.
func cluster(tb testing.TB) string {
	tb.Helper()
	api := watchtest.NewVirtual(1)
	put := func(resource string, o runtime.Object) {
		if _, err := api.Put(resource, o); err != nil {
			tb.Fatal(err)
		}
	}
	port, tcp, number, ready := "http", corev1.ProtocolTCP, int32(80), true
	put("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	for name, addresses := range map[string][]string{"web": {"10.0.0.10", "fd00::10"}, "db": {corev1.ClusterIPNone}} {
		meta := metav1.ObjectMeta{Namespace: "shop", Name: name}
		put("serviceexports", &mcsv1beta1.ServiceExport{ObjectMeta: meta})
		put("services", &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			ClusterIP: addresses[0], ClusterIPs: addresses, Ports: []corev1.ServicePort{{Name: port, Protocol: tcp, Port: number}},
		}})
		meta.Labels = map[string]string{discoveryv1.LabelServiceName: name}
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &port, Protocol: &tcp, Port: &number}},
		}
		for i := range 5 {
			host := fmt.Sprint(name, "-", i)
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.8.0.%d", i)}, Hostname: &host, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			})
		}
		put("endpointslices", slice)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{Transport: api, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
	}})
	tb.Cleanup(func() {
		api.Drop(io.EOF)
		server.CloseClientConnections()
		server.Close()
	})
	return (&watchtest.Server{Server: server}).Kubeconfig(tb)
}
