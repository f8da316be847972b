package balance

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

var web = mcs.ServiceKey{Namespace: "shop", Name: "web"}

// member is one cluster of a test: what it exports and how it is.
type member struct {
	id     topology.ClusterID
	region string
	// ready of total endpoints, for ClusterSetIP services.
	ready, total int
	// endpoints are those of headless services.
	endpoints []mcs.Endpoint
	// addrs are the member's addresses; one IPv4 address by default.
	addrs   []netip.Addr
	status  health.Status
	weight  int // written if > 0, or 0 if zero is set
	zero    bool
	percent uint8 // 100 if 0, 0 if drained is set
	drained bool
}

// plain is a healthy member with so many ready endpoints.
func plain(id topology.ClusterID, region string, ready int) member {
	return member{id: id, region: region, ready: ready, total: ready}
}

func (m member) with(change func(*member)) member {
	change(&m)
	return m
}

func (m member) is(s health.State) member {
	m.status.State = s
	return m
}

// addrOf makes the address of a member that has no other.
func addrOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

// merged makes a service and a view from members, through the production constructors.
func merged(traits mcs.Traits, all ...member) (*mcs.Service, *View) {
	var scope mcs.Scope
	for i, m := range all {
		gateway := m.addrs
		if gateway == nil {
			gateway = []netip.Addr{addrOf(i)}
		}
		scope.Members = append(scope.Members, mcs.Member{ID: m.id, Address: mcs.AddressFixed, Gateway: gateway})
	}
	x := mcs.NewIndex(scope)
	view := &View{Regions: map[topology.ClusterID]string{}, Weights: map[topology.ClusterID]int{}}
	status := map[topology.ClusterID]health.Status{}
	for _, m := range all {
		x.Apply(m.id, web, m.shard(traits))
		view.Regions[m.id] = m.region
		if m.weight > 0 || m.zero {
			view.Weights[m.id] = m.weight
		}
		status[m.id] = m.status
	}
	view.Health = health.NewSnapshot(status)
	snapshot, _ := x.Publish(1)
	return snapshot.Service(web.Namespace, web.Name), view
}

func (m member) shard(traits mcs.Traits) *mcs.Shard {
	s := &mcs.Shard{Export: mcs.Export{WeightPercent: m.percent}, Service: &mcs.ServiceSpec{Traits: traits}}
	if m.percent == 0 && !m.drained {
		s.Export.WeightPercent = 100
	}
	slice := &mcs.Slice{Name: "a", Ports: []mcs.Port{{Name: "http", Number: 80}}, Endpoints: mcs.Pack(m.endpoints...)}
	for i := range m.total {
		e := mcs.Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Label: fmt.Sprintf("web-%d", i)}
		if i < m.ready {
			e.Conditions = mcs.Ready | mcs.Serving
		}
		slice.Endpoints.Add(&e)
	}
	s.Slices = []*mcs.Slice{slice}
	return s
}

var (
	clusterSetIP = mcs.Traits{Type: mcs.ClusterSetIP}
	headless     = mcs.Traits{Type: mcs.Headless}
)

// pod is a ready endpoint with an identity.
func pod(id, addr, zone, node string) mcs.Endpoint {
	return mcs.Endpoint{
		Addr: netip.MustParseAddr(addr), Label: id, ID: identityHash("uid-" + id), Zone: zone, Node: node, Conditions: mcs.Ready | mcs.Serving,
	}
}

// pods are n ready endpoints of a cluster, at that zone and node.
func pods(cluster string, n int, zone, node string) []mcs.Endpoint {
	var out []mcs.Endpoint
	for i := range n {
		h := identityHash(cluster)
		addr := netip.AddrFrom4([4]byte{10, byte(h), byte(i >> 8), byte(i)})
		out = append(out, pod(fmt.Sprintf("%s-%d", cluster, i), addr.String(), zone, node))
	}
	return out
}

// clientAt is the i-th of the clients that all tests ask as: fixed keys make each result repeatable.
func clientAt(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 200 + byte(i>>16), byte(i >> 8), byte(i)})
}

// aTime is any time.
var aTime = time.Unix(1_800_000_000, 0)

func drawOf(i int) Draw { return NewDraw(clientAt(i), web, aTime, 5*time.Second, false) }

func mustAddr(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// shares asks as n clients and counts which member's address each is given; "" counts those who got none.
func shares(p *Plan, n int, of Family) map[topology.ClusterID]int {
	got := map[topology.ClusterID]int{}
	for i := range n {
		addrs, choice := p.Addresses(nil, drawOf(i), of)
		if len(addrs) == 0 {
			choice.Member = ""
		}
		got[choice.Member]++
	}
	return got
}

// backendsFor returns the labels of the backends a client is given, sorted by label.
func backendsFor(p *Plan, d Draw, of Family) []string {
	indices, _ := p.Backends(nil, d, of, 0)
	out := []string{}
	for _, at := range indices {
		out = append(out, p.service.Backends[at].Label())
	}
	slices.Sort(out)
	return out
}

// within checks a number of hits of n with probability p against so many standard deviations: 2.576 is the 99 % bound.
func within(t *testing.T, what string, hits, n int, p, sigmas float64) {
	t.Helper()
	deviation := sigmas * math.Sqrt(float64(n)*p*(1-p))
	if diff := float64(hits) - float64(n)*p; diff > deviation+0.5 || diff < -deviation-0.5 {
		t.Errorf("%s: %d of %d, want %.1f within %.1f", what, hits, n, float64(n)*p, deviation)
	}
}
