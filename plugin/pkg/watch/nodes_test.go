package watch_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

const (
	nodesPath  = "/api/v1/nodes"
	slicesPath = "/apis/discovery.k8s.io/v1/endpointslices"
)

// places records what a source of Nodes says.
type places struct {
	mu                         sync.Mutex
	nodes                      map[string]watch.Node
	slices                     map[mcs.ServiceKey][]watch.Place
	nodesListed, placesListed  bool
	applied                    int
	problems                   map[string]watch.Problem
	problemsTold, rejectedTold int
}

func (p *places) locked(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *places) ApplyNode(name string, n *watch.Node) {
	p.locked(func() {
		p.applied++
		if delete(p.nodes, name); n != nil {
			p.nodes[name] = *n
		}
	})
}

func (p *places) ApplyPlaces(key mcs.ServiceKey, at []watch.Place) {
	p.locked(func() {
		p.applied++
		if delete(p.slices, key); at != nil {
			p.slices[key] = at
		}
	})
}
func (p *places) SetNodesListed()  { p.locked(func() { p.nodesListed = true }) }
func (p *places) SetPlacesListed() { p.locked(func() { p.placesListed = true }) }

func (p *places) Event(string, string, string, int) {}

func (p *places) Hold(string, string, bool, int, int) {}

func (p *places) Renewed(string, bool, error)    {}
func (p *places) Reject(string, watch.Rejection) { p.locked(func() { p.rejectedTold++ }) }
func (p *places) Problem(_, resource string, problem watch.Problem, _ error) {
	p.locked(func() { p.problems[resource] = problem; p.problemsTold++ })
}
func (p *places) State(string, mcs.SourceKind, watch.State) {}

// text describes all that is known, one line each, sorted.
func (p *places) text() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []string{}
	for name, n := range p.nodes {
		out = append(out, fmt.Sprintf("node %s %s/%s %v %v", name, n.Region, n.Zone, n.Addresses, n.PodCIDRs))
	}
	for key, at := range p.slices {
		for _, a := range at {
			out = append(out, fmt.Sprintf("%s/%s %s %s/%s %v", key.Namespace, key.Name, a.Addr, a.Zone, a.Node, a.Ready))
		}
	}
	slices.Sort(out)
	return out
}

func followNodes(t *testing.T, s *watchtest.Server) (*places, *watch.Watcher) {
	t.Helper()
	connection, err := watch.LoadKubeconfig(s.Kubeconfig(t), "")
	if err != nil {
		t.Fatal(err)
	}
	p := &places{nodes: map[string]watch.Node{}, slices: map[mcs.ServiceKey][]watch.Place{}, problems: map[string]watch.Problem{}}
	w, err := watch.Start(watch.Spec{Kind: mcs.Nodes, Cluster: "east", Connection: connection, Observer: p, Places: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return p, w
}

// eventually waits until the condition holds; the description says what it is.
func eventually(t *testing.T, description string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("Expected that %s", description)
		}
	}
}

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelTopologyRegion: "eu", corev1.LabelTopologyZone: "eu-a",
		}},
	}
	for _, f := range change {
		f(n)
	}
	return n
}

func addressed(kind corev1.NodeAddressType, address string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: kind, Address: address})
	}
}

func endpointSlice(name string, labels map[string]string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
	}
}

func endpoint(address, node, zone string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if node != "" {
		e.NodeName = &node
	}
	if zone != "" {
		e.Zone = &zone
	}
	return e
}

func TestNodesTellWhereAddressesAre(t *testing.T) {
	t.Parallel()
	fqdn := endpointSlice("names", nil, endpoint("example.org", "n1", "", true))
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	for name, row := range map[string]struct {
		nodes  []*corev1.Node
		slices []*discoveryv1.EndpointSlice
		want   []string
	}{
		"a node's own addresses count, its names do not": {
			nodes: []*corev1.Node{node("n1", addressed(corev1.NodeInternalIP, "192.0.2.1"), addressed(corev1.NodeExternalIP, "2001:db8::1"),
				addressed(corev1.NodeHostName, "192.0.2.9"), addressed(corev1.NodeInternalDNS, "n1.example.org"))},
			want: []string{"node n1 eu/eu-a [192.0.2.1 2001:db8::1] []"},
		},
		"addresses of overlay interfaces stand in annotations": {
			nodes: []*corev1.Node{node("n1", func(n *corev1.Node) {
				n.Annotations = map[string]string{"projectcalico.org/IPv4IPIPTunnelAddr": "10.1.0.1", "network.cilium.io/ipv4-cilium-host": "10.2.0.1"}
			})},
			want: []string{"node n1 eu/eu-a [10.1.0.1 10.2.0.1] []"},
		},
		"pod ranges are those of both families": {
			nodes: []*corev1.Node{node("n1", func(n *corev1.Node) {
				n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.1.0.0/24", []string{"10.1.0.0/24", "fd00:10::/64"}
			})},
			want: []string{"node n1 eu/eu-a [] [10.1.0.0/24 fd00:10::/64]"},
		},
		"a node with the old field only has that range": {
			nodes: []*corev1.Node{node("n1", func(n *corev1.Node) { n.Spec.PodCIDR = "10.1.0.0/24" })},
			want:  []string{"node n1 eu/eu-a [] [10.1.0.0/24]"},
		},
		"what is no address and no range is left out": {
			nodes: []*corev1.Node{node("n1", addressed(corev1.NodeInternalIP, "nonsense"), addressed(corev1.NodeInternalIP, "0.0.0.0"),
				addressed(corev1.NodeInternalIP, "fe80::1%eth0"), func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"0.0.0.0/0", "10.1.0.0"} })},
			want: []string{"node n1 eu/eu-a [] []"},
		},
		"endpoints tell their node, zone and readiness": {
			slices: []*discoveryv1.EndpointSlice{endpointSlice("web", nil, endpoint("10.1.0.5", "n1", "eu-a", true), endpoint("10.1.0.6", "n2", "", false))},
			want:   []string{"shop/web 10.1.0.5 eu-a/n1 true", "shop/web 10.1.0.6 /n2 false"},
		},
		"an endpoint that says nothing about its place is left out": {
			slices: []*discoveryv1.EndpointSlice{endpointSlice("web", nil, endpoint("10.1.0.5", "", "", true))},
			want:   []string{},
		},
		"slices that hold names are left out": {
			slices: []*discoveryv1.EndpointSlice{fqdn}, want: []string{},
		},
		"slices copied from other clusters are left out": {
			slices: []*discoveryv1.EndpointSlice{
				endpointSlice("imported", map[string]string{"multicluster.kubernetes.io/source-cluster": "west"}, endpoint("10.9.0.5", "n1", "us-a", true)),
				endpointSlice("merged", map[string]string{"multicluster.kubernetes.io/service-name": "web"}, endpoint("10.9.0.6", "n1", "us-a", true)),
				endpointSlice("own", map[string]string{"kubernetes.io/service-name": "web"}, endpoint("10.1.0.5", "n1", "eu-a", true)),
			},
			want: []string{"shop/own 10.1.0.5 eu-a/n1 true"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := watchtest.Start(t)
			for _, n := range row.nodes {
				s.Put(t, nodesPath, n)
			}
			for _, e := range row.slices {
				s.Put(t, slicesPath, e)
			}
			p, _ := followNodes(t, s)
			eventually(t, "both resources are listed", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return p.nodesListed && p.placesListed
			})
			if got := p.text(); !slices.Equal(got, row.want) {
				t.Errorf("Expected %q, got %q", row.want, got)
			}
		})
	}
}

func TestNodesAreFollowed(t *testing.T) {
	t.Parallel()
	s := watchtest.Start(t)
	s.Put(t, nodesPath, node("n1"))
	s.Put(t, slicesPath, endpointSlice("web", nil, endpoint("10.1.0.5", "n1", "", true)))
	p, w := followNodes(t, s)
	shows := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		eventually(t, fmt.Sprintf("%q is known, last %q", want, p.text()), func() bool { return slices.Equal(p.text(), want) })
	}
	shows("node n1 eu/eu-a [] []", "shop/web 10.1.0.5 /n1 true")

	s.Put(t, nodesPath, node("n2", addressed(corev1.NodeInternalIP, "192.0.2.2")))
	s.Put(t, slicesPath, endpointSlice("web", nil, endpoint("10.1.0.6", "n2", "", true)))
	shows("node n1 eu/eu-a [] []", "node n2 eu/eu-a [192.0.2.2] []", "shop/web 10.1.0.6 /n2 true")

	s.Delete(nodesPath, "", "n1")
	s.Delete(slicesPath, "shop", "web")
	shows("node n2 eu/eu-a [192.0.2.2] []")
	eventually(t, "no endpoint is counted any more", func() bool { return w.Status().Endpoints == 0 && w.Status().State == watch.Synced })
}

func TestAReportOfAKubeletIsNoNews(t *testing.T) {
	t.Parallel()
	s := watchtest.Start(t)
	s.Put(t, nodesPath, node("n1"))
	p, _ := followNodes(t, s)
	eventually(t, "n1 is known", func() bool { return len(p.text()) == 1 })
	s.Put(t, nodesPath, node("n1", func(n *corev1.Node) { n.Status.Phase = corev1.NodeRunning }))
	s.Put(t, nodesPath, node("n2"))
	eventually(t, "n2 is known", func() bool { return len(p.text()) == 2 })
	p.locked(func() {
		if p.applied != 2 {
			t.Errorf("Expected two changes to be told, got %d", p.applied)
		}
	})
}

func TestNodesThatMustNotBeReadDoNotHinderEndpointSlices(t *testing.T) {
	t.Parallel()
	s := watchtest.Start(t)
	s.Forbid(nodesPath, true)
	s.Put(t, nodesPath, node("n1"))
	s.Put(t, slicesPath, endpointSlice("web", nil, endpoint("10.1.0.5", "n1", "eu-a", true)))
	p, _ := followNodes(t, s)
	eventually(t, "the endpoint is known", func() bool { return slices.Equal(p.text(), []string{"shop/web 10.1.0.5 eu-a/n1 true"}) })
	problem := func(want watch.Problem) func() bool {
		return func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return maps.Equal(p.problems, map[string]watch.Problem{"nodes": want}) && p.nodesListed == (want == watch.NoProblem)
		}
	}
	eventually(t, "the problem is told", problem(watch.Forbidden))
	first := s.Lists(nodesPath)
	eventually(t, "it is tried again", func() bool { return s.Lists(nodesPath) > first+1 })
	p.locked(func() {
		if p.problemsTold != 1 {
			t.Errorf("Expected the problem to be told once, got %d times", p.problemsTold)
		}
	})
	s.Forbid(nodesPath, false)
	eventually(t, "the nodes are read once they may be", problem(watch.NoProblem))
	if got := p.text(); len(got) != 2 || p.nodes["n1"].Zone != "eu-a" || p.slices[mcs.ServiceKey{Namespace: "shop", Name: "web"}][0].Addr != netip.MustParseAddr("10.1.0.5") {
		t.Errorf("Expected the node and the endpoint, got %q", got)
	}
}
