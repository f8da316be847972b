package locality

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// trustPercent is how many of the endpoints must be where the ranges of the Nodes say, or else the ranges are not
// believed: some CNI plugins do not use the ranges that Kubernetes assigns.
const trustPercent = 99

// table is what is known of the own cluster's addresses. Immutable.
type table struct {
	// exact holds the addresses of Nodes and of endpoints.
	exact *addresses
	// pods holds the ranges that Nodes say their pods have.
	pods *prefixes[*place]
	// region is the one most Nodes are in, "" when none says.
	region string
	// nodes is how many Nodes there are.
	nodes int
	// checked is how many endpoints were compared with pods, agreed how many of them are where pods says.
	checked, agreed int
}

// noTable is what is known before anything is.
var noTable = &table{exact: &addresses{}, pods: &prefixes[*place]{}}

// podsTrusted reports whether the ranges of the Nodes are believed.
func (t *table) podsTrusted() bool { return t.agreed*100 >= t.checked*trustPercent }

// agreement is the share of endpoints that are where the ranges of the Nodes say, 1 when there is nothing to compare.
func (t *table) agreement() float64 {
	if t.checked == 0 {
		return 1
	}
	return float64(t.agreed) / float64(t.checked)
}

// verdict compares the place of an endpoint with the ranges of the Nodes; checked is false when there is nothing to
// compare.
func (t *table) verdict(addr netip.Addr, p *place) (checked, agreed bool) {
	if p == nil || p.node == "" || len(t.pods.values) == 0 {
		return false, false
	}
	said, ok := t.pods.find(addr, addr.BitLen())
	return true, ok && said.node == p.node
}

// count adds an endpoint to the self-check, or with sign -1 takes it out.
func (t *table) count(addr netip.Addr, p *place, sign int) {
	checked, agreed := t.verdict(addr, p)
	if checked {
		t.checked += sign
	}
	if agreed {
		t.agreed += sign
	}
}

// atlas makes tables from what the API server of the own cluster tells. It publishes a new one after each change; further
// changes coalesce only while one is being made.
type atlas struct {
	// name is the cluster's, for the log.
	name    string
	current atomic.Pointer[table]
	// nodesListed is set when every Node has been told.
	nodesListed atomic.Bool

	mu     sync.Mutex // guards what follows
	nodes  map[string]*watch.Node
	places map[mcs.ServiceKey][]watch.Place
	claims map[netip.Addr][]claim
	// own holds the addresses of Nodes.
	own map[netip.Addr]*place
	// changed are the addresses whose claims have changed since the last table, all is set when anything may have.
	changed map[netip.Addr]struct{}
	all     bool

	wake chan struct{} // holds one token while something has changed
	stop chan struct{}
	done sync.WaitGroup
}

// claim is what one EndpointSlice says about an address. Comparable.
type claim struct {
	node, zone string
	ready      bool
}

// newQuietAtlas returns an atlas that publishes only when it is told to.
func newQuietAtlas(name string) *atlas {
	a := &atlas{
		name:    name,
		nodes:   map[string]*watch.Node{},
		places:  map[mcs.ServiceKey][]watch.Place{},
		claims:  map[netip.Addr][]claim{},
		changed: map[netip.Addr]struct{}{},
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
	}
	a.current.Store(noTable)
	return a
}

// newAtlas returns an atlas that publishes until it is closed.
func newAtlas(name string) *atlas {
	a := newQuietAtlas(name)
	a.done.Go(func() {
		for {
			select {
			case <-a.stop:
				return
			case <-a.wake:
				a.publish()
			}
		}
	})
	return a
}

// close ends publishing. The last table stays.
func (a *atlas) close() {
	close(a.stop)
	a.done.Wait()
}

// note asks for a new table.
func (a *atlas) note() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// ApplyNode implements watch.PlaceSink.
func (a *atlas) ApplyNode(name string, n *watch.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n == nil {
		delete(a.nodes, name)
	} else {
		a.nodes[name] = n
	}
	a.all = true
	a.note()
}

// ApplyPlaces implements watch.PlaceSink.
func (a *atlas) ApplyPlaces(slice mcs.ServiceKey, places []watch.Place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.places[slice] {
		held := a.claims[p.Addr]
		if at := slices.Index(held, claimOf(p)); at >= 0 {
			held = slices.Delete(held, at, at+1)
		}
		if a.claims[p.Addr] = held; len(held) == 0 {
			delete(a.claims, p.Addr)
		}
		a.changed[p.Addr] = struct{}{}
	}
	for _, p := range places {
		a.claims[p.Addr] = append(a.claims[p.Addr], claimOf(p))
		a.changed[p.Addr] = struct{}{}
	}
	if len(places) == 0 {
		delete(a.places, slice)
	} else {
		a.places[slice] = places
	}
	a.note()
}

func claimOf(p watch.Place) claim { return claim{p.Node, p.Zone, p.Ready} }

// SetNodesListed implements watch.PlaceSink.
func (a *atlas) SetNodesListed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodesListed.Store(true)
	a.all = true
	a.note()
}

// SetPlacesListed implements watch.PlaceSink.
func (*atlas) SetPlacesListed() {}

var _ watch.PlaceSink = (*atlas)(nil)

// publish makes the next table and says so when the ranges of the Nodes are no longer, or again, believed.
func (a *atlas) publish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.current.Load()
	next := a.next(before)
	a.current.Store(next)
	clear(a.changed)
	a.all = false
	switch was, is := before.podsTrusted(), next.podsTrusted(); {
	case was && !is:
		log.Warningf("Cluster %s: the pod CIDRs of the Nodes are not used: only %d of %d endpoints are on the Node that they say; "+
			"write the ranges as 'cidr' if clients without a Service are to have a zone", a.name, next.agreed, next.checked)
	case !was && is:
		log.Infof("Cluster %s: the pod CIDRs of the Nodes are used again: %d of %d endpoints are on the Node that they say",
			a.name, next.agreed, next.checked)
	}
}

// next makes a table from the one before: of the addresses only those are entered anew that have moved.
func (a *atlas) next(before *table) *table {
	out := *before
	changes := map[netip.Addr]*place{}
	enter := func(addr netip.Addr, p *place) {
		had := before.exact.find(addr)
		if (had == nil) != (p == nil) || had != nil && *had != *p {
			changes[addr] = p
		}
	}
	if !a.all {
		for addr := range a.changed {
			if a.own[addr] == nil {
				p := a.claimed(addr)
				out.count(addr, before.exact.find(addr), -1)
				out.count(addr, p, 1)
				enter(addr, p)
			}
		}
		out.exact = before.exact.with(changes)
		return &out
	}
	// Nodes have changed, so anything may have moved.
	for addr := range a.own {
		enter(addr, a.claimed(addr)) // if it is a Node's no longer
	}
	out = table{nodes: len(a.nodes), region: a.majority(), pods: newPrefixes(a.podCIDRs())}
	a.own = a.nodeAddresses()
	for addr := range a.changed {
		enter(addr, a.claimed(addr)) // if it is an endpoint's no longer
	}
	for addr := range a.claims {
		// What a Node has itself says nothing about the ranges of pods.
		if a.own[addr] == nil {
			p := a.claimed(addr)
			out.count(addr, p, 1)
			enter(addr, p)
		}
	}
	for addr, p := range a.own {
		delete(changes, addr)
		enter(addr, p)
	}
	out.exact = before.exact.with(changes)
	return &out
}

// claimed returns where the EndpointSlices say that an address is, nil when they say nothing. Ready endpoints are
// believed first, since an address may pass from a pod that is ending to a new one. Where claims differ, only what they
// agree on is known.
func (a *atlas) claimed(addr netip.Addr) *place {
	claims := a.claims[addr]
	ready := slices.ContainsFunc(claims, func(c claim) bool { return c.ready })
	var out place
	found := false
	for _, c := range claims {
		p, ok := a.resolve(c)
		switch {
		case !ok || ready && !c.ready:
		case !found:
			out, found = p, true
		default:
			out = out.common(p)
		}
	}
	if out == (place{}) {
		return nil
	}
	return &out
}

// resolve completes a claim from its Node. A node that this cluster does not have means that the slice is about another
// cluster, whoever copied it here.
func (a *atlas) resolve(c claim) (place, bool) {
	p := place{zone: c.zone, node: c.node}
	if c.node == "" {
		return p, true
	}
	n := a.nodes[c.node]
	if n == nil {
		return p, !a.nodesListed.Load()
	}
	p.region = n.Region
	if n.Zone != "" {
		p.zone = n.Zone
	}
	return p, true
}

// nodeAddresses returns the addresses of the Nodes.
func (a *atlas) nodeAddresses() map[netip.Addr]*place {
	out := make(map[netip.Addr]*place, 2*len(a.nodes))
	for name, n := range a.nodes {
		p := placeOf(name, n)
		for _, addr := range n.Addresses {
			agree(out, addr, p)
		}
	}
	return out
}

// podCIDRs returns the ranges that the Nodes say their pods have.
func (a *atlas) podCIDRs() map[netip.Prefix]*place {
	out := make(map[netip.Prefix]*place, 2*len(a.nodes))
	for name, n := range a.nodes {
		p := placeOf(name, n)
		for _, prefix := range n.PodCIDRs {
			agree(out, prefix, p)
		}
	}
	return out
}

func placeOf(name string, n *watch.Node) *place {
	return &place{region: n.Region, zone: n.Zone, node: name}
}

// agree enters a place; where another one stands already, what both agree on stays.
func agree[K comparable](in map[K]*place, key K, p *place) {
	if had := in[key]; had != nil {
		both := had.common(*p)
		p = &both
	}
	in[key] = p
}

// majority returns the region that most Nodes are in, of several the first by name.
func (a *atlas) majority() string {
	count := map[string]int{}
	best := ""
	for _, n := range a.nodes {
		if n.Region != "" {
			count[n.Region]++
		}
	}
	for region, n := range count {
		if best == "" || n > count[best] || n == count[best] && strings.Compare(region, best) < 0 {
			best = region
		}
	}
	return best
}
