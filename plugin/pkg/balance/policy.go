package balance

import (
	"net/netip"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Answer says how many members' addresses stand in the answer of a ClusterSetIP service.
type Answer uint8

const (
	// One member's address: clients cannot undo the choice.
	One Answer = iota
	// All members' addresses of the chosen tier: the client spreads evenly over them.
	All
)

// Preference says whose wish decides which endpoints are near.
type Preference uint8

const (
	// ByDefault prefers the own cluster, then the own region, for ClusterSetIP services, and nothing for headless ones:
	// a discovery list must be complete.
	ByDefault Preference = iota
	// ByLabels prefers by Policy.Labels; no label means no preference.
	ByLabels
	// ByService does what each service's trafficDistribution says, all or nothing as kube-proxy does.
	ByService
)

// overprovisioning is Envoy's default factor in percent: a tier counts as whole down to 72 % healthy endpoints.
const overprovisioning = 140

// Policy is what the operator asks for. The zero value is the default. It must not change once it is in use.
type Policy struct {
	Answer Answer
	Prefer Preference
	// Labels of ByLabels go from narrow to broad, without repetition.
	Labels []Label
	// MaxAnswers caps the endpoints in a headless answer; 0 does not.
	MaxAnswers int
	// Panic is the percentage of usable endpoints under which a tier gives up choosing by health, 0 to 100; 0 fails open
	// only when nothing is usable.
	Panic int
}

// labelsFor returns the labels that count for a service, from narrow to broad, and the overprovisioning factor.
func (p *Policy) labelsFor(s *mcs.Service) (labels []Label, overprovision int) {
	switch {
	case p.Prefer == ByLabels:
		return p.Labels, overprovisioning
	case p.Prefer == ByService && distributionLabels(s) != nil:
		return distributionLabels(s), allOrNothing
	case s.Type == mcs.ClusterSetIP:
		return clusterRegion, overprovisioning
	default:
		return nil, overprovisioning
	}
}

var (
	clusterRegion = []Label{Cluster, Region}
	sameZone      = []Label{Zone}
	sameNode      = []Label{Node, Zone}
)

// distributionLabels translates trafficDistribution (KEP-4444, KEP-3015); nil for none, and for a value that is not
// known. An address of a whole cluster has no zone, so for ClusterSetIP closeness is that of clusters.
func distributionLabels(s *mcs.Service) []Label {
	labels := sameZone
	switch s.TrafficDistribution {
	case "PreferSameZone", "PreferClose":
	case "PreferSameNode":
		labels = sameNode
	default:
		return nil
	}
	if s.Type == mcs.ClusterSetIP {
		return clusterRegion
	}
	return labels
}

// View is what is known of the members while an answer is chosen. It must not change once it is in use: plans are kept
// for the identity of a View.
type View struct {
	// Regions are the regions of the members, where known.
	Regions map[topology.ClusterID]string
	// Weights are the written weights, 0 to 65535. A service that any member with a written weight exports counts those
	// without as 1; if none has one, the weight is the number of ready endpoints.
	Weights map[topology.ClusterID]int
	// Health says how the members count.
	Health *health.Snapshot
}

// Family is an address family, as the test whether an address is of it.
type Family func(netip.Addr) bool

// The two address families of DNS.
var (
	IPv4 Family = netip.Addr.Is4
	IPv6 Family = netip.Addr.Is6
)

// plans are the plans of one service, kept with it. Immutable.
type plans struct {
	*outline
	entries []planEntry
	// index finds an entry where there are many; nil where there are few.
	index map[planKey]*Plan
	// one is room for entries, and sole for the Plan, where there is one, as mostly: a query finds all of it in one place.
	one  [1]planEntry
	sole Plan
}

type planEntry struct {
	planKey
	plan *Plan
}

type planKey struct {
	policy *Policy
	view   *View
	class  topology.Locality
}

// maxPlans bounds how many locality classes of a service have their plan kept. There are as many as places with endpoints
// of the service at most; beyond the bound, which takes a service that runs on more nodes than this, plans are made
// again when they are needed. manyPlans is from how many on an index is faster than looking through them.
const (
	maxPlans  = 1024
	manyPlans = 8
)

// Plan returns how the service is shared out among clients at that place. It is made once per service, view and
// locality class, and kept; a query that finds it allocates nothing.
func (p *Policy) Plan(s *mcs.Service, v *View, client topology.Locality) *Plan {
	labels, overprovision := p.labelsFor(s)
	known, _ := s.Memo.Load().(*plans)
	if known == nil {
		known = &plans{outline: outlineOf(s)}
	}
	key := planKey{p, v, mask(labels, client)}
	if plan := known.get(&key); plan != nil {
		return plan // the class is one that narrow leaves as it is, since plans are kept for such
	}
	known.narrow(&key.class, s, v)
	if plan := known.get(&key); plan != nil {
		return plan
	}
	return p.compiled(s, &key, known, labels, overprovision)
}

// compiled makes a plan and keeps it. Of two queries that do this at once, one loses its work, which costs no more than doing it
// again.
func (p *Policy) compiled(s *mcs.Service, key *planKey, known *plans, labels []Label, overprovision int) *Plan {
	next := known.before(key)
	plan := &next.sole
	if len(next.entries) > 0 {
		plan = new(Plan) // with that of others it would keep theirs alive
	}
	compile(plan, p, s, known.outline, key.view, key.class, labels, overprovision)
	plan.share(known)
	next.add(planEntry{*key, plan})
	s.Memo.Store(next)
	return plan
}

func (k *plans) get(key *planKey) *Plan {
	if k.index != nil {
		return k.index[*key]
	}
	for i := range k.entries {
		if k.entries[i].planKey == *key {
			return k.entries[i].plan
		}
	}
	return nil
}

// before returns a copy with room for one more plan; those that it makes obsolete and the oldest above the bound are left out.
func (k *plans) before(key *planKey) *plans {
	out := &plans{outline: k.outline}
	out.entries = out.one[:0]
	for _, old := range k.entries {
		if old.policy != key.policy || old.view == key.view {
			out.entries = append(out.entries, old)
		}
	}
	if over := len(out.entries) + 1 - maxPlans; over > 0 {
		out.entries = slices.Delete(out.entries, 0, over)
	}
	return out
}

// add adds a plan to those that nobody else uses yet.
func (k *plans) add(e planEntry) {
	k.entries = append(k.entries, e)
	if len(k.entries) <= manyPlans {
		return
	}
	k.index = make(map[planKey]*Plan, len(k.entries))
	for i := range k.entries {
		k.index[k.entries[i].planKey] = k.entries[i].plan
	}
}
