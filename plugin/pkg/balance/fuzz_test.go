package balance

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// dice turns bytes into decisions; when they are used up, every decision is 0.
type dice []byte

func (d *dice) of(n int) int {
	if len(*d) == 0 {
		return 0
	}
	x := int((*d)[0])
	*d = (*d)[1:]
	return x % n
}

func (d *dice) one(of ...string) string { return of[d.of(len(of))] }

func (d *dice) member(i int) member {
	id := fmt.Sprintf("c%02d", i)
	m := member{id: topology.ClusterID(id), region: d.one("r0", "r1", "")}
	m.status = health.Status{State: health.State(d.of(4)), Factor: float64(d.of(11)) / 10} //nolint:gosec // below 4
	m.total = d.of(12)
	m.ready = min(m.total, d.of(12))
	m.percent = []uint8{100, 50, 1, 0}[d.of(4)]
	m.drained = m.percent == 0
	switch d.of(4) {
	case 0:
		m.weight = 1 + d.of(256)*257
	case 1:
		m.zero = true
	}
	m.addrs = []netip.Addr{}
	families := d.of(4)
	if families != 3 {
		m.addrs = append(m.addrs, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	if families > 0 {
		m.addrs = append(m.addrs, netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}))
	}
	return m
}

// endpointsOf gives a member of a headless service its endpoints: of one family or both, with or without an identity.
func (d *dice) endpointsOf(i int, m *member) {
	for k := range m.total {
		base := mcs.Endpoint{Zone: d.one("z0", "z1", ""), Node: d.one("n0", "n1", "")}
		if k < m.ready {
			base.Conditions = mcs.Ready | mcs.Serving
		}
		identity := d.of(2) == 0
		families := d.of(3)
		for family, addr := range []netip.Addr{
			netip.AddrFrom4([4]byte{10, 1, byte(i), byte(k)}), netip.AddrFrom16([16]byte{0: 0xfd, 13: 1, 14: byte(i), 15: byte(k)}),
		} {
			if families != family+1 {
				e := base
				e.Addr, e.Label = addr, mcs.AddressLabel(addr)
				if identity {
					e.ID = identityHash(fmt.Sprintf("%d-%d", i, k))
				}
				m.endpoints = append(m.endpoints, e)
			}
		}
	}
	m.total, m.ready = 0, 0
}

func (d *dice) policy() *Policy {
	p := &Policy{
		Answer: Answer(d.of(2)), Prefer: Preference(d.of(3)), //nolint:gosec // below 3
		MaxAnswers: d.of(6), Panic: d.of(3) * 50,
	}
	for _, l := range []Label{Node, Zone, Cluster, Region} {
		if d.of(2) == 1 {
			p.Labels = append(p.Labels, l)
		}
	}
	return p
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 5, 0, 0, 0, 9, 9, 0, 2, 0, 1, 1, 0, 3, 9, 2, 0, 2, 1, 2, 3, 4, 5, 6})
	f.Add([]byte("any bytes will do, as long as there are enough of them to decide about several members and their endpoints"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice(data)
		traits := clusterSetIP
		if d.of(2) == 1 {
			traits = headless
		}
		traits.TrafficDistribution = d.one("", "PreferSameZone", "PreferSameNode", "Unknown")
		policy := d.policy()
		client := topology.Locality{Region: d.one("r0", "r1", ""), Cluster: topology.ClusterID(d.one("c00", "c01", "")), Zone: d.one("z0", ""), Node: d.one("n0", "")}
		var all []member
		for i := range 1 + d.of(7) {
			m := d.member(i)
			if traits.Type == mcs.Headless {
				d.endpointsOf(i, &m)
			}
			all = append(all, m)
		}
		s, v := merged(traits, all...)
		p := policy.Plan(s, v, client)
		checkLoadsOf(t, p)
		labels, overprovision := policy.labelsFor(s)
		if again := compile(new(Plan), policy, s, outlineOf(s), v, mask(labels, client), labels, overprovision); !reflect.DeepEqual(again.tiers, p.tiers) {
			t.Fatal("The same question has two plans")
		}
		for i := range 8 {
			draw := NewDraw(clientAt(i*len(data)), web, aTime, 5*time.Second, i%2 == 0)
			if traits.Type == mcs.Headless {
				checkBackends(t, policy, p, all, draw)
			} else {
				checkAddresses(t, policy, p, all, draw)
			}
		}
	})
}

func checkLoadsOf(t *testing.T, p *Plan) {
	t.Helper()
	sum := 0
	for i := range p.tiers {
		sum += p.tiers[i].load.Healthy + p.tiers[i].load.Degraded
	}
	if len(p.tiers) > 0 && sum != scale {
		t.Fatalf("Loads add up to %d", sum)
	}
}

// weighedToNothing finds the members whose weight makes them drained: none, when all are.
func weighedToNothing(all []member) map[topology.ClusterID]bool {
	out := map[topology.ClusterID]bool{}
	for _, m := range all {
		if m.zero || m.drained {
			out[m.id] = true
		}
	}
	if len(out) == len(all) {
		return nil
	}
	return out
}

// standing is what a rule says of a member: may it answer while others of better standing can?
func standing(m *member, drained map[topology.ClusterID]bool) health.State {
	if drained[m.id] {
		return health.Excluded
	}
	return m.status.State
}

func byID(all []member, id topology.ClusterID) *member {
	return &all[slices.IndexFunc(all, func(m member) bool { return m.id == id })]
}

// checkSole compares the choice that is made without a draw with those of this draw and others.
func checkSole(t *testing.T, p *Plan, draw Draw, of Family) {
	t.Helper()
	for _, most := range []int{0, 1, 3} {
		sole, is := p.Sole(of, most)
		for range 20 {
			if picked := p.Pick(draw, of, most); is && picked != sole {
				t.Fatalf("A draw picks %+v, without one it is %+v", picked, sole)
			} else if lacks := (Choice{Set: -1}); p.Lacks(of) && picked != lacks {
				t.Fatalf("A draw picks %+v, and nobody has an address of the family", picked)
			}
			draw = Draw(mix(uint64(draw)))
		}
	}
}

func checkAddresses(t *testing.T, policy *Policy, p *Plan, all []member, draw Draw) {
	t.Helper()
	drained := weighedToNothing(all)
	ready := slices.ContainsFunc(all, func(m member) bool { return m.ready > 0 && len(m.addrs) > 0 })
	serves := func(m *member, of Family) bool {
		return (m.ready > 0 || !ready) && slices.ContainsFunc(m.addrs, of)
	}
	anyFamily := func(netip.Addr) bool { return true }
	some := func(of Family, in ...health.State) bool {
		return slices.ContainsFunc(all, func(m member) bool { return serves(&m, of) && slices.Contains(in, standing(&m, drained)) })
	}
	usable := some(anyFamily, health.Healthy, health.Degraded, health.Unhealthy)
	var chosen [2]topology.ClusterID
	for i, of := range []Family{IPv4, IPv6} {
		got, choice := p.Addresses(nil, draw, of)
		checkSole(t, p, draw, of)
		if p.Lacks(of) != (len(got) == 0) {
			t.Fatalf("%d addresses are answered, and that there is none is %v", len(got), p.Lacks(of))
		}
		chosen[i] = choice.Member
		must := some(of, health.Healthy, health.Degraded, health.Unhealthy) || !usable && some(of, health.Excluded)
		if len(got) == 0 && must {
			t.Fatalf("No answer though somebody could give one: %+v", all)
		}
		for _, a := range got {
			at := slices.IndexFunc(all, func(m member) bool { return slices.Contains(m.addrs, a) })
			if at < 0 || !of(a) {
				t.Fatalf("%v is no address of the family in the world", a)
			}
			m := &all[at]
			switch state := standing(m, drained); {
			case !serves(m, of):
				t.Fatalf("%s answers without a ready endpoint while others have one", m.id)
			case state == health.Excluded && usable:
				t.Fatalf("%s is drained and answers: %+v", m.id, all)
			case state == health.Unhealthy && policy.Panic == 0 && some(of, health.Healthy, health.Degraded):
				t.Fatalf("%s is unhealthy and answers: %+v", m.id, all)
			case policy.Answer == One && choice.Member != m.id:
				t.Fatalf("%s answers, the choice says %q", m.id, choice.Member)
			}
		}
		if !slices.IsSortedFunc(got, netip.Addr.Compare) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("%v is not sorted or has duplicates", got)
		}
	}
	dual := !slices.ContainsFunc(all, func(m member) bool { return len(m.addrs) < 2 })
	if policy.Answer == One && dual && chosen[0] != chosen[1] {
		t.Fatalf("A is answered by %s, AAAA by %s", chosen[0], chosen[1])
	}
}

func checkBackends(t *testing.T, policy *Policy, p *Plan, all []member, draw Draw) {
	t.Helper()
	s := p.service
	drained := weighedToNothing(all)
	state := func(b *mcs.Backend) health.State { return standing(byID(all, s.ClusterOf(b)), drained) }
	some := func(of Family, in ...health.State) bool {
		return slices.ContainsFunc(s.Backends, func(b mcs.Backend) bool {
			return (of == nil || b.Has(of)) && slices.Contains(in, state(&b))
		})
	}
	usable := some(nil, health.Healthy, health.Degraded, health.Unhealthy)
	for _, of := range []Family{IPv4, IPv6, nil} {
		got, choice := p.Backends(nil, draw, of, 0)
		if of != nil {
			checkSole(t, p, draw, of)
			if some := slices.ContainsFunc(got, func(at int32) bool { return p.has(at, of) }); p.Lacks(of) == some {
				t.Fatalf("Some are answered is %v, and that there is none too", some)
			}
		}
		must := some(of, health.Healthy, health.Degraded, health.Unhealthy) || !usable && some(of, health.Excluded)
		if must && !slices.ContainsFunc(got, func(at int32) bool { return p.has(at, of) }) {
			t.Fatalf("No answer of the family though somebody could give one: %+v", all)
		}
		if unique := slices.Compact(slices.Sorted(slices.Values(got))); len(unique) != len(got) {
			t.Fatalf("%v has duplicates", got)
		}
		if n := len(distinctIdentities(p, got)); policy.MaxAnswers > 0 && n > policy.MaxAnswers {
			t.Fatalf("%d identities answer, at most %d may", n, policy.MaxAnswers)
		}
		for _, at := range got {
			b := &s.Backends[at]
			cluster := s.ClusterOf(b)
			switch state := state(b); {
			case state == health.Excluded && usable:
				t.Fatalf("%s is drained and answers: %+v", cluster, all)
			case state == health.Unhealthy && policy.Panic == 0 && some(of, health.Healthy, health.Degraded):
				t.Fatalf("%s is unhealthy and answers: %+v", cluster, all)
			case choice.Member != "" && choice.Member != cluster:
				t.Fatalf("%s answers, the choice says %q", cluster, choice.Member)
			}
		}
		if few, _ := p.Backends(nil, draw, of, 2); policy.MaxAnswers == 0 && len(distinctIdentities(p, few)) > 2 {
			t.Fatalf("%v were asked to be two at most", few)
		}
	}
}

func distinctIdentities(p *Plan, backends []int32) map[uint64]bool {
	out := map[uint64]bool{}
	for _, b := range backends {
		out[p.identities[b]] = true
	}
	return out
}
