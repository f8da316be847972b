package locality

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

func slice(name string) mcs.ServiceKey { return mcs.ServiceKey{Namespace: "shop", Name: name} }

// pods are endpoints of one node, at some of its first addresses.
func pods(network, node string, from, count int) []watch.Place {
	var out []watch.Place
	for i := range count {
		out = append(out, place1(fmt.Sprintf("%s.%d", network, from+i), node))
	}
	return out
}

func TestPodRangesAreUsedOnlyWhileEndpointsAgree(t *testing.T) {
	for name, row := range map[string]struct {
		slices          map[string][]watch.Place
		change          func(*atlas)
		agreed, checked int
		used            bool
	}{
		"nothing to compare": {
			nil, nil, 0, 0, true,
		},
		"all agree": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50), "b": pods("10.1.2", "n2", 10, 50)}, nil, 100, 100, true,
		},
		"one of a hundred does not agree": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 99), "b": pods("10.1.1", "n2", 200, 1)}, nil, 99, 100, true,
		},
		"two of a hundred do not agree": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 98), "b": pods("10.1.1", "n2", 200, 2)}, nil, 98, 100, false,
		},
		"endpoints outside every range do not agree": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50), "b": pods("10.9.9", "n1", 10, 1)}, nil, 50, 51, false,
		},
		"an endpoint in several slices counts once": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50), "b": pods("10.1.1", "n1", 10, 50)}, nil, 50, 50, true,
		},
		"endpoints at the address of a node do not count": {
			map[string][]watch.Place{"a": pods("192.0.2", "n1", 1, 1)}, nil, 0, 0, true,
		},
		"endpoints without a node do not count": {
			map[string][]watch.Place{"a": {{Addr: netip.MustParseAddr("10.9.9.9"), Zone: "eu-a", Ready: true}}}, nil, 0, 0, true,
		},
		"endpoints on nodes of other clusters do not count": {
			map[string][]watch.Place{"a": pods("10.9.9", "elsewhere", 1, 5)}, nil, 0, 0, true,
		},
		"they are used again when the others are gone": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50), "b": pods("10.9.9", "n1", 10, 5)},
			func(a *atlas) { a.ApplyPlaces(slice("b"), nil) }, 50, 50, true,
		},
		"they are used again when the others have moved": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50), "b": pods("10.9.9", "n1", 10, 5)},
			func(a *atlas) { a.ApplyPlaces(slice("b"), pods("10.1.2", "n2", 10, 5)) }, 55, 55, true,
		},
		"they are used again when a node says another range": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50), "b": pods("10.9.9", "n1", 10, 5)},
			func(a *atlas) { a.ApplyNode("n1", &watch.Node{PodCIDRs: ranges("10.1.1.0/24", "10.9.9.0/24")}) }, 55, 55, true,
		},
		"a cluster without ranges has nothing to compare": {
			map[string][]watch.Place{"a": pods("10.1.1", "n1", 10, 50)},
			func(a *atlas) { a.ApplyNode("n1", &watch.Node{}); a.ApplyNode("n2", &watch.Node{}) }, 0, 0, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := east()
			w.slices = row.slices
			a := atlasOf(t, w)
			if row.change != nil {
				row.change(a)
				a.publish()
			}
			got := a.current.Load()
			if got.agreed != row.agreed || got.checked != row.checked || got.podsTrusted() != row.used {
				t.Errorf("Expected %d of %d and used %v, got %d of %d and %v", row.agreed, row.checked, row.used, got.agreed, got.checked, got.podsTrusted())
			}
			client := located(handler(t, a, "cluster east"), asking("10.1.2.250"))
			if ranged := client.Source == topology.SourcePodCIDR; len(got.pods.values) > 0 && ranged != row.used {
				t.Errorf("Expected the ranges to be used: %v, got %+v", row.used, client)
			}
		})
	}
}

// Whatever happens in whatever order, the table is the one that would be made from what holds in the end.
func TestATableMadeStepByStepIsTheOneMadeAtOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	step := newAtlas("east")
	defer step.close()
	step.SetNodesListed()
	w := world{nodes: map[string]*watch.Node{}, slices: map[string][]watch.Place{}}
	for range 500 {
		if r.IntN(6) == 0 {
			name := fmt.Sprintf("n%d", r.IntN(4))
			n := &watch.Node{Region: fmt.Sprint(r.IntN(2)), Zone: fmt.Sprint(r.IntN(3)), Addresses: []netip.Addr{randomAddr(r)}}
			addr := randomAddr(r)
			n.PodCIDRs = []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen()-1-r.IntN(16)).Masked()}
			if w.nodes[name] = n; r.IntN(4) == 0 {
				delete(w.nodes, name)
			}
			step.ApplyNode(name, w.nodes[name])
		} else {
			name := fmt.Sprintf("s%d", r.IntN(5))
			var places []watch.Place
			for range r.IntN(6) {
				places = append(places, watch.Place{Addr: randomAddr(r), Node: fmt.Sprintf("n%d", r.IntN(5)), Zone: fmt.Sprint(r.IntN(3)), Ready: r.IntN(2) == 0})
			}
			w.slices[name] = places
			step.ApplyPlaces(slice(name), places)
		}
		if r.IntN(3) > 0 {
			continue
		}
		step.publish()
		got, want := step.current.Load(), tableOf(w)
		if got.agreed != want.agreed || got.checked != want.checked || got.region != want.region || got.exact.len() != want.exact.len() {
			t.Fatalf("Expected %+v, got %+v", want, got)
		}
		for range 200 {
			addr := randomAddr(r)
			g, w := got.exact.find(addr), want.exact.find(addr)
			if (g == nil) != (w == nil) || g != nil && *g != *w {
				t.Fatalf("Expected %s to be at %v, got %v", addr, w, g)
			}
		}
	}
}

// tableOf makes the table of a world at once.
func tableOf(w world) *table {
	a := newAtlas("east")
	defer a.close()
	for name, n := range w.nodes {
		a.ApplyNode(name, n)
	}
	for name, places := range w.slices {
		a.ApplyPlaces(slice(name), places)
	}
	a.SetNodesListed()
	a.publish()
	return a.current.Load()
}

func TestAnAtlasPublishesByItself(t *testing.T) {
	a := newAtlas("east")
	defer a.close()
	a.ApplyNode("n1", &watch.Node{Zone: "a", Addresses: addrs("192.0.2.1")})
	for end := time.Now().Add(10 * time.Second); a.current.Load().exact.find(netip.MustParseAddr("192.0.2.1")) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Expected a table with the node")
		}
	}
}

// BenchmarkPublish measures one changed endpoint among a hundred thousand, and a changed Node.
func BenchmarkPublish(b *testing.B) {
	w := big(5000, 20)
	a := atlasOf(b, w)
	b.Run("endpoint", func(b *testing.B) {
		places := w.slices["n7"]
		for i := 0; b.Loop(); i++ {
			a.ApplyPlaces(slice("n7"), places[i%2:])
			a.publish()
		}
	})
	b.Run("node", func(b *testing.B) {
		for b.Loop() {
			a.ApplyNode("n7", w.nodes["n7"])
			a.publish()
		}
	})
}
