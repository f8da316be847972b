package balance

import (
	"slices"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// outline is what all plans of a service have in common.
type outline struct {
	// identities are the hashes of the backends' identities, by index.
	identities []uint64
	// places are made when a client's node or zone is first looked at.
	places atomic.Pointer[places]
}

// places are those in which a service has endpoints, ready or missing.
type places struct {
	nodes map[nodeOf]struct{}
	zones map[string]struct{}
}

type nodeOf struct {
	cluster topology.ClusterID
	node    string
}

func outlineOf(s *mcs.Service) *outline {
	o := &outline{}
	if len(s.Backends) > 0 {
		o.identities = make([]uint64, len(s.Backends))
	}
	for i := range s.Backends {
		o.identities[i] = backendIdentity(s, &s.Backends[i])
	}
	return o
}

// placesOf returns the places of the service that the outline is of.
func (o *outline) placesOf(s *mcs.Service) *places {
	if p := o.places.Load(); p != nil {
		return p
	}
	p := &places{nodes: map[nodeOf]struct{}{}, zones: map[string]struct{}{}}
	for i := range s.Backends {
		node, zone := s.Backends[i].Place()
		p.add(s.ClusterOf(&s.Backends[i]), node, zone)
	}
	for _, u := range s.Unready() {
		p.add(u.Cluster, u.Node, u.Zone)
	}
	o.places.Store(p)
	return p
}

func (p *places) add(cluster topology.ClusterID, node, zone string) {
	if node != "" {
		p.nodes[nodeOf{cluster, node}] = struct{}{}
	}
	if zone != "" {
		p.zones[zone] = struct{}{}
	}
}

// narrow leaves out of a class what no endpoint of the service can match, so that there are only as many classes as
// there are places with endpoints, however many nodes clients are on. It never changes what the labels match: see
// Label.matches. A zone counts as long as the node does, since an endpoint without a zone is in that of its node.
func (o *outline) narrow(class *topology.Locality, s *mcs.Service, v *View) {
	if class.Node != "" || class.Zone != "" {
		p := o.placesOf(s)
		if _, there := p.nodes[nodeOf{class.Cluster, class.Node}]; !there {
			class.Node = ""
			if _, there := p.zones[class.Zone]; !there {
				class.Zone = ""
			}
		}
	}
	if class.Cluster != "" && !slices.ContainsFunc(s.Members, func(c mcs.Contribution) bool { return c.Cluster == class.Cluster }) {
		class.Cluster = ""
	}
	if class.Region != "" && class.Cluster == "" && !slices.ContainsFunc(s.Members, func(c mcs.Contribution) bool { return v.Regions[c.Cluster] == class.Region }) {
		class.Region, class.Zone = "", ""
	}
}

// share lets a plan use the lists of backends that others of the service have already: the far tiers of two nodes are
// mostly the same.
func (p *Plan) share(known *plans) {
	for i := range p.tiers {
		t := &p.tiers[i]
		for _, g := range []group{t.healthy, t.degraded, t.any} {
			for j := range g {
				g[j].backends = p.shared(known, g[j].backends)
			}
		}
	}
}

// number gives each different answer a number.
func (p *Plan) number() {
	if p.answer == One && p.service.Type != mcs.Headless {
		p.Sets = len(p.service.Members)
	}
	var known [][]int32
	for i := range p.tiers {
		t := &p.tiers[i]
		for _, g := range []group{t.healthy, t.degraded, t.any} {
			known = p.numberGroup(g, known)
		}
	}
}

// numberGroup numbers the answers of a group. known are the lists of backends that have a number, their place.
func (p *Plan) numberGroup(g group, known [][]int32) [][]int32 {
	switch {
	case len(g) == 0:
	case p.service.Type == mcs.Headless:
		for i := range g {
			same := func(l []int32) bool { return slices.Equal(l, g[i].backends) }
			if g[i].set = slices.IndexFunc(known, same); g[i].set < 0 {
				g[i].set, known = len(known), append(known, g[i].backends)
			}
		}
		p.Sets = len(known)
	case p.answer == One:
		for i := range g {
			g[i].set = g[i].member
		}
	default:
		g[0].set = p.Sets
		p.Sets++
	}
	return known
}

// shared returns the first list that is equal to one of the plan.
func (p *Plan) shared(known *plans, backends []int32) []int32 {
	if len(backends) == 0 {
		return nil
	}
	for i := range known.entries {
		if same := known.entries[i].plan.find(backends); same != nil {
			return same
		}
	}
	return p.find(backends) // itself at the latest
}

// find returns a list of the plan that is equal.
func (p *Plan) find(backends []int32) []int32 {
	for i := range p.tiers {
		t := &p.tiers[i]
		for _, g := range []group{t.healthy, t.degraded, t.any} {
			for j := range g {
				if slices.Equal(g[j].backends, backends) {
					return g[j].backends
				}
			}
		}
	}
	return nil
}
