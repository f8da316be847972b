package balance

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew: every client of every server moves")

const goldenFile = "testdata/golden.txt"

// TestGoldenDraws holds 1,000 draws against a file. Servers of different minor releases stand side by side while one is
// rolled out, and must answer alike.
func TestGoldenDraws(t *testing.T) {
	got := goldenDraws()
	if *update {
		if err := os.WriteFile(goldenFile, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Open(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	n := 0
	for ; lines.Scan(); n++ {
		if n >= len(got) || lines.Text() != got[n] {
			t.Fatalf("Draw %d differs from %s: the choice must not change in a minor release.\nwant %s\ngot  %s", n, goldenFile, lines.Text(), got[min(n, len(got)-1)])
		}
	}
	if n != 1000 {
		t.Errorf("%s has %d draws, want 1000", goldenFile, n)
	}
}

// goldenDraws describe each of 1,000 draws: who asks for what and when, the draw, the tier and member of a ClusterSetIP
// service in two regions of which the near one is half ready, and the first three of forty headless backends.
func goldenDraws() (lines []string) {
	weights := []member{plain("east", "r0", 10), plain("north", "r1", 10), plain("south", "r1", 10), plain("west", "r0", 10)}
	for i := range weights {
		weights[i].weight = 10 * (i + 1)
	}
	weights[0].ready, weights[3].ready = 5, 4
	s, v := merged(clusterSetIP, weights...)
	p := (&Policy{Prefer: ByLabels, Labels: []Label{Region}}).Plan(s, v, topology.Locality{Region: "r0"})
	hs, hv := merged(headless, member{id: "east", endpoints: pods("east", 20, "", "")}, member{id: "west", endpoints: pods("west", 20, "", "")})
	hp := (&Policy{MaxAnswers: 3}).Plan(hs, hv, topology.Locality{})
	for i := range 1000 {
		client := clientAt(i * 7)
		if i%3 == 0 {
			client = netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(i >> 8), 15: byte(i)})
		}
		key := mcs.ServiceKey{Namespace: fmt.Sprint("ns", i%11), Name: fmt.Sprint("svc", i%7)}
		at := aTime.Add(time.Duration(i) * 1337 * time.Millisecond)
		ttl := time.Duration(i%40) * time.Second
		d := NewDraw(client, key, at, ttl, i%5 == 0)
		_, choice := p.Addresses(nil, d, IPv4)
		first, _ := hp.Backends(nil, d, IPv4, 0)
		lines = append(lines, fmt.Sprintf("%s %s %d %s %v %016x %d %s %v", client, key, at.UnixMilli(), ttl, i%5 == 0, uint64(d), choice.Tier, choice.Member, first))
	}
	return lines
}

func TestTheSameAnswerOnEveryReplica(t *testing.T) {
	build := func() *Plan {
		s, v := largeHeadless()
		return (&Policy{MaxAnswers: 8}).Plan(s, v, topology.Locality{})
	}
	one, two := build(), build()
	for i := range 200 {
		a, _ := one.Backends(nil, drawOf(i), IPv4, 0)
		b, _ := two.Backends(nil, drawOf(i), IPv4, 0)
		if !slices.Equal(a, b) {
			t.Fatalf("Client %d is given %v and %v", i, a, b)
		}
	}
}

func TestWeightsBecomeShares(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {70, 20, 10}, {1, 2, 3, 4, 5}, {1000, 1}, {65535, 65535, 1}, {5, 0, 5}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			p := weighted(One, weights...)
			got := shares(p, 10000, IPv4)
			for i, share := range equalOr(weights) {
				within(t, fmt.Sprint("member ", i), got[p.service.Members[i].Cluster], 10000, share/100, 2.576)
			}
		})
	}
}

// TestDrainedMembersAreEqual: with nobody else left, it does not matter how large a drained member is.
func TestDrainedMembersAreEqual(t *testing.T) {
	for _, tc := range []struct {
		name  string
		drain func(*member)
	}{
		{"by weight 0", func(m *member) { m.zero = true }},
		{"by weight-percent 0", func(m *member) { m.drained = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, v := merged(clusterSetIP, plain("a", "", 1).with(tc.drain), plain("b", "", 50).with(tc.drain))
			within(t, "a", shares((&Policy{}).Plan(s, v, topology.Locality{}), 10000, IPv4)["a"], 10000, 0.5, 2.576)
		})
	}
}

func TestFuzzedWeightsBecomeShares(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		weights := make([]int, 2+random.IntN(8))
		for i := range weights {
			weights[i] = random.IntN(1 << (1 + random.IntN(16)))
		}
		p := weighted(One, weights...)
		got := shares(p, 2000, IPv4)
		for i, share := range equalOr(weights) {
			within(t, fmt.Sprintf("member %d of %v", i, weights), got[p.service.Members[i].Cluster], 2000, share/100, 6)
		}
	}
}

func TestFewClientsConverge(t *testing.T) {
	p := weighted(One, 70, 20, 10)
	got := map[topology.ClusterID]int{}
	for client := range 50 {
		for epoch := range 200 {
			d := NewDraw(clientAt(client), web, aTime.Add(time.Duration(epoch)*5*time.Second), 5*time.Second, false)
			_, choice := p.Addresses(nil, d, IPv4)
			got[choice.Member]++
		}
	}
	for i, want := range []float64{70, 20, 10} {
		if share := float64(got[topology.ClusterID(fmt.Sprint("c", i))]) / 100; !near(share, want, 2) {
			t.Errorf("Member %d has %.2f %%, want %.0f within 2 points", i, share, want)
		}
	}
}

func TestAWeightMovesOnlyWhoMustMove(t *testing.T) {
	const n = 20000
	for _, tc := range []struct {
		name          string
		before, after []int
		// moved is the smallest part of the clients that has to move, in percent.
		moved float64
	}{
		{"halving the first", []int{70, 20, 10}, []int{35, 20, 10}, 100 * (0.7 - 35.0/65)},
		{"doubling the first", []int{35, 20, 10}, []int{70, 20, 10}, 100 * (0.7 - 35.0/65)},
		{"draining the first", []int{50, 30, 20}, []int{0, 30, 20}, 50},
		{"scaling all", []int{7, 2, 1}, []int{700, 200, 100}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			moved, between := 0, 0
			before, after := weighted(One, tc.before...), weighted(One, tc.after...)
			for i := range n {
				_, a := before.Addresses(nil, drawOf(i), IPv4)
				_, b := after.Addresses(nil, drawOf(i), IPv4)
				if a.Member != b.Member {
					moved++
					if a.Member != "c0" && b.Member != "c0" {
						between++
					}
				}
			}
			if between != 0 {
				t.Errorf("%d clients moved between members whose weight stayed", between)
			}
			within(t, "moved", moved, n, tc.moved/100, 2.576)
		})
	}
}

func TestOneEndpointChangesOneMemberOfACappedAnswer(t *testing.T) {
	endpoints := pods("east", 60, "", "")
	planOf := func(endpoints []mcs.Endpoint) *Plan {
		s, v := merged(headless, member{id: "east", endpoints: endpoints})
		return (&Policy{MaxAnswers: 8}).Plan(s, v, topology.Locality{})
	}
	before := planOf(endpoints)
	touched := 0
	for without := range endpoints {
		after := planOf(slices.Delete(slices.Clone(endpoints), without, without+1))
		for i := range 50 {
			a, b := backendsFor(before, drawOf(i), IPv4), backendsFor(after, drawOf(i), IPv4)
			gone := slices.DeleteFunc(a, func(l string) bool { return slices.Contains(b, l) })
			if len(b) != 8 || len(gone) > 1 || len(gone) == 1 && gone[0] != endpoints[without].Label {
				t.Fatalf("Without %s client %d loses %v and is given %v", endpoints[without].Label, i, gone, b)
			}
			touched += len(gone)
		}
	}
	if want := 50 * 8; touched != want {
		t.Errorf("%d answers changed, want %d: each member of each answer goes once", touched, want)
	}
}

func TestEpochs(t *testing.T) {
	const n = 5000
	changed := func(from, to time.Time, ttl time.Duration, sticky bool) (changed int) {
		for i := range n {
			if NewDraw(clientAt(i), web, from, ttl, sticky) != NewDraw(clientAt(i), web, to, ttl, sticky) {
				changed++
			}
		}
		return changed
	}
	for _, tc := range []struct {
		name   string
		after  time.Duration
		ttl    time.Duration
		sticky bool
		want   float64
	}{
		{"after one epoch everybody has another draw", 30 * time.Second, 30 * time.Second, false, 1},
		{"after a tenth of it a tenth has: they do not move at once", 3 * time.Second, 30 * time.Second, false, 0.1},
		{"after half of it half has", 15 * time.Second, 30 * time.Second, false, 0.5},
		{"an epoch lasts at least 5 s, whatever the TTL", time.Second, 0, false, 0.2},
		{"a sticky service ignores the time", 1000 * time.Hour, 5 * time.Second, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for offset := range 7 {
				from := aTime.Add(time.Duration(offset) * 1234 * time.Millisecond)
				within(t, tc.name, changed(from, from.Add(tc.after), tc.ttl, tc.sticky), n, tc.want, 4)
			}
		})
	}
	if a, b := NewDraw(clientAt(1), web, aTime, 0, true), NewDraw(clientAt(2), web, aTime, 0, true); a == b {
		t.Error("Two clients have one draw")
	}
	other := mcs.ServiceKey{Namespace: "shop", Name: "other"}
	if a, b := NewDraw(clientAt(1), web, aTime, 0, true), NewDraw(clientAt(1), other, aTime, 0, true); a == b {
		t.Error("Two services have one draw")
	}
	mapped := netip.AddrFrom16(clientAt(1).As16())
	if a, b := NewDraw(clientAt(1), web, aTime, 0, true), NewDraw(mapped, web, aTime, 0, true); a != b {
		t.Error("An IPv4 client that is seen on an IPv6 socket is another client")
	}
}

// TestWhoAnswers holds the members that answer any client, per family, against what is expected.
func TestWhoAnswers(t *testing.T) {
	v4, v6 := mustAddr("10.0.0.1"), mustAddr("fd00::1")
	both := mustAddr("10.0.0.1", "fd00::1")
	at := func(addrs []netip.Addr) func(*member) { return func(m *member) { m.addrs = addrs } }
	zero := func(m *member) { m.zero = true }
	percent0 := func(m *member) { m.drained = true }
	here := topology.Locality{Cluster: "a", Region: "r0"}
	a, b, c := plain("a", "r0", 4), plain("b", "r0", 4), plain("c", "r1", 4)
	gone := func(m *member) { m.ready = 0 }
	for _, tc := range []struct {
		name   string
		policy Policy
		all    []member
		want4  string // the members that answer, sorted
		want6  string
	}{
		{"the own cluster, alone", Policy{}, []member{a, b, c}, "a", ""},
		{"the own region when the own cluster has nothing ready", Policy{}, []member{a.with(gone), b, c}, "b", ""},
		{"the rest when the region has nothing ready", Policy{}, []member{a.with(gone), b.with(gone), c}, "c", ""},
		{"everybody when nothing is ready: a clusterset IP would still resolve", Policy{}, []member{a.with(gone), b.with(gone), c.with(gone)}, "a", ""},
		{"everybody without a preference", Policy{Prefer: ByLabels}, []member{a, b, c}, "a b c", ""},
		{"all unhealthy: fail open", Policy{}, []member{a.is(health.Unhealthy), b.is(health.Unhealthy), c.is(health.Unhealthy)}, "a b c", ""},
		{"one healthy: it alone, however far", Policy{}, []member{a.is(health.Unhealthy), b.is(health.Unhealthy), c}, "c", ""},
		{"an unhealthy member without endpoints is no reason to fail open", Policy{}, []member{a.is(health.Unhealthy).with(gone), b.with(gone), c.is(health.Degraded)}, "c", ""},
		{"degraded ones when there is no healthy one", Policy{Prefer: ByLabels}, []member{a.is(health.Degraded), b.is(health.Unhealthy), c.is(health.Degraded)}, "a c", ""},
		{"a near degraded one does not hide a far healthy one", Policy{}, []member{a.is(health.Degraded), c}, "c", ""},
		{"a member of weight 0 is drained", Policy{}, []member{a.with(zero), b, c}, "b", ""},
		{"a member of weight-percent 0 is drained", Policy{}, []member{a.with(percent0), b, c}, "b", ""},
		{"an excluded member is drained", Policy{}, []member{a.is(health.Excluded), b, c}, "b", ""},
		{"a drained member stays out when the others are unhealthy", Policy{}, []member{a.with(zero), b.is(health.Unhealthy), c.is(health.Unhealthy)}, "b c", ""},
		{"a drained member answers when the others have nothing ready", Policy{}, []member{a.with(zero), b.with(gone), c.with(gone)}, "a", ""},
		{"all of weight 0 are equal", Policy{Prefer: ByLabels}, []member{a.with(zero), b.with(zero), c.with(zero)}, "a b c", ""},
		{"all of weight-percent 0 are equal", Policy{Prefer: ByLabels}, []member{a.with(percent0), b.with(percent0), c.with(percent0)}, "a b c", ""},
		{"all drained one way or the other are equal", Policy{Prefer: ByLabels}, []member{a.with(percent0), b.with(zero)}, "a b", ""},
		{"all excluded: everybody", Policy{Prefer: ByLabels}, []member{a.is(health.Excluded), b.is(health.Excluded)}, "a b", ""},
		{"each family by whoever has it", Policy{}, []member{a.with(at(v4)), b.with(at(v6)), c.with(at(both))}, "a", "b"},
		{"each family by whoever has it, without a preference", Policy{Prefer: ByLabels}, []member{a.with(at(v4)), b.with(at(v6)), c.with(at(both))}, "a c", "b c"},
		{"a family that only a degraded member has", Policy{}, []member{a.with(at(v4)), c.with(at(v6)).is(health.Degraded)}, "a", "c"},
		{"a family that only an unhealthy member has", Policy{}, []member{a.with(at(v4)), c.with(at(v6)).is(health.Unhealthy)}, "a", "c"},
		{"a family that only a drained member has stays away", Policy{}, []member{a.with(at(v4)), c.with(at(v6)).with(zero)}, "a", ""},
		{"panic 50: a dead tier is used whole when too little is left everywhere", Policy{Panic: 50},
			[]member{a.is(health.Unhealthy), b.is(health.Unhealthy), c.with(func(m *member) { m.ready, m.total = 1, 4 })}, "a b c", ""},
		{"panic 0: never", Policy{},
			[]member{a.is(health.Unhealthy), b.is(health.Unhealthy), c.with(func(m *member) { m.ready, m.total = 1, 4 })}, "c", ""},
		{"a member without an address takes no part", Policy{}, []member{a.with(at([]netip.Addr{})), b}, "b", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, v := merged(clusterSetIP, tc.all...)
			p := tc.policy.Plan(s, v, here)
			for of, want := range map[*Family]string{&IPv4: tc.want4, &IPv6: tc.want6} {
				var got []string
				for _, id := range slices.Sorted(maps.Keys(shares(p, 500, *of))) {
					if id != "" {
						got = append(got, string(id))
					}
				}
				if strings.Join(got, " ") != want {
					t.Errorf("%v answer, want %s", got, want)
				}
			}
		})
	}
}

func TestAllAnswersHoldTheTier(t *testing.T) {
	a, b, c := plain("a", "r0", 4), plain("b", "r0", 4), plain("c", "r1", 4)
	for _, tc := range []struct {
		name string
		all  []member
		want []netip.Addr
	}{
		{"every member of the tier, sorted", []member{a, b, c}, mustAddr("10.96.0.0", "10.96.0.1")},
		{"one address of two members once", []member{a.with(func(m *member) { m.addrs = mustAddr("10.96.0.1") }), b}, mustAddr("10.96.0.1")},
		{"no drained one", []member{a.with(func(m *member) { m.zero = true }), b, c}, mustAddr("10.96.0.1")},
		{"no unhealthy one", []member{a.is(health.Unhealthy), b, c}, mustAddr("10.96.0.1")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, v := merged(clusterSetIP, tc.all...)
			p := (&Policy{Answer: All, Prefer: ByLabels, Labels: []Label{Region}}).Plan(s, v, topology.Locality{Region: "r0"})
			before := mustAddr("255.0.0.1", "0.0.0.1") // must stay, in place and order
			for i := range 20 {
				got, choice := p.Addresses(slices.Clone(before), drawOf(i), IPv4)
				want := append(slices.Clone(before), tc.want...)
				if choice.Tier > 0 { // what the first cannot take
					want = append(slices.Clone(before), addrOf(2))
				}
				if !slices.Equal(got, want) {
					t.Errorf("Got %v, want %v", got, want)
				}
			}
		})
	}
}

func TestHeadless(t *testing.T) {
	labels := func(prefix string, n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint(prefix, "-", i))
		}
		return out
	}
	east := member{id: "east", region: "r0", endpoints: pods("e", 3, "z0", "")}
	west := member{id: "west", region: "r1", endpoints: pods("w", 2, "z0", "")}
	weigh := func(w int) func(*member) { return func(m *member) { m.weight, m.zero = w, w == 0 } }
	for _, tc := range []struct {
		name   string
		policy Policy
		all    []member
		want   [][]string // any of these
	}{
		{"without a preference the list is complete", Policy{}, []member{east, west}, [][]string{append(labels("e", 3), labels("w", 2)...)}},
		{"the own region first", Policy{Prefer: ByLabels, Labels: []Label{Region}}, []member{east, west}, [][]string{labels("e", 3)}},
		{"zones of one name in two regions are two", Policy{Prefer: ByLabels, Labels: []Label{Zone}}, []member{east, west}, [][]string{labels("e", 3)}},
		{"without the drained", Policy{}, []member{east.is(health.Excluded), west}, [][]string{labels("w", 2)}},
		{"without the unhealthy", Policy{}, []member{east, west.is(health.Unhealthy)}, [][]string{labels("e", 3)}},
		{"with written weights one member at a time", Policy{}, []member{east.with(weigh(3)), west.with(weigh(1))}, [][]string{labels("e", 3), labels("w", 2)}},
		{"none of weight 0", Policy{}, []member{east.with(weigh(0)), west.with(weigh(1))}, [][]string{labels("w", 2)}},
		{"all of weight 0 are equal", Policy{}, []member{east.with(weigh(0)), west.with(weigh(0))}, [][]string{labels("e", 3), labels("w", 2)}},
		{"weight-percent 0 drains", Policy{}, []member{east.with(func(m *member) { m.drained = true }), west}, [][]string{labels("w", 2)}},
		{"all of weight-percent 0: the list is complete", Policy{}, []member{east.with(func(m *member) { m.drained = true })}, [][]string{labels("e", 3)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, v := merged(headless, tc.all...)
			p := tc.policy.Plan(s, v, topology.Locality{Region: "r0", Cluster: "east", Zone: "z0"})
			seen := map[string]bool{}
			for i := range 200 {
				got := backendsFor(p, drawOf(i), IPv4)
				at := slices.IndexFunc(tc.want, func(w []string) bool { return slices.Equal(w, got) })
				if at < 0 {
					t.Fatalf("Client %d is given %v", i, got)
				}
				seen[fmt.Sprint(got)] = true
			}
			if len(seen) != len(tc.want) {
				t.Errorf("Clients are given %v only, want %v", seen, tc.want)
			}
		})
	}
}

// TestAvailabilityIsThatOfTheTier: a member's written weight shrinks by what it lacks in the tier that is chosen, not by
// what it lacks elsewhere.
func TestAvailabilityIsThatOfTheTier(t *testing.T) {
	down := func(endpoints []mcs.Endpoint) []mcs.Endpoint {
		for i := range endpoints {
			endpoints[i].Conditions = 0
		}
		return endpoints
	}
	a := member{id: "a", region: "r0", weight: 1, endpoints: append(pods("a", 4, "z0", ""), down(pods("ax", 12, "z1", ""))...)}
	b := member{id: "b", region: "r0", weight: 1, endpoints: append(pods("b", 1, "z0", ""), down(pods("bx", 3, "z0", ""))...)}
	s, v := merged(headless, a, b)
	p := (&Policy{Prefer: ByLabels, Labels: []Label{Zone}}).Plan(s, v, topology.Locality{Region: "r0", Cluster: "c", Zone: "z0"})
	g := p.tiers[0].healthy
	if len(g) != 2 || !near(g[0].weight, 1, 1e-9) || !near(g[1].weight, 1.4/4, 1e-9) {
		t.Errorf("Weights are %+v, want 1 and 0.35", g)
	}
}

func TestCap(t *testing.T) {
	// Nameless pods of two families: each has a label per address, and one identity.
	twins := func(prefix string, n int) (out []mcs.Endpoint) {
		for i := range n {
			for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})} {
				e := pod(mcs.AddressLabel(addr), addr.String(), "", "")
				e.ID = identityHash(fmt.Sprint(prefix, i))
				out = append(out, e)
			}
		}
		return out
	}
	only := func(prefix string, n int, v6 bool) (out []mcs.Endpoint) {
		for i, e := range twins(prefix, n) {
			if e.Addr.Is6() == v6 {
				e.ID = identityHash(fmt.Sprint(prefix, "-", i))
				out = append(out, e)
			}
		}
		return out
	}
	for _, tc := range []struct {
		name      string
		cap, most int
		endpoints []mcs.Endpoint
		// identities and addresses of each family in an answer.
		identities, v4, v6 int
	}{
		{"no cap", 0, 0, twins("p", 20), 20, 20, 20},
		{"the cap counts identities, not addresses", 7, 0, twins("p", 20), 7, 7, 7},
		{"a cap of as many identities as there are leaves all", 20, 0, twins("p", 20), 20, 20, 20},
		{"a cap between the identities and the labels leaves all", 30, 0, twins("p", 20), 20, 20, 20},
		{"a cap of one", 1, 0, twins("p", 20), 1, 1, 1},
		{"a cap above the buffer", 200, 0, twins("p", 250), 200, 200, 200},
		{"room for less than the cap", 7, 5, twins("p", 20), 7, 5, 5},
		{"room for more than the cap", 5, 7, twins("p", 20), 5, 5, 5},
		{"room counts the family that was asked for", 0, 10, append(only("p", 100, false), only("q", 100, true)...), 200, 10, 10},
		{"a cap that leaves nothing of the family takes it from those who have it", 3, 0, append(only("p", 200, false), only("q", 1, true)...), 3, 3, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, v := merged(headless, member{id: "east", endpoints: tc.endpoints})
			p := (&Policy{MaxAnswers: tc.cap}).Plan(s, v, topology.Locality{})
			for i := range 30 {
				got4 := identitiesIn(p, drawOf(i), IPv4, tc.most)
				got6 := identitiesIn(p, drawOf(i), IPv6, tc.most)
				n4, n6 := len(got4), len(got6)
				if n4 != tc.v4 || n6 != tc.v6 {
					t.Errorf("Client %d is given %d IPv4 and %d IPv6 pods, want %d and %d", i, n4, n6, tc.v4, tc.v6)
				}
				if tc.endpoints[0].ID == tc.endpoints[1].ID && !slices.Equal(got4, got6) {
					t.Errorf("Client %d is given the pods %v by A and %v by AAAA", i, got4, got6)
				}
				all, _ := p.Backends(nil, drawOf(i), nil, 0)
				if n := len(distinct(p, all, nil)); n != tc.identities {
					t.Errorf("Client %d is given %d pods, want %d", i, n, tc.identities)
				}
			}
		})
	}
}

// identitiesIn returns the pods, sorted, that an answer of one family shows.
func identitiesIn(p *Plan, d Draw, of Family, most int) []string {
	indices, _ := p.Backends(nil, d, of, most)
	return distinct(p, indices, of)
}

func distinct(p *Plan, indices []int32, of Family) []string {
	seen := map[string]bool{}
	for _, at := range indices {
		if b := &p.service.Backends[at]; p.has(at, of) {
			seen[fmt.Sprint(b.ID())] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestBothFamiliesShowTheSameMember(t *testing.T) {
	var all []member
	for i := range 4 {
		all = append(all, plain(topology.ClusterID(fmt.Sprint("c", i)), "", 3).with(func(m *member) {
			m.addrs = mustAddr(fmt.Sprintf("10.0.0.%d", i), fmt.Sprintf("fd00::%d", i))
		}))
	}
	s, v := merged(clusterSetIP, all...)
	p := (&Policy{}).Plan(s, v, topology.Locality{})
	for i := range 1000 {
		_, a := p.Addresses(nil, drawOf(i), IPv4)
		_, b := p.Addresses(nil, drawOf(i), IPv6)
		if a != b {
			t.Fatalf("Client %d is given %+v by A and %+v by AAAA", i, a, b)
		}
	}
}

// TestSlowStart: a member that came back takes a tenth of its share at first.
func TestSlowStart(t *testing.T) {
	for _, tc := range []struct {
		name   string
		factor float64
		want   float64
	}{
		{"no factor counts as one", 0, 0.5}, {"a tenth", 0.1, 0.1 / 1.1}, {"half", 0.5, 1.0 / 3}, {"whole", 1, 0.5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := plain("a", "", 5).with(func(m *member) { m.status.Factor = tc.factor })
			s, v := merged(clusterSetIP, a, plain("b", "", 5))
			within(t, "a", shares((&Policy{}).Plan(s, v, topology.Locality{}), 10000, IPv4)["a"], 10000, tc.want, 2.576)
		})
	}
}

func TestPlansAreKept(t *testing.T) {
	s, v := fiveMembers()
	p := &Policy{}
	here := topology.Locality{Cluster: "c0", Region: "r0", Zone: "z", Node: "n"}
	plan := p.Plan(s, v, here)
	for _, tc := range []struct {
		name   string
		policy *Policy
		view   *View
		client topology.Locality
		same   bool
	}{
		{"the same question", p, v, here, true},
		{"a client that differs in nothing the policy looks at", p, v, topology.Locality{Cluster: "c0", Region: "r0", Zone: "y", Node: "m"}, true},
		{"another cluster that has endpoints", p, v, topology.Locality{Cluster: "c1", Region: "r1"}, false},
		{"nowhere that has endpoints", p, v, topology.Locality{Cluster: "x", Region: "y"}, false},
		{"another policy", &Policy{}, v, here, false},
		{"another view", p, &View{}, here, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.policy.Plan(s, tc.view, tc.client); (got == plan) != tc.same {
				t.Errorf("The plan is the same: %v, want %v", got == plan, tc.same)
			}
		})
	}
	latest := &View{}
	p.Plan(s, latest, here)
	for _, e := range s.Memo.Load().(*plans).entries {
		if e.policy == p && e.view != latest {
			t.Error("A plan of a view that is past is kept")
		}
	}
	before := len(s.Memo.Load().(*plans).entries)
	for i := range 3 * maxPlans {
		p.Plan(s, v, topology.Locality{Cluster: topology.ClusterID(fmt.Sprint("x", i))})
	}
	if n := len(s.Memo.Load().(*plans).entries); n > before+1 {
		t.Errorf("%d plans are kept for clients in places without endpoints", n-before)
	}
}

// onNodes is a headless service with five backends on each of so many nodes in three zones, and a client on each.
func onNodes(nodes int) (*mcs.Service, *View, []topology.Locality) {
	m := member{id: "c0", region: "r0"}
	var clients []topology.Locality
	for n := range nodes {
		zone, node := fmt.Sprint("z", n%3), fmt.Sprint("n", n)
		m.endpoints = append(m.endpoints, pods(node, 5, zone, node)...)
		clients = append(clients, topology.Locality{Region: "r0", Cluster: "c0", Zone: zone, Node: node})
	}
	s, v := merged(headless, m)
	return s, v, clients
}

func TestPlansOfManyNodes(t *testing.T) {
	p := &Policy{Prefer: ByLabels, Labels: []Label{Node, Zone, Cluster}}
	s, v, clients := onNodes(200)
	first := map[topology.Locality]*Plan{}
	for _, c := range clients {
		first[c] = p.Plan(s, v, c)
		if got := compile(new(Plan), p, s, outlineOf(s), v, c, p.Labels, overprovisioning); !reflect.DeepEqual(got.tiers, first[c].tiers) {
			t.Fatalf("The plan of %v is another than one made alone", c)
		}
	}
	for _, c := range clients {
		if p.Plan(s, v, c) != first[c] {
			t.Errorf("The plan of %v was made twice", c)
		}
	}
	if n := len(s.Memo.Load().(*plans).entries); n != 200 {
		t.Errorf("%d plans are kept for 200 nodes with endpoints", n)
	}
	var kept int
	seen := map[*int32]bool{}
	for _, plan := range first {
		for _, tier := range plan.tiers {
			for _, g := range []group{tier.healthy, tier.degraded, tier.any} {
				for _, part := range g {
					if len(part.backends) > 0 && !seen[&part.backends[0]] {
						seen[&part.backends[0]] = true
						kept += len(part.backends)
					}
				}
			}
		}
	}
	// A node's own tier and the rest of its zone; the other zones are the same for all nodes of a zone.
	if most := 200*(5+1000/3) + 3*1000; kept > most {
		t.Errorf("The plans keep %d indices, at most %d are needed", kept, most)
	}
}

func TestNarrowing(t *testing.T) {
	s, v, clients := onNodes(3)
	o := outlineOf(s)
	for _, row := range []struct {
		name     string
		in, want topology.Locality
	}{
		{"a place with endpoints stays", clients[1], clients[1]},
		{"a node without endpoints is left out, its zone is not", topology.Locality{Region: "r0", Cluster: "c0", Zone: "z1", Node: "n9"}, topology.Locality{Region: "r0", Cluster: "c0", Zone: "z1"}},
		{"so is a zone without", topology.Locality{Region: "r0", Cluster: "c0", Zone: "z9"}, topology.Locality{Region: "r0", Cluster: "c0"}},
		{"but not that of a node with endpoints", topology.Locality{Region: "r0", Cluster: "c0", Zone: "z9", Node: "n1"}, topology.Locality{Region: "r0", Cluster: "c0", Zone: "z9", Node: "n1"}},
		{"a node of that name in another cluster is another", topology.Locality{Region: "r0", Cluster: "x", Node: "n1"}, topology.Locality{Region: "r0"}},
		{"nowhere is nowhere", topology.Locality{Region: "r9", Cluster: "x", Zone: "z1"}, topology.Locality{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := row.in
			if o.narrow(&got, s, v); got != row.want {
				t.Errorf("Got %+v, want %+v", got, row.want)
			}
		})
	}
}
