// Package health holds what is known of how well member clusters serve, and the rules that turn probe results into it.
//
// It is pure: it opens no socket and reads no clock; times come in as arguments. It imports the standard library and
// package topology only.
package health

import (
	"iter"
	"maps"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// State is how a member counts when a client is given endpoints.
type State uint8

const (
	// Healthy members serve.
	Healthy State = iota
	// Degraded members serve when healthy ones cannot take all (Envoy's degraded hosts).
	Degraded
	// Unhealthy members serve only when nobody else can (fail open).
	Unhealthy
	// Excluded members take no part and do not count in totals: drained, or not probed yet.
	Excluded
)

// String returns the lower-case name, as used in metric labels.
func (s State) String() string { return [...]string{"healthy", "degraded", "unhealthy", "excluded"}[s] }

// States lists all states, for metrics that show each.
func States() []State { return []State{Healthy, Degraded, Unhealthy, Excluded} }

// The reasons that a Tracker gives. Others that make a Status add their own.
const (
	ReasonUnknown  = "not probed yet"
	ReasonGood     = "probes succeed"
	ReasonFailing  = "probes fail"
	ReasonHoldDown = "held down after it failed"
	ReasonSlow     = "slow start"
	ReasonFrozen   = "probes fail, held by the mass-failure guard"
	ReasonDrained  = "drained"
)

// Status is what is known of one member. Comparable.
type Status struct {
	State State
	// Factor scales the member's weight during slow start, in [0.1, 1]. The zero value counts as 1.
	Factor float64
	// Probed is true when a probe of the data path says so; otherwise the state follows from other signs.
	Probed bool
	// Reason says why, in a few words from a closed set.
	Reason string
}

// Weight returns the factor, 1 when none is set.
func (s Status) Weight() float64 {
	if s.Factor == 0 {
		return 1
	}
	return s.Factor
}

// Snapshot is an immutable view of all members. A nil Snapshot, and a member that it does not know, is neutral: healthy
// and not probed.
type Snapshot struct {
	members map[topology.ClusterID]Status
}

// All yields the members that are known and their statuses, in the order of their ids.
func (s *Snapshot) All() iter.Seq2[topology.ClusterID, Status] {
	return func(yield func(topology.ClusterID, Status) bool) {
		if s == nil {
			return
		}
		for _, id := range slices.Sorted(maps.Keys(s.members)) {
			if !yield(id, s.members[id]) {
				return
			}
		}
	}
}

// NewSnapshot copies the given statuses.
func NewSnapshot(members map[topology.ClusterID]Status) *Snapshot {
	return &Snapshot{members: maps.Clone(members)}
}

// Status returns what is known of a member.
func (s *Snapshot) Status(id topology.ClusterID) Status {
	if s == nil {
		return Status{}
	}
	return s.members[id]
}
