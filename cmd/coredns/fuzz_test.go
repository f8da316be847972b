package main

import (
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/http/httputil"
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

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// wholeChain has what reads or changes queries and answers before our plugins and after them. With debug a panic is not
// recovered: it ends the process, and the fuzzer has found something.
const wholeChain = `.:0 {
    bind 127.0.0.1
    debug
    errors {
        consolidate 1h ".*"
    }
    metadata
    bufsize 1232
    rewrite stop {
        name suffix .example.org .clusterset.local answer auto
    }
    dns64 {
        translate_all
    }
    cache 30 {
        keepttl
    }
    loadbalance
    locality {
        cluster east eu
        cidr 10.0.0.0/8 region=eu zone=eu-1
        ecs 127.0.0.0/8
    }
    clusterhealth {
        drain west
    }
    clusterset {
        local east
        cluster east %[1]q {
            region eu
        }
        cluster west %[1]q {
            region us
            address endpoints any_port
            weight 3
        }
        prefer zone cluster region
        fallthrough in-addr.arpa ip6.arpa
    }
    hosts {
        192.0.2.1 web.example.com
        fallthrough
    }
}
`

// FuzzPacket sends packets to the server through a socket, as a pod would. Whatever looks like a query gets a reply that can
// be read and belongs to it; nothing ends the server.
func FuzzPacket(f *testing.F) {
	addr := chainFor(f)
	for _, seed := range packets(f) {
		f.Add(seed)
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	buf := make([]byte, dns.MaxMsgSize)
	id := uint16(0)
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) < 12 || len(packet) > 4096 || packet[2]&0x80 != 0 {
			return // no header, or a reply: nobody answers that
		}
		id++ // a late reply to the packet before is not taken for this one's
		packet = append([]byte{byte(id >> 8), byte(id)}, packet[2:]...)
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		for {
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("No reply to %x: %v", packet, err)
			}
			if n < 12 {
				t.Fatalf("A reply of %d bytes to %x", n, packet)
			}
			if buf[0] != packet[0] || buf[1] != packet[1] {
				continue
			}
			reply := new(dns.Msg)
			if err := reply.Unpack(buf[:n]); err != nil {
				t.Fatalf("The reply to %x cannot be read: %v\n%x", packet, err, buf[:n])
			}
			if !reply.Response {
				t.Fatalf("The reply to %x is none:\n%s", packet, reply)
			}
			return
		}
	})
}

// chainFor starts the server in this process, waits until it knows the world, and returns its address.
func chainFor(f *testing.F) string {
	f.Helper()
	kubeconfig := cluster(f)
	if err := dnsserver.SetDirectives(directives); err != nil {
		f.Fatal(err)
	}
	caddy.Quiet = true
	instance, err := caddy.Start(caddy.CaddyfileInput{Contents: fmt.Appendf(nil, wholeChain, kubeconfig), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		instance.ShutdownCallbacks()
		if err := instance.Stop(); err != nil {
			f.Error(err)
		}
	})
	addr := instance.Servers()[0].LocalAddr().String()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		reply, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion("db-3.west.db.shop.svc.example.org.", dns.TypeA), addr)
		if err == nil && len(reply.Answer) == 1 {
			return addr
		}
		if time.Now().After(deadline) {
			f.Fatalf("The server does not know its world: %v\n%v", err, reply)
		}
	}
}

// cluster starts an API server with two exported Services, and returns the path of its kubeconfig.
func cluster(f *testing.F) string {
	f.Helper()
	api := watchtest.NewVirtual(1)
	put := func(resource string, o runtime.Object) {
		if _, err := api.Put(resource, o); err != nil {
			f.Fatal(err)
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
	f.Cleanup(func() {
		api.Drop(io.EOF)
		server.CloseClientConnections()
		server.Close()
	})
	return (&watchtest.Server{Server: server}).Kubeconfig(f)
}

// packets are queries of many kinds, as a fuzzer can hardly guess them.
func packets(f *testing.F) (out [][]byte) {
	f.Helper()
	for _, name := range []string{
		"web.shop.svc.clusterset.local.", "db.shop.svc.clusterset.local.", "_http._tcp.db.shop.svc.clusterset.local.", "db-1.east.db.shop.svc.clusterset.local.",
		"web.shop.svc.example.org.", "web.example.com.", "clusterset.local.", "ns.dns.clusterset.local.", "10.0.0.10.in-addr.arpa.", ".",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeANY} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			out = append(out, packed(f, m))
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option,
				&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(10, 1, 2, 0)}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
			out = append(out, packed(f, m))
		}
	}
	update := new(dns.Msg).SetUpdate("clusterset.local.")
	notify := new(dns.Msg).SetNotify("clusterset.local.")
	transfer := new(dns.Msg).SetAxfr("clusterset.local.")
	return append(out, packed(f, update), packed(f, notify), packed(f, transfer), make([]byte, 12))
}

func packed(f *testing.F, m *dns.Msg) []byte {
	f.Helper()
	wire, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	return wire
}
