package balance

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// randomPlan is a world of random members, who asks, and by what policy.
type randomPlan struct {
	policy  *Policy
	service *mcs.Service
	view    *View
	client  topology.Locality
}

func newRandomPlan(rng *rand.Rand) randomPlan {
	d := make(dice, 400)
	for i := range d {
		d[i] = byte(rng.IntN(256)) //nolint:gosec // below 256
	}
	traits := clusterSetIP
	if d.of(2) == 1 {
		traits = headless
	}
	traits.TrafficDistribution = d.one("", "PreferSameZone", "PreferSameNode")
	r := randomPlan{policy: d.policy(), client: topology.Locality{
		Region: d.one("r0", "r1", ""), Cluster: topology.ClusterID(d.one("c00", "c01", "")), Zone: d.one("z0", ""), Node: d.one("n0", ""),
	}}
	var all []member
	for i := range 1 + d.of(5) {
		m := d.member(i)
		if traits.Type == mcs.Headless {
			d.endpointsOf(i, &m)
		} else if d.of(8) == 0 {
			m.addrs = []netip.Addr{}
		}
		all = append(all, m)
	}
	r.service, r.view = merged(traits, all...)
	return r
}

// TestExplanationsAreTrue explains draws in random worlds: what is said to be given is what is given, and everything else has a
// reason that the facts bear out.
func TestExplanationsAreTrue(t *testing.T) {
	seen := map[Outcome]int{}
	for seed := range uint64(4000) {
		r := newRandomPlan(rand.New(rand.NewPCG(seed, 1)))
		draw := NewDraw(clientAt(int(seed)), web, aTime, 5*time.Second, seed%2 == 0) //nolint:gosec // small
		for _, of := range []Family{IPv4, IPv6, nil} {
			if of == nil && r.service.Type != mcs.Headless {
				continue
			}
			e := r.policy.Explain(r.service, r.view, r.client, draw, of, int(seed%9)) //nolint:gosec // small
			want := r.given(t, draw, of, int(seed%9), e.Choice)                       //nolint:gosec // small
			var got []netip.Addr
			for i := range e.Candidates {
				c := &e.Candidates[i]
				seen[c.Outcome]++
				r.checkOutcome(t, &e, c)
				if c.Outcome == Given {
					got = append(got, r.addrs(c, of)...)
				}
			}
			slices.SortFunc(got, netip.Addr.Compare)
			r.checkWeights(t, &e, draw)
			if got = slices.Compact(got); !slices.Equal(got, want) {
				t.Fatalf("World %d: %v is said to be given, and %v is: %+v", seed, got, want, e)
			}
		}
	}
	for o := Given; o <= LeftOut; o++ {
		if seen[o] == 0 {
			t.Errorf("Outcome %d was never seen", o)
		}
	}
	t.Logf("Outcomes: %v", seen)
}

// given is what the plan gives, in order; its choice must be the one that is explained.
func (r *randomPlan) given(t *testing.T, d Draw, of Family, most int, explained Choice) []netip.Addr {
	t.Helper()
	plan := r.policy.Plan(r.service, r.view, r.client)
	var out []netip.Addr
	var choice Choice
	if r.service.Type == mcs.Headless {
		var indices []int32
		indices, choice = plan.Backends(nil, d, of, most)
		for _, at := range indices {
			for _, a := range r.service.Backends[at].AppendAddrs(nil) {
				if of == nil || of(a) {
					out = append(out, a)
				}
			}
		}
	} else {
		out, choice = plan.Addresses(nil, d, of)
	}
	if choice != explained {
		t.Fatalf("The choice is %+v and explained as %+v", choice, explained)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (r *randomPlan) addrs(c *Candidate, of Family) (out []netip.Addr) {
	all := r.service.Members[c.Member].Addrs
	if c.Backend >= 0 {
		all = r.service.Backends[c.Backend].AppendAddrs(nil)
	}
	for _, a := range all {
		if of == nil || of(a) {
			out = append(out, a)
		}
	}
	return out
}

// checkWeights draws again by the weights that are told: the same member must win.
func (r *randomPlan) checkWeights(t *testing.T, e *Explanation, d Draw) {
	t.Helper()
	best, lowest, seen := topology.ClusterID(""), 0.0, map[topology.ClusterID]bool{}
	for i := range e.Candidates {
		c := &e.Candidates[i]
		id := r.service.Members[c.Member].Cluster
		if c.Outcome != Given && c.Outcome != NotDrawn && c.Outcome != LeftOut || seen[id] {
			continue
		}
		seen[id] = true
		if score := d.score(identityHash(string(id)), c.Weight); best == "" || score < lowest {
			best, lowest = id, score
		}
	}
	if e.Choice.Member != "" && best != e.Choice.Member {
		t.Fatalf("By the weights that are told %s wins, and %s is given: %+v", best, e.Choice.Member, e)
	}
}

func (r *randomPlan) checkOutcome(t *testing.T, e *Explanation, c *Candidate) {
	t.Helper()
	ok := true
	switch c.Outcome {
	case Addressless:
		ok = len(r.service.Members[c.Member].Addrs) == 0 && c.Tier < 0
	case Excluded:
		ok = c.State == health.Excluded && c.Tier < 0
	case Idle:
		ok = c.Ready == 0
	case OtherTier:
		ok = c.Tier != e.Choice.Tier
	case OtherPart:
		ok = c.Tier == e.Choice.Tier && c.State != stateOf(&e.Choice) && !e.Choice.Panic
	case NotDrawn, LeftOut:
		ok = c.Tier == e.Choice.Tier
	}
	if !ok || c.Tier >= len(e.Tiers) {
		t.Fatalf("A candidate is judged wrongly: %+v of %+v", c, e)
	}
}

// TestSharesAreWhatClientsGet holds the shares against a count over many clients.
func TestSharesAreWhatClientsGet(t *testing.T) {
	const clients = 4000
	for seed := range uint64(150) {
		r := newRandomPlan(rand.New(rand.NewPCG(seed, 2)))
		r.policy.Answer, r.policy.MaxAnswers = One, 0
		shares := r.policy.Shares(r.service, r.view, r.client)
		plan := r.policy.Plan(r.service, r.view, r.client)
		got, sum := map[topology.ClusterID]float64{}, 0.0
		for i := range clients {
			g, _ := plan.choose(drawOf(i), nil)
			if at := g.draw(drawOf(i), nil); at >= 0 {
				plan.spread(g[at:at+1], 1, got)
			}
		}
		for id, share := range shares {
			sum += share
			if diff := got[id]/clients - share; math.Abs(diff) > 4*math.Sqrt(share*(1-share)/clients)+0.001 {
				t.Errorf("World %d: %s is said to get %.4f, and gets %.4f", seed, id, share, got[id]/clients)
			}
		}
		if len(shares) > 0 && math.Abs(sum-1) > 1e-9 || len(shares) == 0 && len(plan.tiers) > 0 {
			t.Errorf("World %d: the shares %v add up to %v", seed, shares, sum)
		}
	}
}

func TestEpochIsThatOfTheDraw(t *testing.T) {
	for i := range 200 {
		client, ttl := clientAt(i), time.Duration(i%12)*time.Second
		at := aTime.Add(time.Duration(i) * 777 * time.Millisecond)
		n, length := Epoch(client, web, at, ttl, false)
		if length < minEpoch || length < ttl {
			t.Fatalf("An epoch of %s with a TTL of %s", length, ttl)
		}
		for d := time.Duration(0); d < 2*length; d += 500 * time.Millisecond {
			m, _ := Epoch(client, web, at.Add(d), ttl, false)
			same := NewDraw(client, web, at, ttl, false) == NewDraw(client, web, at.Add(d), ttl, false)
			if same != (m == n) {
				t.Fatalf("Epochs %d and %d, and the draws are equal: %v", n, m, same)
			}
		}
	}
	if n, length := Epoch(clientAt(1), web, aTime, time.Second, true); n != 0 || length != 0 {
		t.Errorf("A sticky service has epoch %d of %s", n, length)
	}
}
