package balance

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Outcome says what became of a candidate in one draw.
type Outcome uint8

// The outcomes, in the order in which they are looked for.
const (
	// Given candidates stand in the answer.
	Given Outcome = iota
	// Addressless members have no address that could be given.
	Addressless
	// Excluded candidates are drained or not probed yet, and somebody else can answer.
	Excluded
	// Idle candidates have nothing ready.
	Idle
	// WrongFamily candidates have no address of the family asked for.
	WrongFamily
	// OtherTier candidates are in a tier that was not drawn.
	OtherTier
	// OtherPart candidates are in the tier that was drawn, but what answers there is in another state of health.
	OtherPart
	// NotDrawn candidates could have been drawn; another member was.
	NotDrawn
	// LeftOut backends are of the part that was drawn, beyond what the answer may hold.
	LeftOut
)

// Candidate is a member of a ClusterSetIP service, or a backend of a headless one, as one draw sees it. Endpoints of a headless
// service that are not ready stand together by member and place.
type Candidate struct {
	// Member is its index in Service.Members, Backend in Service.Backends; -1 when it is none.
	Member, Backend int
	// At is where it is, as far as that is known.
	At    topology.Locality
	State health.State
	// Ready and Total count endpoints.
	Ready, Total int
	// Tier counts from 0; -1 when it is in none.
	Tier int
	// Weight is what it is drawn by in its tier; 1 where nothing is drawn by weight.
	Weight  float64
	Outcome Outcome
}

// ExplainedTier is one tier of a plan.
type ExplainedTier struct {
	Counts Counts
	Load   Load
	// Near is the narrowest label that all of it shares with the client. It means nothing when Far is true: then none is.
	Near Label
	Far  bool
}

// Explanation is everything that a draw for one client takes into account.
type Explanation struct {
	// Labels are those that count for the service, from narrow to broad.
	Labels     []Label
	Candidates []Candidate
	Tiers      []ExplainedTier
	// Point, in [0, 100), falls into one part of the tiers' loads.
	Point  float64
	Choice Choice
}

// Explain tells what the plan of a service gives a client at that place by a draw, and why; of and most are those of
// Plan.Backends. It computes by the steps that make a plan what the plan itself does not keep, so that queries pay nothing.
func (p *Policy) Explain(s *mcs.Service, v *View, client topology.Locality, d Draw, of Family, most int) Explanation {
	plan, b := p.rebuild(s, v, client)
	e := explainer{builder: b, of: of, out: Explanation{Labels: b.labels, Point: float64(d.tier()) * 100 / scale}}
	e.given(d, most)
	e.candidates()
	e.tiers(plan)
	for i := range e.out.Candidates {
		e.judge(&e.out.Candidates[i])
	}
	return e.out
}

// rebuild returns the plan that answers, and a builder with the candidates that it was made of. It keeps nothing.
func (p *Policy) rebuild(s *mcs.Service, v *View, client topology.Locality) (*Plan, *builder) {
	labels, overprovision := p.labelsFor(s)
	known, _ := s.Memo.Load().(*plans)
	if known == nil {
		known = &plans{outline: outlineOf(s)}
	}
	key := planKey{p, v, mask(labels, client)}
	known.narrow(&key.class, s, v)
	plan := known.get(&key)
	if plan == nil {
		plan = compile(new(Plan), p, s, known.outline, v, key.class, labels, overprovision)
	}
	b := &builder{plan: plan, view: v, class: key.class, labels: labels, overprovision: overprovision}
	b.weigh()
	if s.Type == mcs.Headless {
		b.backends()
	} else {
		b.members()
	}
	return plan, b
}

// explainer holds what the steps of Explain share.
type explainer struct {
	*builder
	of  Family
	out Explanation
	// members and chosen are the indices of what is given.
	members map[int]bool
	chosen  map[int]bool
}

func (e *explainer) given(d Draw, most int) {
	e.members, e.chosen = map[int]bool{}, map[int]bool{}
	if e.plan.service.Type == mcs.Headless {
		var indices []int32
		indices, e.out.Choice = e.plan.Backends(nil, d, e.of, most)
		for _, at := range indices {
			if e.plan.has(at, e.of) {
				e.chosen[int(at)] = true
			}
		}
		return
	}
	var g group
	g, e.out.Choice = e.plan.group(d, e.of)
	for i := range g {
		if g[i].of(e.of) {
			e.members[g[i].member] = true
		}
	}
}

// candidates lists them by distance, those that are excluded too, and after them what has no distance.
func (e *explainer) candidates() {
	s := e.plan.service
	listed := map[int]bool{}
	for _, at := range e.builder.candidates {
		for _, c := range at {
			listed[c.member] = true
			e.out.Candidates = append(e.out.Candidates, e.candidate(c))
		}
	}
	for _, u := range s.Unready() {
		if i := slices.IndexFunc(s.Members, func(c mcs.Contribution) bool { return c.Cluster == u.Cluster }); i >= 0 {
			at := e.place(u.Cluster)
			at.Zone, at.Node = u.Zone, u.Node
			e.out.Candidates = append(e.out.Candidates, Candidate{Member: i, Backend: -1, At: at, State: e.states[i], Total: u.Count, Tier: -1, Outcome: Idle})
			listed[i] = true
		}
	}
	for i := range s.Members {
		if m := &s.Members[i]; !listed[i] {
			c := Candidate{Member: i, Backend: -1, At: e.place(m.Cluster), State: e.states[i], Ready: int(m.Ready), Total: int(m.Total), Tier: -1, Outcome: Addressless}
			if s.Type == mcs.Headless {
				c.Outcome = Idle
			}
			e.out.Candidates = append(e.out.Candidates, c)
		}
	}
}

func (e *explainer) candidate(c candidate) Candidate {
	s := e.plan.service
	out := Candidate{
		Member: c.member, Backend: int(c.backend), At: e.place(s.Members[c.member].Cluster), State: c.state, Ready: c.ready, Total: c.total, Tier: -1,
	}
	switch {
	case c.backend >= 0:
		out.At.Node, out.At.Zone = s.Backends[c.backend].Place()
	case s.Members[c.member].Ready == 0: // it stands for an address that still resolves
		out.Ready, out.Total = 0, int(s.Members[c.member].Total)
	}
	switch {
	case c.ready == 0:
		out.Outcome = Idle
	case e.of != nil && (!c.v4 || !e.of(probe4)) && (!c.v6 || !e.of(probe6)):
		out.Outcome = WrongFamily
	}
	return out
}

// tiers gives the candidates their tiers and weights, by the same walk over distances as build.
func (e *explainer) tiers(plan *Plan) {
	usable := e.usable()
	tierOf := map[int]int{} // by distance
	for d, at := range e.builder.candidates {
		if usable {
			at = slices.DeleteFunc(slices.Clone(at), func(c candidate) bool { return c.state == health.Excluded })
		}
		if len(at) == 0 {
			continue
		}
		tierOf[d] = len(e.out.Tiers)
		_, counts := e.tier(at, e.missing[d])
		t := ExplainedTier{Counts: counts, Load: plan.tiers[len(e.out.Tiers)].load, Far: d == len(e.labels)}
		if !t.Far {
			t.Near = e.labels[d]
		}
		e.out.Tiers = append(e.out.Tiers, t)
	}
	for i := range e.out.Candidates {
		c := &e.out.Candidates[i]
		tier, there := tierOf[distance(e.labels, e.class, c.At)]
		switch {
		case c.Outcome == Addressless:
		case usable && c.State == health.Excluded:
			c.Outcome = Excluded
		case there:
			c.Tier, c.Weight = tier, plan.tiers[tier].weightOf(c)
		}
	}
}

// weightOf returns what a candidate of the tier is drawn by there.
func (t *tier) weightOf(c *Candidate) float64 {
	g := t.any
	switch {
	case t.load.Panic:
	case c.State == health.Healthy:
		g = t.healthy
	case c.State == health.Degraded:
		g = t.degraded
	}
	for i := range g {
		if g[i].member == c.Member || g[i].member == severalMembers {
			return g[i].weight
		}
	}
	return 0
}

// judge says what became of a candidate that can be given.
func (e *explainer) judge(c *Candidate) {
	choice := &e.out.Choice
	switch {
	case c.Outcome != Given, c.Backend < 0 && e.members[c.Member], c.Backend >= 0 && e.chosen[c.Backend]:
	case c.Tier != choice.Tier:
		c.Outcome = OtherTier
	case !choice.Panic && c.State != stateOf(choice):
		c.Outcome = OtherPart
	case c.Backend >= 0 && (choice.Member == "" || choice.Member == e.plan.service.Members[c.Member].Cluster):
		c.Outcome = LeftOut
	default:
		c.Outcome = NotDrawn
	}
}

func stateOf(c *Choice) health.State {
	if c.Degraded {
		return health.Degraded
	}
	return health.Healthy
}

// Shares returns which part of the clients at a place each member answers; the parts add up to 1, or there are none. Where an
// answer holds several members, clients are taken to spread evenly over what it holds.
func (p *Policy) Shares(s *mcs.Service, v *View, client topology.Locality) map[topology.ClusterID]float64 {
	plan, _ := p.rebuild(s, v, client)
	out := map[topology.ClusterID]float64{}
	for i := range plan.tiers {
		t := &plan.tiers[i]
		for _, half := range [...]struct {
			load     int
			degraded bool
		}{{t.load.Healthy, false}, {t.load.Degraded, true}} {
			g := t.part(half.degraded)
			if half.load > 0 && !g.has(nil) {
				g, _ = plan.next(nil)
			}
			plan.spread(g, float64(half.load)/scale, out)
		}
	}
	return out
}

// spread shares a load out among the members of a group.
func (p *Plan) spread(g group, load float64, to map[topology.ClusterID]float64) {
	sum := 0.0
	weights := make([]float64, len(g))
	for i := range g {
		weights[i] = g[i].weight
		if p.answer == All && p.service.Type != mcs.Headless {
			weights[i] = float64(len(p.service.Members[g[i].member].Addrs))
		}
		sum += weights[i]
	}
	if load == 0 || sum == 0 {
		return
	}
	for i := range g {
		share := load * weights[i] / sum
		if g[i].member != severalMembers {
			to[p.service.Members[g[i].member].Cluster] += share
			continue
		}
		for _, b := range g[i].backends {
			to[p.service.ClusterOf(&p.service.Backends[b])] += share / float64(len(g[i].backends))
		}
	}
}

// Weights returns what the members of a service are drawn by before their health, by their index in Service.Members.
func (p *Policy) Weights(s *mcs.Service, v *View) []float64 {
	b := &builder{plan: &Plan{service: s}, view: v}
	b.weigh()
	for i := range b.weights {
		if !b.written && !b.equal {
			b.weights[i] *= float64(s.Members[i].Ready)
		}
	}
	return b.weights
}

// LooksAt reports whether it matters to the answers for a service where within its cluster a client is.
func (p *Policy) LooksAt(s *mcs.Service, l Label) bool {
	labels, _ := p.labelsFor(s)
	return slices.Contains(labels, l)
}

// Epoch tells the number of the epoch that a draw at the time now is of, and how long it is; see NewDraw. A sticky service has
// one for ever, with the number 0.
func Epoch(client netip.Addr, service mcs.ServiceKey, now time.Time, ttl time.Duration, sticky bool) (number int64, length time.Duration) {
	if sticky {
		return 0, 0
	}
	return int64(epochAt(baseOf(client, service), now, ttl) & math.MaxInt64), max(ttl, minEpoch) //nolint:gosec // the mask
}
