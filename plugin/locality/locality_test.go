package locality

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writer is a client at an address.
type writer struct {
	dns.ResponseWriter
	remote net.Addr
	got    *dns.Msg
}

func (w *writer) RemoteAddr() net.Addr { return w.remote }
func (w *writer) WriteMsg(m *dns.Msg) error {
	w.got = m
	return nil
}

func udp(address string) *writer {
	return &writer{remote: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 40000))}
}

// asking is a query for anything from an address.
func asking(address string) *request.Request {
	return &request.Request{W: udp(address), Req: new(dns.Msg).SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)}
}

// world is what an API server tells.
type world struct {
	nodes  map[string]*watch.Node
	slices map[string][]watch.Place
}

// east has two zones, a node with both families each, and pods with and without Services.
func east() world {
	return world{
		nodes: map[string]*watch.Node{
			"n1": {Region: "eu", Zone: "eu-a", Addresses: addrs("192.0.2.1", "2001:db8::1"), PodCIDRs: ranges("10.1.1.0/24", "fd00:1:1::/64")},
			"n2": {Region: "eu", Zone: "eu-b", Addresses: addrs("192.0.2.2"), PodCIDRs: ranges("10.1.2.0/24", "10.1.2.128/25")},
			"n3": {Region: "eu", Addresses: addrs("192.0.2.3")},
		},
		slices: map[string][]watch.Place{
			"web": {place1("10.1.1.5", "n1"), place1("fd00:1:1::5", "n1"), place1("10.1.2.5", "n2")},
			"api": {place1("10.1.1.5", "n1"), {Addr: netip.MustParseAddr("10.7.0.5"), Zone: "eu-c", Ready: true}},
		},
	}
}

func place1(address, node string) watch.Place {
	return watch.Place{Addr: netip.MustParseAddr(address), Node: node, Ready: true}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func ranges(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// atlasOf returns an atlas that knows a world.
func atlasOf(tb testing.TB, w world) *atlas {
	tb.Helper()
	a := newAtlas("east")
	tb.Cleanup(a.close)
	for name, n := range w.nodes {
		a.ApplyNode(name, n)
	}
	a.SetNodesListed()
	for name, places := range w.slices {
		a.ApplyPlaces(mcs.ServiceKey{Namespace: "shop", Name: name}, places)
	}
	a.SetPlacesListed()
	a.publish()
	return a
}

// handler makes a handler as the stanza says, with an atlas instead of its `nodes`.
func handler(tb testing.TB, a *atlas, stanza string) *Locality {
	tb.Helper()
	config, err := parse(controller(stanza))
	if err != nil {
		tb.Fatal(err)
	}
	return &Locality{config: config, atlas: a}
}

func TestLocate(t *testing.T) {
	const (
		plain   = "cluster east"
		written = "cluster east eu-west"
		table   = `cluster east
			cidr 10.0.0.0/8 zone=wide
			cidr 10.1.0.0/16 zone=narrow
			cidr 10.1.2.0/24 zone=table
			cidr 192.0.2.0/24 zone=rack region=eu
			cidr 198.51.100.0/24 cluster=west
			cidr 203.0.113.0/24 cluster=west region=us zone=us-1 node=w1
			cidr fd00:1::/32 zone=six`
	)
	in := func(source topology.Source, region, cluster, zone, node string) topology.Client {
		return topology.Client{
			Source:   source,
			Locality: topology.Locality{Region: region, Cluster: topology.ClusterID(cluster), Zone: zone, Node: node},
		}
	}
	for name, row := range map[string]struct {
		stanza, client string
		change         func(*world)
		want           topology.Client
	}{
		"a process on a node is at the node's address": {
			plain, "192.0.2.1", nil, in(topology.SourceAddress, "eu", "east", "eu-a", "n1"),
		},
		"a node's address of the other family is as good": {
			plain, "2001:db8::1", nil, in(topology.SourceAddress, "eu", "east", "eu-a", "n1"),
		},
		"a pod behind a Service is where its EndpointSlice says": {
			plain, "10.1.2.5", nil, in(topology.SourceAddress, "eu", "east", "eu-b", "n2"),
		},
		"a pod without a Service is in its node's range": {
			plain, "10.1.1.77", nil, in(topology.SourcePodCIDR, "eu", "east", "eu-a", "n1"),
		},
		"a pod without a Service is in its node's range over IPv6 too": {
			plain, "fd00:1:1::77", nil, in(topology.SourcePodCIDR, "eu", "east", "eu-a", "n1"),
		},
		"an IPv4 address in IPv6 clothes is the IPv4 address": {
			plain, "::ffff:10.1.2.5", nil, in(topology.SourceAddress, "eu", "east", "eu-b", "n2"),
		},
		"a borrowed address is where the endpoint is, not where the range says": {
			plain, "10.1.1.200", func(w *world) {
				w.slices["borrowed"] = []watch.Place{place1("10.1.1.200", "n2")}
				var many []watch.Place
				for i := range 100 {
					many = append(many, place1(fmt.Sprintf("10.1.1.%d", 10+i), "n1"))
				}
				w.slices["many"] = many
			}, in(topology.SourceAddress, "eu", "east", "eu-b", "n2"),
		},
		"of two ranges the longer counts": {
			plain, "10.1.2.200", func(w *world) {
				w.nodes["n1"].PodCIDRs = append(w.nodes["n1"].PodCIDRs, netip.MustParsePrefix("10.1.2.192/26"))
			}, in(topology.SourcePodCIDR, "eu", "east", "eu-a", "n1"),
		},
		"an endpoint of which only the zone is known has that zone": {
			plain, "10.7.0.5", nil, in(topology.SourceAddress, "eu", "east", "eu-c", ""),
		},
		"an endpoint on a node that this cluster does not have tells nothing": {
			plain, "10.8.0.5", func(w *world) { w.slices["copied"] = []watch.Place{place1("10.8.0.5", "elsewhere")} },
			in(topology.SourceCluster, "eu", "east", "", ""),
		},
		"a ready endpoint counts before one that is ending with the same address": {
			plain, "10.1.2.9", func(w *world) {
				old := place1("10.1.2.9", "n1")
				old.Ready = false
				w.slices["old"], w.slices["new"] = []watch.Place{old}, []watch.Place{place1("10.1.2.9", "n2")}
			}, in(topology.SourceAddress, "eu", "east", "eu-b", "n2"),
		},
		"of slices that disagree only what they agree on is known": {
			plain, "10.7.0.9", func(w *world) {
				w.slices["one"], w.slices["two"] = []watch.Place{place1("10.7.0.9", "n1")}, []watch.Place{place1("10.7.0.9", "n2")}
			}, in(topology.SourceAddress, "eu", "east", "", ""),
		},
		"a node's address counts before an endpoint's": {
			plain, "192.0.2.1", func(w *world) { w.slices["host"] = []watch.Place{place1("192.0.2.1", "n2")} },
			in(topology.SourceAddress, "eu", "east", "eu-a", "n1"),
		},
		"a client in no table is in the own cluster and its region": {
			plain, "172.16.0.1", nil, in(topology.SourceCluster, "eu", "east", "", ""),
		},
		"a client in no table is nowhere when the own cluster is not said": {
			"cidr 10.0.0.0/8 cluster=west", "172.16.0.1", nil, in(topology.SourceNone, "", "", "", ""),
		},
		"the region of most nodes is the cluster's": {
			plain, "172.16.0.1", func(w *world) { w.nodes["n1"].Region = "us" }, in(topology.SourceCluster, "eu", "east", "", ""),
		},
		"a written region is the cluster's": {
			written, "172.16.0.1", nil, in(topology.SourceCluster, "eu-west", "east", "", ""),
		},
		"a written region holds for nodes that say another": {
			written, "192.0.2.1", nil, in(topology.SourceAddress, "eu-west", "east", "eu-a", "n1"),
		},
		"a node without a region is in the cluster's": {
			plain, "192.0.2.1", func(w *world) { w.nodes["n1"].Region = "" }, in(topology.SourceAddress, "eu", "east", "eu-a", "n1"),
		},
		"an endpoint counts before the written table": {
			table, "10.1.2.5", nil, in(topology.SourceAddress, "eu", "east", "eu-b", "n2"),
		},
		"the written table counts before the ranges of nodes": {
			table, "10.1.2.77", nil, in(topology.SourceCIDR, "eu", "east", "table", ""),
		},
		"of written ranges the longest counts": {
			table, "10.1.9.1", nil, in(topology.SourceCIDR, "eu", "east", "narrow", ""),
		},
		"a written range holds for its own family": {
			table, "fd00:1:9::1", nil, in(topology.SourceCIDR, "eu", "east", "six", ""),
		},
		"a written range in another cluster is not in the own region": {
			table, "198.51.100.1", nil, in(topology.SourceCIDR, "", "west", "", ""),
		},
		"a written range says all there is": {
			table, "203.0.113.1", nil, in(topology.SourceCIDR, "us", "west", "us-1", "w1"),
		},
		"the written table completes a node without a zone": {
			table, "192.0.2.3", nil, in(topology.SourceAddress, "eu", "east", "rack", "n3"),
		},
		"the written table does not overrule a node's zone": {
			table, "192.0.2.2", nil, in(topology.SourceAddress, "eu", "east", "eu-b", "n2"),
		},
		"the written table does not complete a node of another region": {
			table, "192.0.2.3", func(w *world) { w.nodes["n3"].Region = "us" }, in(topology.SourceAddress, "us", "east", "", "n3"),
		},
		"two nodes with one address are told apart by nothing but what they share": {
			plain, "192.0.2.1", func(w *world) { w.nodes["n4"] = &watch.Node{Region: "eu", Zone: "eu-a", Addresses: addrs("192.0.2.1")} },
			in(topology.SourceAddress, "eu", "east", "eu-a", ""),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := east()
			if row.change != nil {
				row.change(&w)
			}
			row.want.Addr = netip.MustParseAddr(row.client).Unmap()
			l := handler(t, atlasOf(t, w), row.stanza)
			if got := located(l, asking(row.client)); got != row.want {
				t.Errorf("Expected %+v, got %+v", row.want, got)
			}
		})
	}
}

// wrapped is an address as PROXY protocol listeners have it.
type wrapped struct{ net.Addr }

func (w wrapped) Unwrap() net.Addr { return w.Addr }

// text is an address of a transport that the standard library does not know.
type text string

func (text) Network() string  { return "other" }
func (t text) String() string { return string(t) }

func TestLocateUnderstandsEveryTransport(t *testing.T) {
	l := handler(t, atlasOf(t, east()), "cluster east")
	tcp := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.1.1.5:40000"))
	for name, row := range map[string]struct {
		remote net.Addr
		want   topology.Source
	}{
		"UDP":                 {net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.1.1.5:40000")), topology.SourceAddress},
		"TCP":                 {tcp, topology.SourceAddress},
		"behind a proxy":      {wrapped{tcp}, topology.SourceAddress},
		"another one":         {text("10.1.1.5:40000"), topology.SourceAddress},
		"IPv6 with a zone":    {net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[fd00:1:1::5%eth0]:40000")), topology.SourceAddress},
		"one without numbers": {text("a pipe"), topology.SourceCluster},
		"none":                {nil, topology.SourceCluster},
	} {
		t.Run(name, func(t *testing.T) {
			state := asking("192.0.2.1")
			state.W = &writer{remote: row.remote}
			if got := located(l, state); got.Source != row.want || got.Cluster != "east" {
				t.Errorf("Expected %s in east, got %+v", row.want, got)
			}
		})
	}
}

func TestWithoutNodesAClientIsInTheOwnCluster(t *testing.T) {
	l := handler(t, nil, "cluster east eu")
	want := topology.Client{
		Addr: netip.MustParseAddr("10.1.1.5"), Source: topology.SourceCluster,
		Locality: topology.Locality{Cluster: "east", Region: "eu"},
	}
	if got := located(l, asking("10.1.1.5")); got != want {
		t.Errorf("Expected %+v, got %+v", want, got)
	}
}

func TestLocateAllocatesNothing(t *testing.T) {
	l := handler(t, atlasOf(t, east()), "cluster east\ncidr 172.16.0.0/12 zone=vm\necs 192.0.2.0/24")
	forwarded := asking("192.0.2.1")
	forwarded.Req = withSubnet(forwarded.Req, 1, 32, 0, "10.1.1.5")
	for name, state := range map[string]*request.Request{
		"an exact address": asking("10.1.1.5"), "a pod range": asking("10.1.1.77"), "a written range": asking("172.16.0.1"),
		"nothing": asking("198.51.100.1"), "a forwarded client": forwarded,
	} {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(100, func() { located(l, state) }); got != 0 {
				t.Errorf("Expected no allocation, got %v", got)
			}
		})
	}
}

// big is a cluster with many nodes, and pods on each.
func big(nodes, pods int) world {
	w := world{nodes: map[string]*watch.Node{}, slices: map[string][]watch.Place{}}
	for n := range nodes {
		name := fmt.Sprintf("n%d", n)
		base := netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0})
		w.nodes[name] = &watch.Node{
			Region: "eu", Zone: fmt.Sprintf("eu-%d", n%3),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(n >> 8), byte(n)})},
			PodCIDRs:  []netip.Prefix{netip.PrefixFrom(base, 24)},
		}
		var places []watch.Place
		for p := range pods {
			b := base.As4()
			b[3] = byte(p + 2)
			places = append(places, watch.Place{Addr: netip.AddrFrom4(b), Node: name, Ready: true})
		}
		w.slices[name] = places
	}
	return w
}

func BenchmarkLocate(b *testing.B) {
	l := handler(b, atlasOf(b, big(5000, 20)), `cluster east
		cidr 192.168.0.0/16 zone=a
		cidr 192.168.7.0/24 zone=b
		cidr 192.168.8.0/21 zone=c
		ecs 172.31.0.0/16`)
	for _, row := range []struct{ name, client string }{
		{"exact", "10.3.4.5"}, {"podcidr", "10.3.4.200"}, {"cidr", "192.168.1.1"}, {"cluster", "198.51.100.1"},
	} {
		state := asking(row.client)
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				located(l, state)
			}
		})
	}
	forwarded := asking("172.31.0.1")
	forwarded.Req = withSubnet(forwarded.Req, 1, 32, 0, "10.3.4.5")
	b.Run("ecs", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			located(l, forwarded)
		}
	})
}

// located is what Locate tells.
func located(l *Locality, state *request.Request) (c topology.Client) {
	l.Locate(state, &c)
	return c
}
