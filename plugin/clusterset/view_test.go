package clusterset

import (
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestNeighboursInAnotherBlockOnlyAreAMistake(t *testing.T) {
	for _, tc := range []struct {
		name, stands string
		wants        string
	}{
		{"neither plugin stands anywhere", "", ""},
		{"locality stands in another block", "locality", "plugin locality stands in another server block"},
		{"clusterhealth stands in another block", "clusterhealth", "plugin clusterhealth stands in another server block"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &Clusterset{}
			err := c.findNeighbours(&dnsserver.Config{}, func(name string) bool { return name == tc.stands })
			if (err == nil) != (tc.wants == "") || err != nil && !strings.Contains(err.Error(), tc.wants) {
				t.Errorf("The error is %v, want %q", err, tc.wants)
			}
		})
	}
}

func TestView(t *testing.T) {
	seven := 7
	c := &Clusterset{config: config{local: "east", policy: &balance.Policy{}, members: []member{
		{Member: mcs.Member{ID: "east"}, region: "eu"},
		{Member: mcs.Member{ID: "west"}, weight: &seven},
	}}}
	probed := func(state health.State) *health.Snapshot {
		return health.NewSnapshot(map[topology.ClusterID]health.Status{"west": {State: state, Probed: true}})
	}
	stale := func(id topology.ClusterID) *condition {
		return &condition{stale: map[topology.ClusterID]bool{id: true}}
	}
	for _, tc := range []struct {
		name   string
		health *health.Snapshot
		now    *condition
		member topology.ClusterID
		want   health.State
	}{
		{"nothing is known: healthy", nil, nil, "west", health.Healthy},
		{"a stale member that nobody probes is degraded", nil, stale("west"), "west", health.Degraded},
		{"a stale member whose probe is good stays healthy", probed(health.Healthy), stale("west"), "west", health.Healthy},
		{"a stale member whose probe fails is unhealthy", probed(health.Unhealthy), stale("west"), "west", health.Unhealthy},
		{"the local member is never degraded by its API", nil, stale("east"), "east", health.Healthy},
		{"a member that drains itself is out, however well it is", probed(health.Healthy),
			&condition{drained: map[topology.ClusterID]bool{"west": true}}, "west", health.Excluded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := c.makeView(c.members, tc.health, tc.now)
			if got := view.Health.Status(tc.member).State; got != tc.want {
				t.Errorf("%s is %s, want %s", tc.member, got, tc.want)
			}
		})
	}
	t.Run("regions are written or from Nodes, weights only written", func(t *testing.T) {
		view := c.makeView(c.members, nil, &condition{regions: map[topology.ClusterID]string{"east": "ignored", "west": "us"}})
		if view.Regions["east"] != "eu" || view.Regions["west"] != "us" {
			t.Errorf("Regions are %v", view.Regions)
		}
		if _, written := view.Weights["east"]; written || view.Weights["west"] != 7 {
			t.Errorf("Weights are %v", view.Weights)
		}
	})
}
