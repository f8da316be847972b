package balance

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Plan is how one service is shared out among the clients of one locality class. Immutable.
type Plan struct {
	service *mcs.Service
	answer  Answer
	cap     int
	tiers   []tier
	// identities are the hashes of the backends' identities, by index.
	identities []uint64
}

// tier is a set of candidates at the same distance.
type tier struct {
	load Load
	// healthy and degraded are the candidates for the two parts of the load; any are all of them, for panic and as a
	// last resort.
	healthy, degraded, any group
}

// group is a set of parts of which one is drawn by weight.
type group []part

// part is what one draw can give: one member's addresses, or a set of backends.
type part struct {
	identity uint64
	weight   float64
	member   int     // index into Service.Members; -1 for a set of backends of several members
	backends []int32 // indices into Service.Backends
	v4, v6   bool
}

// Choice says what a draw chose, for explanations. Tier counts from 0, the nearest. Member is "" when several answer.
type Choice struct {
	Tier   int
	Member topology.ClusterID
	Panic  bool
	// Degraded is true when the choice fell on the degraded part of the tier.
	Degraded bool
}

// candidate is a member or a backend while a plan is made.
type candidate struct {
	distance int
	state    health.State
	member   int
	backend  int32 // -1 for a member as a whole
	// ready and total count endpoints; a backend is one of one.
	ready, total int
	v4, v6       bool
}

// compile makes a plan.
func compile(p *Policy, s *mcs.Service, v *View, class topology.Locality, labels []Label, overprovision int) *Plan {
	plan := &Plan{service: s, answer: p.Answer, cap: p.MaxAnswers}
	b := builder{plan: plan, view: v, class: class, labels: labels, overprovision: overprovision}
	b.weigh()
	var candidates []candidate
	if s.Type == mcs.Headless {
		candidates = b.backends()
	} else {
		candidates = b.members()
	}
	b.build(candidates, p.Panic)
	return plan
}

// builder holds what the steps of compile share.
type builder struct {
	plan          *Plan
	view          *View
	class         topology.Locality
	labels        []Label
	overprovision int
	// written is true when weights are written and not counted; weights then are those of the members, by index. shares
	// are the members' weight-percent in [0, 1].
	written bool
	weights []float64
	shares  []float64
	// places counts unready endpoints by distance.
	unready map[int]int
}

// weigh finds the members' weights. Where all are zero, all are equal: somebody must answer.
func (b *builder) weigh() {
	members := b.plan.service.Members
	b.weights = make([]float64, len(members))
	b.shares = make([]float64, len(members))
	sum := 0.0
	for i := range members {
		_, written := b.view.Weights[members[i].Cluster]
		b.written = b.written || written
	}
	for i := range members {
		b.weights[i] = 1
		if w, ok := b.view.Weights[members[i].Cluster]; ok {
			b.weights[i] = float64(w)
		}
		b.shares[i] = float64(members[i].Percent) / 100
		sum += b.weights[i] * b.shares[i]
	}
	if sum > 0 {
		return
	}
	for i := range members {
		b.weights[i], b.shares[i] = 1, 1
	}
}

// state is how a member counts. One that is weighed to nothing is drained.
func (b *builder) state(i int) health.State {
	if b.weights[i]*b.shares[i] == 0 {
		return health.Excluded
	}
	return b.view.Health.Status(b.plan.service.Members[i].Cluster).State
}

func (b *builder) place(cluster topology.ClusterID) topology.Locality {
	return topology.Locality{Cluster: cluster, Region: b.view.Regions[cluster]}
}

// members makes the candidates of a ClusterSetIP service: the members that have an address. Without any ready endpoint
// behind these, every one of them is a candidate, as the address of a clusterset IP would still resolve.
func (b *builder) members() []candidate {
	s := b.plan.service
	none := !slices.ContainsFunc(s.Members, func(c mcs.Contribution) bool { return c.Ready > 0 && len(c.Addrs) > 0 })
	out := make([]candidate, 0, len(s.Members))
	for i := range s.Members {
		m := &s.Members[i]
		c := candidate{
			distance: distance(b.labels, b.class, b.place(m.Cluster)), state: b.state(i),
			member: i, backend: -1, ready: m.Ready, total: max(m.Total, m.Ready),
			v4: slices.ContainsFunc(m.Addrs, netip.Addr.Is4), v6: slices.ContainsFunc(m.Addrs, netip.Addr.Is6),
		}
		if none {
			c.ready, c.total = 1, 1
		}
		if c.v4 || c.v6 {
			out = append(out, c)
		}
	}
	return out
}

// backends makes the candidates of a headless service, and counts the unready endpoints at each distance.
func (b *builder) backends() []candidate {
	s := b.plan.service
	b.plan.identities = make([]uint64, len(s.Backends))
	out := make([]candidate, 0, len(s.Backends))
	member := 0
	for i := range s.Backends {
		e := &s.Backends[i]
		for s.Members[member].Cluster != e.Cluster {
			member++ // both are sorted by cluster
		}
		b.plan.identities[i] = identityHash(cmp.Or(e.ID, e.Label+"."+string(e.Cluster)))
		at := b.place(e.Cluster)
		at.Zone, at.Node = e.Zone, e.Node
		out = append(out, candidate{
			distance: distance(b.labels, b.class, at), state: b.state(member), member: member, backend: int32(i), //nolint:gosec // far below 2^31
			ready: 1, total: 1,
			v4: slices.ContainsFunc(e.Addrs, netip.Addr.Is4), v6: slices.ContainsFunc(e.Addrs, netip.Addr.Is6),
		})
	}
	b.unready = map[int]int{}
	for _, u := range s.Unready {
		i := slices.IndexFunc(s.Members, func(c mcs.Contribution) bool { return c.Cluster == u.Cluster })
		if i < 0 || b.state(i) == health.Excluded {
			continue
		}
		at := b.place(u.Cluster)
		at.Zone, at.Node = u.Zone, u.Node
		b.unready[distance(b.labels, b.class, at)] += u.Count
	}
	return out
}

// build sorts the candidates into tiers, closes gaps, and computes loads and weights.
func (b *builder) build(candidates []candidate, panicBelow int) {
	slices.SortStableFunc(candidates, func(x, y candidate) int { return cmp.Compare(x.distance, y.distance) })
	var counts []Counts
	for len(candidates) > 0 {
		n := 1
		for n < len(candidates) && candidates[n].distance == candidates[0].distance {
			n++
		}
		tier, count := b.tier(candidates[:n])
		count.Total += b.unready[candidates[0].distance]
		b.plan.tiers = append(b.plan.tiers, tier)
		counts = append(counts, count)
		candidates = candidates[n:]
	}
	for i, l := range loads(scale, b.overprovision, panicBelow, counts) {
		b.plan.tiers[i].load = l
	}
}

func (b *builder) tier(candidates []candidate) (t tier, count Counts) {
	var healthy, degraded, any []candidate
	for _, c := range candidates {
		if c.state == health.Excluded {
			count.Excluded += c.total
			continue
		}
		count.Total += c.total
		switch c.state {
		case health.Healthy:
			count.Healthy += c.ready
			healthy = appendReady(healthy, c)
		case health.Degraded:
			count.Degraded += c.ready
			degraded = appendReady(degraded, c)
		}
		any = appendReady(any, c)
	}
	if len(any) == 0 {
		for _, c := range candidates {
			any = appendReady(any, c)
		}
	}
	t.healthy, t.degraded, t.any = b.group(healthy, false), b.group(degraded, false), b.group(any, true)
	return t, count
}

func appendReady(to []candidate, c candidate) []candidate {
	if c.ready == 0 {
		return to
	}
	return append(to, c)
}

// group turns candidates into parts: one per member where a member is drawn, all in one where not (a headless service
// with automatic weights). panicking leaves health out of the weights.
func (b *builder) group(candidates []candidate, panicking bool) group {
	var g group
	for _, c := range candidates {
		single := b.plan.service.Type != mcs.Headless || b.written
		key := -1
		if single {
			key = c.member
		}
		at := slices.IndexFunc(g, func(p part) bool { return p.member == key })
		if at < 0 {
			g = append(g, part{member: key, weight: 1, identity: 0})
			at = len(g) - 1
			if single {
				g[at].identity = identityHash(string(b.plan.service.Members[key].Cluster))
				g[at].weight = b.weight(c.member, panicking)
			}
		}
		p := &g[at]
		p.v4, p.v6 = p.v4 || c.v4, p.v6 || c.v6
		if c.backend >= 0 {
			p.backends = append(p.backends, c.backend)
		}
	}
	return g
}

// weight is W_g: of a written weight the part that is available, else the number of ready endpoints; both times the
// share the namespace's owner allows, and the slow-start factor.
func (b *builder) weight(member int, panicking bool) float64 {
	m := &b.plan.service.Members[member]
	weight, factor := b.shares[member], b.view.Health.Status(m.Cluster).Weight()
	switch {
	case b.written:
		weight *= b.weights[member]
		if !panicking && m.Total > 0 && b.overprovision != allOrNothing && m.Ready > 0 {
			weight *= min(1, float64(b.overprovision)*float64(m.Ready)/float64(100*m.Total))
		}
	default:
		weight *= float64(max(m.Ready, 1))
	}
	if weight == 0 {
		return 1e-9 // only reached when there is nothing else: drained members as the last resort
	}
	if panicking {
		return weight
	}
	return weight * factor
}

// Addresses appends to dst the addresses of one family that a ClusterSetIP service answers with, sorted and without
// duplicates.
func (p *Plan) Addresses(dst []netip.Addr, d Draw, of Family) ([]netip.Addr, Choice) {
	begin := len(dst)
	g, choice := p.choose(d, of)
	if p.answer == One {
		at := g.draw(d, of)
		if at < 0 {
			return dst, choice
		}
		m := &p.service.Members[g[at].member]
		choice.Member = m.Cluster
		return appendFamily(dst, m.Addrs, of), choice
	}
	for i := range g {
		dst = appendFamily(dst, p.service.Members[g[i].member].Addrs, of)
	}
	if len(g) > 1 {
		slices.SortFunc(dst[begin:], netip.Addr.Compare)
		dst = append(dst[:begin], slices.Compact(dst[begin:])...)
	}
	return dst, choice
}

func appendFamily(dst, addrs []netip.Addr, of Family) []netip.Addr {
	for _, a := range addrs {
		if of(a) {
			dst = append(dst, a)
		}
	}
	return dst
}

// Backends appends to dst the indices of the backends that a headless service answers with, in draw order where the
// policy or most caps them, else in the service's order. Both families, and SRV, show the same ones, unless the chosen
// ones have nothing of the family asked for (nil: any) while others have.
func (p *Plan) Backends(dst []int32, d Draw, of Family, most int) ([]int32, Choice) {
	g, choice := p.choose(d, of)
	at := g.draw(d, of)
	if at < 0 {
		return dst, choice
	}
	if g[at].member >= 0 {
		choice.Member = p.service.Members[g[at].member].Cluster
	}
	if p.cap > 0 && (most == 0 || p.cap < most) {
		most = p.cap
	}
	if most == 0 || len(g[at].backends) <= most {
		return append(dst, g[at].backends...), choice
	}
	return p.lowest(dst, d, g[at].backends, most), choice
}

// choose finds the group that answers: that of the drawn tier and half, or the next that has the family.
func (p *Plan) choose(d Draw, of Family) (group, Choice) {
	x := d.tier()
	for _, degraded := range [...]bool{false, true} {
		for i := range p.tiers {
			load := p.tiers[i].load.Healthy
			if degraded {
				load = p.tiers[i].load.Degraded
			}
			if x -= load; x >= 0 {
				continue
			}
			t := &p.tiers[i]
			c := Choice{Tier: i, Degraded: degraded, Panic: t.load.Panic}
			if g := t.part(degraded); g.has(of) {
				return g, c
			}
			return p.next(of)
		}
	}
	return p.next(of)
}

func (t *tier) part(degraded bool) group {
	switch {
	case t.load.Panic:
		return t.any
	case degraded:
		return t.degraded
	default:
		return t.healthy
	}
}

// next is for a family that the drawn tier lacks: nobody is told that there is nothing while somebody has it.
func (p *Plan) next(of Family) (group, Choice) {
	for _, pick := range [...]func(*tier) group{
		func(t *tier) group { return t.healthy },
		func(t *tier) group { return t.degraded },
		func(t *tier) group { return t.any },
	} {
		for i := range p.tiers {
			if g := pick(&p.tiers[i]); g.has(of) {
				return g, Choice{Tier: i}
			}
		}
	}
	return nil, Choice{}
}

func (g group) has(of Family) bool {
	for i := range g {
		if g[i].of(of) {
			return true
		}
	}
	return false
}

var probe4, probe6 = netip.IPv4Unspecified(), netip.IPv6Unspecified()

// of reports whether a part has anything of the family.
func (p *part) of(of Family) bool {
	return of == nil || p.v4 && of(probe4) || p.v6 && of(probe6)
}

// draw returns the part that wins the draw among those of the family, -1 when there is none.
func (g group) draw(d Draw, of Family) int {
	best, lowest := -1, 0.0
	for i := range g {
		if !g[i].of(of) {
			continue
		}
		if len(g) == 1 {
			return i
		}
		if score := d.score(g[i].identity, g[i].weight); best < 0 || score < lowest {
			best, lowest = i, score
		}
	}
	return best
}

// lowest appends the backends of the most lowest-ranked identities, in that order.
func (p *Plan) lowest(dst []int32, d Draw, backends []int32, most int) []int32 {
	begin := len(dst)
	type ranked struct {
		rank    uint64
		backend int32
	}
	var buf [128]ranked
	heap := buf[:0]
	// A max-heap of the lowest ranks so far. Backends of one identity have one rank and count once: two labels of a
	// nameless pod with two families stand or fall together.
	for _, b := range backends {
		r := ranked{d.rank(p.identities[b]), b}
		if len(heap) == most && r.rank >= heap[0].rank {
			continue
		}
		if slices.ContainsFunc(heap, func(h ranked) bool { return h.rank == r.rank }) {
			continue
		}
		if len(heap) < most {
			heap = append(heap, r)
			for i := len(heap) - 1; i > 0 && heap[(i-1)/2].rank < heap[i].rank; i = (i - 1) / 2 {
				heap[(i-1)/2], heap[i] = heap[i], heap[(i-1)/2]
			}
			continue
		}
		heap[0] = r
		for i := 0; ; {
			c := 2*i + 1
			if c+1 < len(heap) && heap[c+1].rank > heap[c].rank {
				c++
			}
			if c >= len(heap) || heap[c].rank <= heap[i].rank {
				break
			}
			heap[i], heap[c] = heap[c], heap[i]
			i = c
		}
	}
	slices.SortFunc(heap, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	last := heap[len(heap)-1].rank
	for _, h := range heap {
		dst = append(dst, h.backend)
	}
	return p.withTwins(dst, begin, d, backends, last)
}

// withTwins adds the other backends of the chosen identities.
func (p *Plan) withTwins(dst []int32, begin int, d Draw, backends []int32, last uint64) []int32 {
	chosen := dst[begin:]
	for _, b := range backends {
		if d.rank(p.identities[b]) <= last && !slices.Contains(chosen, b) {
			dst = append(dst, b)
		}
	}
	return dst
}
