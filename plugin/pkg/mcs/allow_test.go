package mcs

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// TestWhatAMemberMayExport gives west.eu restrictions and looks at what is left of it.
func TestWhatAMemberMayExport(t *testing.T) {
	pods, services := netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")
	v6 := netip.MustParsePrefix("fd00:8::/64")
	shard := func() *Shard {
		return clusterIP(1, "10.96.0.1", http80).over(sliceOf("s", []Port{http80}, ready("10.8.0.1"), ready("192.0.2.1")))
	}
	for _, row := range []struct {
		name    string
		member  Member
		shard   *Shard
		addrs   []netip.Addr
		reasons []UnusableReason
	}{
		{"without restrictions anything", Member{}, shard(), addrs("10.96.0.1"), nil},
		{"a cluster IP within the ranges is answered", Member{Allow: []netip.Prefix{v6, services}}, shard(), addrs("10.96.0.1"), nil},
		{"one outside of them is not", Member{Allow: []netip.Prefix{pods}}, shard(), nil, []UnusableReason{NotAllowed}},
		{"the ranges say nothing about endpoints that are not answered", Member{Allow: []netip.Prefix{services}}, shard(), addrs("10.96.0.1"), nil},
		{"of endpoints those within the ranges are answered", Member{Address: AddressEndpoints, Allow: []netip.Prefix{pods}}, shard(),
			addrs("10.8.0.1"), []UnusableReason{NotAllowed}},
		{"load balancers too", Member{Address: AddressLoadBalancer, Allow: []netip.Prefix{pods}},
			shard().but(func(s *Shard) { s.Service.LoadBalancer = &LoadBalancer{Addrs: addrs("192.0.2.7")} }), nil, []UnusableReason{NotAllowed}},
		{"and what their names resolve to", Member{Address: AddressLoadBalancer, Allow: []netip.Prefix{pods}},
			shard().but(func(s *Shard) { s.Service.LoadBalancer = &LoadBalancer{Hosts: []string{"lb.example.org"}} }), addrs("10.8.0.9"), []UnusableReason{NotAllowed}},
		{"a gateway is not the member's word", Member{Address: AddressFixed, Gateway: addrs("192.0.2.9"), Allow: []netip.Prefix{pods}}, shard(), addrs("192.0.2.9"), nil},
		{"of a headless service the endpoints within the ranges are answered", Member{Allow: []netip.Prefix{pods}},
			headless(1, sliceOf("s", []Port{http80}, ready("10.8.0.1"), ready("192.0.2.1"), unready("192.0.2.2"))), addrs("10.8.0.1"), []UnusableReason{NotAllowed}},
		{"a namespace that it may export from counts", Member{Namespaces: []string{"other", "shop"}}, shard(), addrs("10.96.0.1"), nil},
		{"one that it may not is as if there were no export", Member{Namespaces: []string{"other"}}, shard(), nil, []UnusableReason{ForeignNamespace}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.member.ID = "west.eu"
			env := around{local: "east", hosts: map[string][]netip.Addr{"lb.example.org": addrs("10.8.0.9", "192.0.2.9")}}
			s, report := merge(web, []exported{{&row.member, row.shard}}, nil, env)
			var got []netip.Addr
			if s != nil {
				got = s.Members[0].Addrs
				for i := range s.Backends {
					got = s.Backends[i].AppendAddrs(got)
				}
				if s.Type == Headless && (s.Members[0].Ready != 1 || len(s.Unready()) != 0) {
					t.Errorf("What must not be said is counted: %+v, %+v", s.Members[0], s.Unready())
				}
			}
			if !slices.Equal(got, row.addrs) {
				t.Errorf("Answers %v, want %v", got, row.addrs)
			}
			var reasons []UnusableReason
			for _, u := range report.Unusable {
				if u.Cluster != topology.ClusterID("west.eu") {
					t.Errorf("Reported of %s", u.Cluster)
				}
				reasons = append(reasons, u.Reason)
			}
			if !slices.Equal(reasons, row.reasons) {
				t.Errorf("Reasons are %v, want %v", reasons, row.reasons)
			}
		})
	}
}

func TestAnExportFromAForeignNamespaceWinsNoConflict(t *testing.T) {
	intruder, owner := Member{ID: "a", Namespaces: []string{"other"}}, Member{ID: "b"}
	s, report := merge(web, []exported{{&intruder, headless(1, sliceOf("s", nil, ready("10.8.0.1")))}, {&owner, clusterIP(2, "10.96.0.1", http80)}}, nil, around{})
	if s == nil || s.Type != ClusterSetIP || len(s.Members) != 1 || s.Members[0].Cluster != "b" || report.Conflicts != 0 {
		t.Errorf("Merged %+v, report %+v", s, report)
	}
}
