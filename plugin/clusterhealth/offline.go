package clusterhealth

import (
	"github.com/coredns/caddy"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/corefile"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Supposed are states of members that nobody has probed.
type Supposed struct{ now *health.Snapshot }

// NewOffline takes for granted that every member is in the state that is supposed, else healthy, but for those that the stanza
// drains, whose tokens the controller has; nil for no stanza. Nobody is probed.
func NewOffline(c *caddy.Controller, supposed map[topology.ClusterID]health.State) (*Supposed, error) {
	statuses := map[topology.ClusterID]health.Status{}
	for id, state := range supposed {
		statuses[id] = health.Status{State: state, Probed: true, Reason: "supposed"}
	}
	if c == nil {
		return &Supposed{health.NewSnapshot(statuses)}, nil
	}
	corefile.SetOffline(c)
	config, err := parse(c)
	if err != nil {
		return nil, err
	}
	for _, p := range config.probes {
		if _, there := statuses[p.cluster]; !there {
			statuses[p.cluster] = health.Status{Probed: true, Reason: health.ReasonGood}
		}
	}
	for _, id := range config.drained {
		statuses[id] = health.Status{State: health.Excluded, Reason: health.ReasonDrained}
	}
	return &Supposed{health.NewSnapshot(statuses)}, nil
}

// Health tells the states.
func (s *Supposed) Health() *health.Snapshot { return s.now }
