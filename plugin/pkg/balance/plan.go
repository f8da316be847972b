package balance

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Plan is how one service is shared out among the clients of one locality class. Immutable. What most queries look at stands
// first: each further line of memory is a wait.
type Plan struct {
	// lacks is true for IPv4 and IPv6 where nobody has an address of the family.
	lacks [2]bool
	// soles are the choices for IPv4 and IPv6 that every draw makes.
	soles [2]sole
	cap   int
	// Memo is room for what readers derive from the plan, as Service.Memo is: for the most wanted in the first two places, for
	// the rest in the last.
	Memo [3]atomic.Value

	service *mcs.Service
	answer  Answer
	tiers   []tier
	*outline
	// Sets is how many answers there are that hold all of a part, or of a group: Choice.Set is below it.
	Sets int
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
	set      int // Choice.Set when it is answered; that of the first part stands for the group
}

// sole is a Choice in little room: most services have one tier with one part that all clients of a class are given.
type sole struct {
	member    topology.ClusterID // "" when several answer
	set       int32
	backends  int32 // how many the part has
	tier      uint8
	is        bool
	panicking bool
	degraded  bool
}

// Choice says what a draw chose, for explanations. Tier counts from 0, the nearest. Member is "" when several answer.
type Choice struct {
	Tier   int
	Member topology.ClusterID
	Panic  bool
	// Degraded is true when the choice fell on the degraded part of the tier.
	Degraded bool
	// Set numbers the answer among those of the plan: answers of one number and family are equal. -1 when there is none, or
	// when it holds only some of what there is.
	Set int
}

// candidate is a member or a backend while a plan is made.
type candidate struct {
	state  health.State
	v4, v6 bool
	// backend is -1 for a member as a whole.
	backend int32
	member  int
	// ready and total count endpoints; a backend is one of one.
	ready, total int
}

// compile makes a plan, in room that nobody uses yet.
func compile(plan *Plan, p *Policy, s *mcs.Service, o *outline, v *View, class topology.Locality, labels []Label, overprovision int) *Plan {
	plan.service, plan.answer, plan.cap, plan.outline = s, p.Answer, p.MaxAnswers, o
	b := builder{plan: plan, view: v, class: class, labels: labels, overprovision: overprovision}
	b.weigh()
	if s.Type == mcs.Headless {
		b.backends()
	} else {
		b.members()
	}
	b.build(p.Panic)
	plan.number()
	for i, of := range [...]Family{IPv4, IPv6} {
		plan.soles[i] = plan.soleOf(of)
		g, _ := plan.next(of)
		plan.lacks[i] = g == nil
	}
	return plan
}

// index is where a family stands in soles and lacks.
func index(of Family) int {
	if of(probe4) {
		return 0
	}
	return 1
}

// Lacks reports whether nobody has an address of the family, so that Pick, Addresses and Backends choose nothing. Half of all
// questions of many clients are for IPv6 where there is none.
func (p *Plan) Lacks(of Family) bool { return p.lacks[index(of)] }

// soleOf finds the choice of a family that does not depend on the draw.
func (p *Plan) soleOf(of Family) (s sole) {
	certain := slices.ContainsFunc(p.tiers, func(t tier) bool { return max(t.load.Healthy, t.load.Degraded) == scale })
	if !certain && len(p.tiers) > 0 {
		return s
	}
	g, c := p.choose(0, of)
	parts := slices.DeleteFunc(slices.Clone(g), func(one part) bool { return !one.of(of) })
	all := p.service.Type != mcs.Headless && p.answer == All
	if len(parts) == 0 || len(parts) > 1 && !all || c.Tier > math.MaxUint8 {
		return s
	}
	s = sole{set: int32(parts[0].set), tier: uint8(c.Tier), is: true, panicking: c.Panic, degraded: c.Degraded} //nolint:gosec // bounded above, or counts
	s.backends = int32(len(parts[0].backends))                                                                  //nolint:gosec // likewise
	switch {
	case all:
		s.set = int32(g[0].set) //nolint:gosec // likewise
	case parts[0].member != severalMembers:
		s.member = p.service.Members[parts[0].member].Cluster
	}
	return s
}

// Sole returns the Choice that Pick makes whatever the draw, if there is one.
func (p *Plan) Sole(of Family, most int) (Choice, bool) {
	s := &p.soles[index(of)]
	n := int(s.backends)
	if !s.is || p.cap > 0 && p.cap < n || most > 0 && most < n {
		return Choice{}, false
	}
	return Choice{Tier: int(s.tier), Member: s.member, Panic: s.panicking, Degraded: s.degraded, Set: int(s.set)}, true
}

// builder holds what the steps of compile share.
type builder struct {
	plan          *Plan
	view          *View
	class         topology.Locality
	labels        []Label
	overprovision int
	// written is true when weights are written and not counted, equal when all members are weighed to nothing.
	written, equal bool
	// weights are the written weights times the shares that weight-percent leaves, and states how the members count;
	// both by index.
	weights []float64
	states  []health.State
	// candidates and the endpoints that are missing, by distance: 0 to the number of labels.
	candidates [][]candidate
	missing    [][]missing
}

// missing counts endpoints of a headless service that are not ready.
type missing struct{ member, count int }

// weigh finds the members' weights and states. One that is weighed to nothing is drained. Where all are, all are equal:
// somebody must answer.
func (b *builder) weigh() {
	members := b.plan.service.Members
	b.weights = make([]float64, len(members))
	b.states = make([]health.State, len(members))
	b.candidates = make([][]candidate, len(b.labels)+1)
	b.missing = make([][]missing, len(b.labels)+1)
	for i := range members {
		_, written := b.view.Weights[members[i].Cluster]
		b.written = b.written || written
	}
	sum := 0.0
	for i := range members {
		b.weights[i] = float64(members[i].Percent) / 100
		if w, ok := b.view.Weights[members[i].Cluster]; ok {
			b.weights[i] *= float64(w)
		}
		sum += b.weights[i]
	}
	b.equal = sum == 0
	for i := range members {
		b.states[i] = b.view.Health.Status(members[i].Cluster).State
		switch {
		case b.equal:
			b.weights[i] = 1
		case b.weights[i] == 0:
			b.states[i] = health.Excluded
		}
	}
}

func (b *builder) place(cluster topology.ClusterID) topology.Locality {
	return topology.Locality{Cluster: cluster, Region: b.view.Regions[cluster]}
}

func (b *builder) add(at topology.Locality, c candidate) {
	d := distance(b.labels, b.class, at)
	b.candidates[d] = append(b.candidates[d], c)
}

// members makes the candidates of a ClusterSetIP service: the members that have an address. Without any ready endpoint
// behind these, every one of them is a candidate, as the address of a clusterset IP would still resolve.
func (b *builder) members() {
	s := b.plan.service
	none := !slices.ContainsFunc(s.Members, func(c mcs.Contribution) bool { return c.Ready > 0 && len(c.Addrs) > 0 })
	for i := range s.Members {
		m := &s.Members[i]
		c := candidate{
			state: b.states[i], member: i, backend: -1, ready: int(m.Ready), total: int(max(m.Total, m.Ready)),
			v4: slices.ContainsFunc(m.Addrs, netip.Addr.Is4), v6: slices.ContainsFunc(m.Addrs, netip.Addr.Is6),
		}
		if none {
			c.ready, c.total = 1, 1
		}
		if c.v4 || c.v6 {
			b.add(b.place(m.Cluster), c)
		}
	}
}

// backends makes the candidates of a headless service, and counts the unready endpoints at each distance.
func (b *builder) backends() {
	s := b.plan.service
	for i := range s.Backends {
		e := &s.Backends[i]
		at := b.place(s.ClusterOf(e))
		at.Node, at.Zone = e.Place()
		b.add(at, candidate{
			state: b.states[e.Member()], member: e.Member(), backend: int32(i), //nolint:gosec // far below 2^31
			ready: 1, total: 1, v4: e.Has(netip.Addr.Is4), v6: e.Has(netip.Addr.Is6),
		})
	}
	for _, u := range s.Unready() {
		i := slices.IndexFunc(s.Members, func(c mcs.Contribution) bool { return c.Cluster == u.Cluster })
		if i < 0 || b.states[i] == health.Excluded {
			continue
		}
		at := b.place(u.Cluster)
		at.Zone, at.Node = u.Zone, u.Node
		d := distance(b.labels, b.class, at)
		b.missing[d] = append(b.missing[d], missing{i, u.Count})
	}
}

func backendIdentity(s *mcs.Service, e *mcs.Backend) uint64 {
	if id := e.ID(); id != 0 {
		return id
	}
	return identityHash(e.Label() + "." + string(s.ClusterOf(e)))
}

// build makes the tiers, without gaps, and computes loads and weights. Excluded candidates are part of them only when
// there is nobody else.
func (b *builder) build(panicBelow int) {
	usable := b.usable()
	var counts []Counts
	for d, at := range b.candidates {
		if usable {
			at = slices.DeleteFunc(at, func(c candidate) bool { return c.state == health.Excluded })
		}
		if len(at) == 0 {
			continue
		}
		tier, count := b.tier(at, b.missing[d])
		b.plan.tiers = append(b.plan.tiers, tier)
		counts = append(counts, count)
	}
	for i, l := range loads(scale, b.overprovision, panicBelow, counts) {
		b.plan.tiers[i].load = l
	}
}

// usable reports whether anybody can answer who is not excluded.
func (b *builder) usable() bool {
	return slices.ContainsFunc(b.candidates, func(at []candidate) bool {
		return slices.ContainsFunc(at, func(c candidate) bool { return c.state != health.Excluded && c.ready > 0 })
	})
}

func (b *builder) tier(candidates []candidate, missing []missing) (t tier, count Counts) {
	for _, c := range candidates {
		switch c.state {
		case health.Excluded:
			count.Excluded += c.total
			continue
		case health.Healthy:
			count.Healthy += c.ready
		case health.Degraded:
			count.Degraded += c.ready
		}
		count.Total += c.total
	}
	for _, m := range missing {
		count.Total += m.count
	}
	t.healthy = b.group(candidates, missing, func(s health.State) bool { return s == health.Healthy }, false)
	t.degraded = b.group(candidates, missing, func(s health.State) bool { return s == health.Degraded }, false)
	if t.any = b.group(candidates, nil, func(health.State) bool { return true }, true); t.any.equal(t.healthy) {
		t.any = t.healthy // as mostly
	}
	return t, count
}

func (g group) equal(o group) bool {
	return slices.EqualFunc(g, o, func(a, b part) bool {
		return a.identity == b.identity && a.weight == b.weight && a.member == b.member && a.v4 == b.v4 && a.v6 == b.v6 && slices.Equal(a.backends, b.backends)
	})
}

// severalMembers stands for a member in a part that is made of the backends of all.
const severalMembers = -1

// group turns the candidates that are ready and in one of the states into parts: one per member where a member is drawn,
// all in one where not (a headless service with automatic weights). Candidates of one member stand together. panicking
// leaves health out of the weights.
func (b *builder) group(candidates []candidate, missing []missing, in func(health.State) bool, panicking bool) group {
	single := b.plan.service.Type != mcs.Headless || b.written
	var g group
	var tallies []tally
	for i := range candidates {
		c := &candidates[i]
		if c.ready == 0 || !in(c.state) {
			continue
		}
		member := severalMembers
		if single {
			member = c.member
		}
		if len(g) == 0 || g[len(g)-1].member != member {
			g, tallies = append(g, part{member: member, weight: 1}), append(tallies, tally{})
		}
		p, t := &g[len(g)-1], &tallies[len(g)-1]
		p.v4, p.v6 = p.v4 || c.v4, p.v6 || c.v6
		t.ready, t.total = t.ready+c.ready, t.total+c.total
		if c.backend >= 0 {
			p.backends = append(p.backends, c.backend)
		}
	}
	for i := range g {
		if single {
			b.weighPart(&g[i], tallies[i], missing, panicking)
		}
	}
	return g
}

// tally counts the endpoints of a part.
type tally struct{ ready, total int }

func (b *builder) weighPart(p *part, t tally, missing []missing, panicking bool) {
	for _, m := range missing {
		if m.member == p.member {
			t.total += m.count
		}
	}
	p.identity = identityHash(string(b.plan.service.Members[p.member].Cluster))
	p.weight = b.weight(p.member, t.ready, t.total, panicking)
}

// weight is W_g: of a written weight the part that is available in the tier, else the number of ready endpoints there;
// both times the share the namespace's owner allows, and the slow-start factor.
func (b *builder) weight(member, ready, total int, panicking bool) float64 {
	weight := b.weights[member]
	switch {
	case weight == 0:
		return drainedWeight
	case !b.written && !b.equal:
		weight *= float64(ready)
	case !panicking && b.overprovision != allOrNothing:
		weight *= min(1, float64(b.overprovision*ready)/float64(100*total))
	}
	if panicking {
		return weight
	}
	return weight * b.view.Health.Status(b.plan.service.Members[member].Cluster).Weight()
}

// drainedWeight is that of members weighed to nothing. They are candidates only when all are excluded, and then those
// that are weighed come first.
const drainedWeight = 1e-9

// Pick tells what Addresses or, when the answer holds no more than most, Backends choose, without making it.
func (p *Plan) Pick(d Draw, of Family, most int) Choice {
	if p.service.Type == mcs.Headless {
		_, choice := p.part(d, of, most)
		return choice
	}
	_, choice := p.group(d, of)
	return choice
}

// Addresses appends to dst the addresses of one family that a ClusterSetIP service answers with, sorted and without
// duplicates.
func (p *Plan) Addresses(dst []netip.Addr, d Draw, of Family) ([]netip.Addr, Choice) {
	begin := len(dst)
	g, choice := p.group(d, of)
	for i := range g {
		dst = appendFamily(dst, p.service.Members[g[i].member].Addrs, of)
	}
	if len(g) > 1 {
		slices.SortFunc(dst[begin:], netip.Addr.Compare)
		dst = append(dst[:begin], slices.Compact(dst[begin:])...)
	}
	return dst, choice
}

// group finds the parts that a ClusterSetIP service answers with: the one that is drawn, or all.
func (p *Plan) group(d Draw, of Family) (group, Choice) {
	g, choice := p.choose(d, of)
	if p.answer == One {
		at := g.draw(d, of)
		if at < 0 {
			return nil, choice
		}
		g = g[at : at+1]
		choice.Member = p.service.Members[g[0].member].Cluster
	}
	if len(g) > 0 {
		choice.Set = g[0].set
	}
	return g, choice
}

func appendFamily(dst, addrs []netip.Addr, of Family) []netip.Addr {
	for _, a := range addrs {
		if of(a) {
			dst = append(dst, a)
		}
	}
	return dst
}

// Backends appends to dst the indices of the backends that a headless service answers with: all that there are, in the
// service's order, or in draw order the first that the policy's cap and most allow (0 does not). The cap counts
// identities, so that both families and SRV show the same ones, unless the chosen ones have nothing of the family asked
// for (nil: any) while others have. most is for an answer that holds no more, and counts those of the family only.
func (p *Plan) Backends(dst []int32, d Draw, of Family, most int) ([]int32, Choice) {
	backends, choice := p.part(d, of, most)
	begin := len(dst)
	if p.cap > 0 && p.cap < len(backends) {
		dst = p.lowest(dst, d, backends, nil, p.cap)
		if !slices.ContainsFunc(dst[begin:], func(b int32) bool { return p.has(b, of) }) {
			dst = p.lowest(dst[:begin], d, backends, of, p.cap)
		}
		return p.first(dst, begin, of, most), choice
	}
	if most > 0 && most < len(backends) {
		return p.lowest(dst, d, backends, of, most), choice
	}
	return append(dst, backends...), choice
}

// part finds the backends of the part that a headless service answers with, or with some of which.
func (p *Plan) part(d Draw, of Family, most int) ([]int32, Choice) {
	g, choice := p.choose(d, of)
	at := g.draw(d, of)
	if at < 0 {
		return nil, choice
	}
	if g[at].member >= 0 {
		choice.Member = p.service.Members[g[at].member].Cluster
	}
	backends := g[at].backends
	if (p.cap == 0 || p.cap >= len(backends)) && (most == 0 || most >= len(backends)) {
		choice.Set = g[at].set
	}
	return backends, choice
}

// first leaves of what is in dst from begin on the first most of the family, if there are more.
func (p *Plan) first(dst []int32, begin int, of Family, most int) []int32 {
	if most == 0 || len(dst)-begin <= most {
		return dst
	}
	kept := slices.DeleteFunc(dst[begin:], func(b int32) bool { return !p.has(b, of) })
	return dst[:begin+min(most, len(kept))]
}

// has reports whether a backend has an address of the family.
func (p *Plan) has(backend int32, of Family) bool {
	return of == nil || p.service.Backends[backend].Has(of)
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
			c := Choice{Tier: i, Degraded: degraded, Panic: t.load.Panic, Set: -1}
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
	for half, pick := range [...]func(*tier) group{
		func(t *tier) group { return t.healthy },
		func(t *tier) group { return t.degraded },
		func(t *tier) group { return t.any },
	} {
		for i := range p.tiers {
			if g := pick(&p.tiers[i]); g.has(of) {
				return g, Choice{Tier: i, Degraded: half == 1, Panic: half == 2, Set: -1}
			}
		}
	}
	return nil, Choice{Set: -1}
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

// ranked is a backend on its way into a capped answer.
type ranked struct {
	rank    uint64
	backend int32
}

func (a ranked) compare(b ranked) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.backend, b.backend))
}

// lowest appends the backends of the family with the most lowest-ranked identities, in that order. Backends of one
// identity have one rank and count once: the two labels of a nameless pod with two families stand or fall together.
//
// Ranks are evenly spread, so that a bound on them finds a few more than needed in one pass, and sorting those is cheap.
// Where it finds too few, it is raised.
func (p *Plan) lowest(dst []int32, d Draw, backends []int32, of Family, most int) []int32 {
	var buf [128]ranked // enough for 80: larger answers are rare
	for aim := most + 4*int(math.Sqrt(float64(most))) + 8; ; aim *= 4 {
		bound, all := uint64(math.MaxUint64), aim >= len(backends)
		if !all {
			bound = math.MaxUint64 / uint64(len(backends)) * uint64(aim) //nolint:gosec // both are positive
		}
		found := buf[:0]
		for _, b := range backends {
			if rank := d.rank(p.identities[b]); rank <= bound && p.has(b, of) {
				found = append(found, ranked{rank, b})
			}
		}
		slices.SortFunc(found, ranked.compare)
		if n, enough := identities(found, most); enough || all {
			for _, f := range found[:n] {
				dst = append(dst, f.backend)
			}
			return dst
		}
	}
}

// identities returns how many of the sorted backends have the first most identities, and whether there are so many.
func identities(sorted []ranked, most int) (n int, enough bool) {
	for i := range sorted {
		if i > 0 && sorted[i].rank == sorted[i-1].rank {
			continue
		}
		if most == 0 {
			return i, true
		}
		most--
	}
	return len(sorted), most == 0
}
