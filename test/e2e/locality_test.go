package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// telling lets a server say of every client where it is.
const telling = `metadata
	template IN TXT where.test {
		answer "{{"{{"}} .Name {{"}}"}} 0 IN TXT {{"{{"}} .Meta \"locality/source\" {{"}}"}}/{{"{{"}} .Meta \"locality/region\" {{"}}"}}/{{"{{"}} .Meta \"locality/zone\" {{"}}"}}/{{"{{"}} .Meta \"locality/node\" {{"}}"}}"
	}`

// makeNode makes a Node with an address and a pod range in a zone of the region eu, and takes it away after the test.
func makeNode(t *testing.T, c cluster, name, zone, address, podCIDR string) {
	t.Helper()
	nodes := c.Core.CoreV1().Nodes()
	n, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelTopologyRegion: "eu", corev1.LabelTopologyZone: zone,
		}},
		Spec: corev1.NodeSpec{PodCIDR: podCIDR, PodCIDRs: []string{podCIDR}},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := nodes.Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
	_, err = nodes.UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
	must(t, err)
}

// onNode makes an EndpointSlice with one endpoint on a node, and takes it away after the test.
func onNode(t *testing.T, c cluster, name, node string, addresses ...string) {
	t.Helper()
	slices := c.Core.DiscoveryV1().EndpointSlices(namespace)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, NodeName: &node})
	}
	_, err := slices.Create(t.Context(), s, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := slices.Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// where asks a server from an address where that is; with a subnet, on behalf of that. It checks what is said, and the
// scope of the subnet in the reply.
func where(s *server.Server, from, subnet, want string, scope uint8) func(context.Context) error {
	return func(ctx context.Context) error {
		m := new(dns.Msg).SetQuestion("where.test.", dns.TypeTXT)
		if subnet != "" {
			m.SetEdns0(1232, false)
			e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: net.ParseIP(subnet)}
			m.IsEdns0().Option = append(m.IsEdns0().Option, e)
		}
		client := dns.Client{Timeout: limit, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}}
		reply, _, err := client.ExchangeContext(ctx, m, s.Addr())
		if err != nil {
			return err
		}
		if len(reply.Answer) != 1 {
			return fmt.Errorf("no answer: %v", reply)
		}
		if got := strings.Join(reply.Answer[0].(*dns.TXT).Txt, ""); got != want {
			return fmt.Errorf("%s for %q is at %q, want %q", from, subnet, got, want)
		}
		if subnet == "" {
			return nil
		}
		if opt := reply.IsEdns0(); opt != nil {
			for _, o := range opt.Option {
				if e, ok := o.(*dns.EDNS0_SUBNET); ok && e.SourceScope == scope && e.Address.String() == subnet {
					return nil
				}
			}
		}
		return fmt.Errorf("no client subnet %s with a scope of %d in %v", subnet, scope, reply)
	}
}

// Clients are told apart by the Nodes and EndpointSlices of a real API server, read with the rights that deploy gives.
func TestClientsAreLocated(t *testing.T) {
	makeNode(t, east, "n1", "eu-a", "127.0.1.1", "127.1.1.0/24")
	makeNode(t, east, "n2", "eu-b", "127.0.2.1", "10.1.2.0/24")
	onNode(t, east, "located", "n2", "10.1.2.5")

	s := run(t, corefile(telling, "locality {\ncluster east\nnodes "+east.Kubeconfig()+"\ncidr 127.0.4.0/24 zone=table\necs 127.0.53.53/32\n}"))
	ready(t, s)
	within(t, limit, "the endpoint is known", where(s, "127.0.53.53", "10.1.2.5", "address/eu/eu-b/n2", 32))
	for _, row := range []struct {
		what, from, subnet, want string
		scope                    uint8
	}{
		{"a node by its address", "127.0.1.1", "", "address/eu/eu-a/n1", 0},
		{"another node by its address", "127.0.2.1", "", "address/eu/eu-b/n2", 0},
		{"a pod by the range of its node", "127.1.1.7", "", "podcidr/eu/eu-a/n1", 0},
		{"a client by the written table", "127.0.4.7", "", "cidr/eu/table/", 0},
		{"any other client by the cluster", "127.0.9.9", "", "cluster/eu//", 0},
		{"a forwarder's client by its address", "127.0.53.53", "10.1.2.5", "address/eu/eu-b/n2", 32},
		{"a forwarder's client by the range of its node", "127.0.53.53", "10.1.2.6", "podcidr/eu/eu-b/n2", 32},
		{"a forger by its own address", "127.0.1.1", "10.1.2.5", "address/eu/eu-a/n1", 0},
	} {
		t.Run(row.what, func(t *testing.T) { now(t, where(s, row.from, row.subnet, row.want, row.scope)) })
	}

	makeNode(t, east, "n3", "eu-c", "127.0.3.1", "127.1.3.0/24")
	within(t, limit, "a new node is known", where(s, "127.0.3.1", "", "address/eu/eu-c/n3", 0))
	within(t, limit, "its pods are", where(s, "127.1.3.9", "", "podcidr/eu/eu-c/n3", 0))

	onNode(t, east, "elsewhere", "n1", "10.77.0.1", "10.77.0.2")
	within(t, limit, "pod ranges are not believed", shows(s, 0, "coredns_locality_podcidr_trusted", "cluster", "east"))
	now(t, where(s, "127.1.3.9", "", "cluster/eu//", 0))
	now(t, where(s, "127.0.3.1", "", "address/eu/eu-c/n3", 0))
	now(t, where(s, "127.0.53.53", "10.77.0.2", "address/eu/eu-a/n1", 32))

	before, err := metric(t.Context(), s, "coredns_locality_events_total", "resource", "nodes", "event", "list")
	must(t, err)
	must(t, s.Reload(t.Context(), corefile(telling, "locality {\ncluster east written\nnodes "+east.Kubeconfig()+"\n}")))
	now(t, where(s, "127.0.3.1", "", "address/written/eu-c/n3", 0))
	now(t, shows(s, before, "coredns_locality_events_total", "resource", "nodes", "event", "list"))
}
