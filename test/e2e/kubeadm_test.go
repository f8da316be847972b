package e2e

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// kubeadm is the Corefile that kubeadm v1.36 writes, with ports of the test, a kubeconfig and an upstream resolver.
func kubeadm(upstream int, more string) string {
	return fmt.Sprintf(`.:{{.DNS}} {
    errors
    health {{.Health}} {
       lameduck 5s
    }
    ready {{.Ready}}
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       kubeconfig %s
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus {{.Metrics}}
    forward . 127.0.0.1:%d {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
%s}
`, east.Kubeconfig(), upstream, more)
}

func TestKubeadmsCorefileAnswersClusterLocalAsBefore(t *testing.T) {
	web, err := east.Create(t.Context(), kube.Simple{Namespace: namespace, Name: "kubeadm-web", Addresses: []string{"10.1.0.1"}})
	must(t, err)
	export(t, east, "kubeadm-db", "10.1.0.2", "10.1.0.3")
	export(t, west, "kubeadm-far", "10.2.0.1")
	upstream := startUpstream(t)

	plain := run(t, kubeadm(upstream, ""))
	with := run(t, kubeadm(upstream, stanza([]cluster{east, west})))
	ready(t, plain)
	ready(t, with)

	within(t, limit, "a name of another cluster", answers(with, name("kubeadm-far"), 1))
	within(t, limit, "a name of this cluster", answers(with, name("kubeadm-db"), 2))
	now(t, rcode(with, name("nobody"), dns.RcodeNameError))
	now(t, rcode(plain, name("kubeadm-far"), dns.RcodeNameError)) // by the upstream resolver

	reverse := func(address string) string {
		name, err := dns.ReverseAddr(address)
		must(t, err)
		return name
	}
	const local = ".e2e.svc.cluster.local."
	different := 0
	for _, name := range []string{
		"cluster.local.", "svc.cluster.local.", "e2e.svc.cluster.local.", "nobody.svc.cluster.local.", "dns-version.cluster.local.",
		"ns.dns.cluster.local.", "kubernetes.default.svc.cluster.local.", "_https._tcp.kubernetes.default.svc.cluster.local.",
		"kubeadm-web" + local, "KubeADM-web.E2E.svc.CLUSTER.local.", "_http._tcp.kubeadm-web" + local, "_no._tcp.kubeadm-web" + local,
		"kubeadm-db" + local, "10-1-0-2.kubeadm-db" + local, "_http._tcp.kubeadm-db" + local, "kubeadm-far" + local, "nobody" + local,
		"10-1-0-2.e2e.pod.cluster.local.", "x.e2e.pod.cluster.local.", reverse(web.Spec.ClusterIP), reverse("10.1.0.2"), reverse("192.0.2.1"),
		"2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "example.org.", "nobody.example.org.",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR, dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeHTTPS} {
			before, err := plain.Query(t.Context(), name, qtype)
			must(t, err)
			after, err := with.Query(t.Context(), name, qtype)
			must(t, err)
			if a, b := sorted(before), sorted(after); a != b {
				different++
				t.Errorf("%s %s:\n%s\nwith our stanza:\n%s", name, dns.TypeToString[qtype], a, b)
			}
			if different > 5 {
				t.Fatal("5 differences are enough")
			}
		}
	}
	// Both at once, for each takes its lameduck time.
	must(t, plain.Signal(syscall.SIGTERM))
	must(t, with.Signal(syscall.SIGTERM))
}

// sorted is a message without what differs between two runs of one server: the id, the order of records and the
// serial.
func sorted(m *dns.Msg) string {
	m = m.Copy()
	m.Id = 0
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if soa, ok := rr.(*dns.SOA); ok {
				soa.Serial = 0
			}
		}
		slices.SortFunc(section, func(a, b dns.RR) int { return strings.Compare(a.String(), b.String()) })
	}
	return m.String()
}

// startUpstream starts a resolver that knows one name, and returns its port.
func startUpstream(t *testing.T) int {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	_, port, err := net.SplitHostPort(conn.LocalAddr().String())
	must(t, err)
	number, err := strconv.Atoi(port)
	must(t, err)
	listening := make(chan struct{})
	s := &dns.Server{
		PacketConn:        conn,
		NotifyStartedFunc: func() { close(listening) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := (&dns.Msg{}).SetRcode(r, dns.RcodeNameError)
			if q := r.Question[0]; strings.EqualFold(q.Name, "example.org.") {
				m.Rcode = dns.RcodeSuccess
				if q.Qtype == dns.TypeA {
					rr, err := dns.NewRR(q.Name + " 60 IN A 192.0.2.7")
					if err != nil {
						t.Error(err)
					}
					m.Answer = []dns.RR{rr}
				}
			}
			if err := w.WriteMsg(m); err != nil {
				t.Error(err)
			}
		}),
	}
	served := make(chan error, 1)
	go func() { served <- s.ActivateAndServe() }()
	<-listening
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return number
}
