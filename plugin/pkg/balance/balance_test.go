package balance

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// export is one cluster's part of a service: its cluster IPs, and whether its one endpoint is ready.
type export struct {
	ips   []netip.Addr
	ready bool
}

var clusters = []topology.ClusterID{"east", "north", "west"}

// service merges exports through the production constructors.
func service(exports map[topology.ClusterID]export) *mcs.Service {
	var scope mcs.Scope
	for _, id := range clusters {
		scope.Members = append(scope.Members, mcs.Member{ID: id})
	}
	x := mcs.NewIndex(scope)
	for id, e := range exports {
		endpoint := mcs.Endpoint{Addr: netip.MustParseAddr("10.8.0.1"), Label: "x"}
		if e.ready {
			endpoint.Conditions = mcs.Ready
		}
		s := &mcs.Shard{Service: &mcs.ServiceSpec{}, Slices: []*mcs.Slice{{Endpoints: []mcs.Endpoint{endpoint}}}}
		copy(s.Service.ClusterIPs[:], e.ips)
		x.Apply(id, mcs.ServiceKey{Namespace: "shop", Name: "web"}, s)
	}
	snapshot, _ := x.Publish(1)
	return snapshot.Service("shop", "web")
}

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		name       string
		exports    map[topology.ClusterID]export
		one, all   []netip.Addr // IPv4
		one6, all6 []netip.Addr
	}{
		{"one is the lowest cluster id, all are sorted by address", map[topology.ClusterID]export{
			"east": {addrs("10.9.0.1"), true}, "west": {addrs("10.1.0.1"), true},
		}, addrs("10.9.0.1"), addrs("10.1.0.1", "10.9.0.1"), nil, nil},
		{"a member without a ready endpoint takes no part", map[topology.ClusterID]export{
			"east": {addrs("10.0.0.1"), false}, "west": {addrs("10.1.0.1"), true},
		}, addrs("10.1.0.1"), addrs("10.1.0.1"), nil, nil},
		{"none is ready: all take part", map[topology.ClusterID]export{
			"east": {addrs("10.0.0.1"), false}, "west": {addrs("10.1.0.1"), false},
		}, addrs("10.0.0.1"), addrs("10.0.0.1", "10.1.0.1"), nil, nil},
		{"one address at two members is one address", map[topology.ClusterID]export{
			"east": {addrs("10.0.0.1"), true}, "west": {addrs("10.0.0.1"), true},
		}, addrs("10.0.0.1"), addrs("10.0.0.1"), nil, nil},
		{"the first member lacks the family: the next one answers", map[topology.ClusterID]export{
			"east": {addrs("fd00::1"), true}, "west": {addrs("10.1.0.1", "fd00::2"), true},
		}, addrs("10.1.0.1"), addrs("10.1.0.1"), addrs("fd00::1"), addrs("fd00::1", "fd00::2")},
		{"both families of the first member", map[topology.ClusterID]export{
			"east": {addrs("10.0.0.1", "fd00::1"), true}, "west": {addrs("10.1.0.1", "fd00::2"), true},
		}, addrs("10.0.0.1"), addrs("10.0.0.1", "10.1.0.1"), addrs("fd00::1"), addrs("fd00::1", "fd00::2")},
		{"a ready member without an address leaves the others that are ready", map[topology.ClusterID]export{
			"east": {nil, true}, "north": {addrs("10.2.0.1"), false}, "west": {addrs("10.1.0.1"), true},
		}, addrs("10.1.0.1"), addrs("10.1.0.1"), nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := service(tc.exports)
			before := addrs("255.0.0.1", "0.0.0.1") // must stay, in place and order
			for _, q := range []struct {
				name   string
				answer Answer
				of     Family
				want   []netip.Addr
			}{
				{"one, IPv4", One, IPv4, tc.one}, {"all, IPv4", All, IPv4, tc.all},
				{"one, IPv6", One, IPv6, tc.one6}, {"all, IPv6", All, IPv6, tc.all6},
			} {
				got := Policy{Answer: q.answer}.Addresses(slices.Clone(before), s, q.of)
				if want := append(slices.Clone(before), q.want...); !slices.Equal(got, want) {
					t.Errorf("%s: got %v, want %v", q.name, got, want)
				}
			}
		})
	}
}

func TestAllBackends(t *testing.T) {
	s := &mcs.Service{Backends: []mcs.Backend{{Label: "a"}, {Label: "b"}}}
	if got := (Policy{}).Backends(s); len(got) != 2 {
		t.Errorf("Got %v, want all", got)
	}
}
