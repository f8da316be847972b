package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestLoads(t *testing.T) {
	whole := Counts{Healthy: 100, Total: 100}
	ready := func(n int) Counts { return Counts{Healthy: n, Total: 100} }
	healthy := func(loads ...int) (out []Load) {
		for _, l := range loads {
			out = append(out, Load{Healthy: l})
		}
		return out
	}
	for _, tc := range []struct {
		name       string
		opf, panic int
		tiers      []Counts
		want       []Load
	}{
		{"everything ready stays near", 140, 0, []Counts{ready(100), whole}, healthy(10000, 0)},
		{"72 percent ready counts as whole", 140, 0, []Counts{ready(72), whole}, healthy(10000, 0)},
		{"71 percent ready lets the first answer go", 140, 0, []Counts{ready(71), whole}, healthy(9940, 60)},
		{"50 percent ready keeps 70", 140, 0, []Counts{ready(50), whole}, healthy(7000, 3000)},
		{"25 percent ready keeps 35", 140, 0, []Counts{ready(25), whole}, healthy(3500, 6500)},
		{"nothing ready keeps nothing", 140, 0, []Counts{ready(0), whole}, healthy(0, 10000)},
		{"the third tier takes what the second cannot", 140, 0, []Counts{ready(25), ready(25), whole}, healthy(3500, 3500, 3000)},
		{"too little everywhere is shared in proportion, the rest goes first", 140, 0, []Counts{ready(10), ready(20)}, healthy(3334, 6666)},
		{"all or nothing: one ready endpoint keeps all", allOrNothing, 0, []Counts{ready(1), whole}, healthy(10000, 0)},
		{"all or nothing: none keeps nothing", allOrNothing, 0, []Counts{ready(0), whole}, healthy(0, 10000)},
		{"degraded endpoints take what no healthy one can", 140, 0, []Counts{{Healthy: 25, Degraded: 75, Total: 100}, ready(25)},
			[]Load{{Healthy: 3500, Degraded: 3000}, {Healthy: 3500}}},
		{"a far healthy tier comes before near degraded endpoints", 140, 0, []Counts{{Degraded: 100, Total: 100}, whole}, healthy(0, 10000)},
		{"only degraded: they take all", 140, 0, []Counts{{Degraded: 2, Total: 4}, {Degraded: 4, Total: 4}}, []Load{{Degraded: 7000}, {Degraded: 3000}}},
		{"excluded endpoints do not count as missing", 140, 0, []Counts{{Healthy: 1, Total: 1, Excluded: 99}, whole}, healthy(10000, 0)},
		{"nothing usable anywhere: by size", 140, 0, []Counts{{Total: 10}, {Total: 30}}, []Load{{Healthy: 2500, Panic: true}, {Healthy: 7500, Panic: true}}},
		{"nothing at all: the first", 140, 0, []Counts{{}, {}}, []Load{{Healthy: 10000, Panic: true}, {Panic: true}}},
		{"no tier: no load", 140, 0, nil, []Load{}},

		// What a threshold of 50 does when clusters fail as a block, and what 0 does.
		{"panic 50, 2 of 3 equal members dead: all three answer", 140, 50, []Counts{{Healthy: 1, Total: 3}}, []Load{{Healthy: 10000, Panic: true}}},
		{"panic 0, 2 of 3 equal members dead: the third answers", 140, 0, []Counts{{Healthy: 1, Total: 3}}, healthy(10000)},
		{"panic 50, 1 of 2 equal members dead: 50 is not below 50", 140, 50, []Counts{{Healthy: 1, Total: 2}}, healthy(10000)},
		{"panic 50, own dead and 2 of 3 others: everything by size", 140, 50, []Counts{{Total: 1}, {Healthy: 1, Total: 3}},
			[]Load{{Healthy: 2500, Panic: true}, {Healthy: 7500, Panic: true}}},
		{"panic 0, own dead and 2 of 3 others: the fourth answers", 140, 0, []Counts{{Total: 1}, {Healthy: 1, Total: 3}}, healthy(0, 10000)},
		{"panic 50 where only one of two tiers is low: its unhealthy ones help", 140, 50, []Counts{ready(5), ready(65)},
			[]Load{{Healthy: 715, Panic: true}, {Healthy: 9285}}},
		{"panic 50 where everything fits: no panic", 140, 50, []Counts{ready(5), whole}, healthy(700, 9300)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := loads(scale, tc.opf, tc.panic, tc.tiers); !slices.Equal(got, tc.want) {
				t.Errorf("Loads are %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestLoadsAddUp(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	upTo := func(n int) int {
		if n == 0 || random.IntN(3) == 0 {
			return 0
		}
		return random.IntN(n + 1)
	}
	for range 100000 {
		tiers := make([]Counts, 1+random.IntN(5))
		for i := range tiers {
			total := upTo(1 << random.IntN(16))
			h := upTo(total)
			tiers[i] = Counts{Healthy: h, Degraded: upTo(total - h), Total: total, Excluded: upTo(10)}
		}
		s := []int{100, scale}[random.IntN(2)]
		got := loads(s, []int{allOrNothing, 100, 140, 1000}[random.IntN(4)], upTo(100), tiers)
		sum := 0
		for i, l := range got {
			sum += l.Healthy + l.Degraded
			if l.Healthy < 0 || l.Degraded < 0 || !l.Panic && (l.Healthy > 0 && tiers[i].Healthy == 0 || l.Degraded > 0 && tiers[i].Degraded == 0) {
				t.Fatalf("%+v give %+v", tiers, got)
			}
		}
		if sum != s {
			t.Fatalf("%+v add up to %d of %d: %+v", tiers, sum, s, got)
		}
	}
}

// TestSpillOver asks a plan what the formulas give.
func TestSpillOver(t *testing.T) {
	for _, tc := range []struct{ percent, own int }{{100, 10000}, {72, 10000}, {50, 7000}, {25, 3500}, {0, 0}} {
		t.Run(fmt.Sprintf("the own cluster at %d percent keeps %d of 10000", tc.percent, tc.own), func(t *testing.T) {
			own := plain("a", "r0", 100).with(func(m *member) { m.ready = tc.percent })
			s, v := merged(clusterSetIP, own, plain("b", "r0", 100), plain("c", "r1", 100))
			p := (&Policy{}).Plan(s, v, topology.Locality{Cluster: "a", Region: "r0"})
			if got := p.tiers[0].load.Healthy; got != tc.own {
				t.Errorf("The own cluster has load %d, want %d", got, tc.own)
			}
			got := shares(p, 10000, IPv4)
			within(t, "a", got["a"], 10000, float64(tc.own)/scale, 2.576)
			if got["a"]+got["b"] != 10000 {
				t.Errorf("Shares are %v: nobody may be sent beyond the region", got)
			}
		})
	}
}

// TestDeadMembers counts the answers that point to dead members, with and without a panic threshold.
func TestDeadMembers(t *testing.T) {
	for _, tc := range []struct {
		name     string
		weights  []int // of members a, b, ...; the first dead ones are dead
		dead     int
		own      bool // the first is the client's cluster
		with50   float64
		without0 float64
	}{
		{"3 equal members, 2 dead", []int{1, 1, 1}, 2, false, 2.0 / 3, 0},
		{"2 members of 60 and 40, the big one dead", []int{60, 40}, 1, false, 0.6, 0},
		{"5 equal members, 3 dead", []int{1, 1, 1, 1, 1}, 3, false, 0.6, 0},
		{"2 equal members, 1 dead", []int{1, 1}, 1, false, 0, 0},
		{"the own dead and 2 of 3 others", []int{1, 1, 1, 1}, 3, true, 0.75, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var all []member
			for i, w := range tc.weights {
				m := plain(topology.ClusterID(rune('a'+i)), "r1", w) // automatic weights: so many endpoints
				if i < tc.dead {
					m = m.is(health.Unhealthy)
				}
				all = append(all, m)
			}
			client := topology.Locality{}
			if tc.own {
				all[0].region, client = "r0", topology.Locality{Cluster: "a", Region: "r0"}
			}
			for threshold, want := range map[int]float64{50: tc.with50, 0: tc.without0} {
				s, v := merged(clusterSetIP, all...)
				got := shares((&Policy{Panic: threshold}).Plan(s, v, client), 10000, IPv4)
				dead := 0
				for i := range tc.dead {
					dead += got[all[i].id]
				}
				within(t, fmt.Sprint("panic ", threshold), dead, 10000, want, 2.576)
			}
		})
	}
}

func TestDistance(t *testing.T) {
	full := []Label{Node, Zone, Cluster, Region}
	client := topology.Locality{Region: "r", Cluster: "c", Zone: "z", Node: "n"}
	for _, tc := range []struct {
		name             string
		labels           []Label
		client, endpoint topology.Locality
		want             int
	}{
		{"no label: everything is equally near", nil, client, topology.Locality{Region: "x"}, 0},
		{"the same node", full, client, client, 0},
		{"the same zone", full, client, topology.Locality{Region: "r", Cluster: "c", Zone: "z", Node: "m"}, 1},
		{"the same cluster", full, client, topology.Locality{Region: "r", Cluster: "c", Zone: "y", Node: "m"}, 2},
		{"the same region", full, client, topology.Locality{Region: "r", Cluster: "d", Zone: "z", Node: "n"}, 3},
		{"nothing in common", full, client, topology.Locality{Region: "s", Cluster: "d", Zone: "z", Node: "n"}, 4},
		{"the own cluster is in the own region, though nobody says which the client's is", clusterRegion,
			topology.Locality{Cluster: "c"}, topology.Locality{Region: "r", Cluster: "c"}, 0},
		{"the own cluster is in the own region, though nobody says which the cluster's is", clusterRegion,
			topology.Locality{Region: "r", Cluster: "c"}, topology.Locality{Cluster: "c"}, 0},
		{"unknown regions are not one region", []Label{Region}, topology.Locality{Cluster: "c"}, topology.Locality{Cluster: "d"}, 1},
		{"an unknown client matches nothing", full, topology.Locality{}, topology.Locality{}, 4},
		{"an unknown client and a known endpoint", full, topology.Locality{}, client, 4},
		{"a zone only inside a region", []Label{Zone}, client, topology.Locality{Region: "s", Cluster: "d", Zone: "z"}, 1},
		{"a zone across the clusters of a region", []Label{Zone}, client, topology.Locality{Region: "r", Cluster: "d", Zone: "z"}, 0},
		{"an endpoint without a zone is not near", []Label{Zone}, client, topology.Locality{Region: "r", Cluster: "c"}, 1},
		{"a client without a zone is not near", []Label{Zone}, topology.Locality{Region: "r", Cluster: "c"}, client, 1},
		{"a node only inside a cluster", []Label{Node}, client, topology.Locality{Region: "r", Cluster: "d", Zone: "z", Node: "n"}, 1},
		{"the own node is in the own zone, though nobody says which", sameNode,
			topology.Locality{Region: "r", Cluster: "c", Node: "n"}, topology.Locality{Region: "r", Cluster: "c", Node: "n"}, 0},
		{"the first label that differs ends the comparison", []Label{Node, Region}, client,
			topology.Locality{Region: "s", Cluster: "c", Zone: "z", Node: "n"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := distance(tc.labels, mask(tc.labels, tc.client), tc.endpoint); got != tc.want {
				t.Errorf("The distance is %d, want %d", got, tc.want)
			}
		})
	}
}

func TestLabelsForService(t *testing.T) {
	for _, tc := range []struct {
		name         string
		policy       Policy
		headless     bool
		distribution string
		want         []Label
		opf          int
	}{
		{"a ClusterSetIP service prefers the own cluster and region", Policy{}, false, "", clusterRegion, 140},
		{"a headless service prefers nothing", Policy{}, true, "", nil, 140},
		{"a service's wish counts only where the operator asks for it", Policy{}, true, "PreferSameZone", nil, 140},
		{"what the operator lists", Policy{Prefer: ByLabels, Labels: []Label{Zone, Region}}, true, "PreferSameNode", []Label{Zone, Region}, 140},
		{"the operator lists nothing", Policy{Prefer: ByLabels}, false, "", nil, 140},
		{"PreferClose", Policy{Prefer: ByService}, true, "PreferClose", []Label{Zone}, allOrNothing},
		{"PreferSameZone", Policy{Prefer: ByService}, true, "PreferSameZone", []Label{Zone}, allOrNothing},
		{"PreferSameNode", Policy{Prefer: ByService}, true, "PreferSameNode", []Label{Node, Zone}, allOrNothing},
		{"PreferSameZone among addresses of clusters", Policy{Prefer: ByService}, false, "PreferSameZone", clusterRegion, allOrNothing},
		{"a wish that is not known is none", Policy{Prefer: ByService}, true, "PreferTheMoon", nil, 140},
		{"a wish that is not known leaves the default", Policy{Prefer: ByService}, false, "PreferTheMoon", clusterRegion, 140},
		{"no wish", Policy{Prefer: ByService}, true, "", nil, 140},
	} {
		t.Run(tc.name, func(t *testing.T) {
			traits := clusterSetIP
			if tc.headless {
				traits = headless
			}
			traits.TrafficDistribution = tc.distribution
			s, _ := merged(traits, plain("a", "", 1))
			if labels, opf := tc.policy.labelsFor(s); !slices.Equal(labels, tc.want) || opf != tc.opf {
				t.Errorf("Labels %v with factor %d, want %v with %d", labels, opf, tc.want, tc.opf)
			}
		})
	}
}
