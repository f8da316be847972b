package balance

import (
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestWhereThereIsNoChoiceNothingIsDrawn(t *testing.T) {
	east, west := plain("east", "eu", 3), plain("west", "us", 3)
	half := east.with(func(m *member) { m.ready, m.total = 3, 6 })
	pairs := []member{{id: "east", endpoints: pods("east", 2, "", "")}, {id: "west", endpoints: pods("west", 2, "", "")}}
	near := topology.Locality{Cluster: "east", Region: "eu"}
	for _, tc := range []struct {
		name   string
		policy Policy
		traits mcs.Traits
		all    []member
		most   int
		want   bool
		member topology.ClusterID
	}{
		{"one member", Policy{}, clusterSetIP, []member{east}, 0, true, "east"},
		{"the nearest is well", Policy{}, clusterSetIP, []member{east, west}, 0, true, "east"},
		{"the nearest is half well", Policy{}, clusterSetIP, []member{half, west}, 0, false, ""},
		{"two are as near", Policy{Prefer: ByLabels}, clusterSetIP, []member{east, west}, 0, false, ""},
		{"two are as near, and all answer", Policy{Prefer: ByLabels, Answer: All}, clusterSetIP, []member{east, west}, 0, true, ""},
		{"nobody", Policy{}, headless, []member{{id: "east"}}, 0, false, ""},
		{"all hosts of a headless service", Policy{}, headless, pairs, 0, true, ""},
		{"as many as there is room for", Policy{}, headless, pairs, 4, true, ""},
		{"more than there is room for", Policy{}, headless, pairs, 3, false, ""},
		{"more than may be", Policy{MaxAnswers: 3}, headless, pairs, 0, false, ""},
		{"just as many as may be", Policy{MaxAnswers: 4}, headless, pairs, 0, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, v := merged(tc.traits, tc.all...)
			got, is := tc.policy.Plan(s, v, near).Sole(IPv4, tc.most)
			if is != tc.want || got.Member != tc.member {
				t.Errorf("Got %+v, %v, want %v of %q", got, is, tc.want, tc.member)
			}
		})
	}
}
