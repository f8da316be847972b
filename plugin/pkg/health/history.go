package health

import (
	"maps"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Change is that a member's state, or the reason for it, has become another one.
type Change struct {
	At     time.Time
	State  State
	Reason string
}

// HistoryLength is how many changes of a member are kept.
const HistoryLength = 20

// History are the last changes of each member, the newest first. It is never changed; nil is empty.
type History map[topology.ClusterID][]Change

// With returns a history with one more change of a member.
func (h History) With(id topology.ClusterID, c Change) History {
	next := maps.Clone(h)
	if next == nil {
		next = History{}
	}
	next[id] = slices.Concat([]Change{c}, h[id][:min(len(h[id]), HistoryLength-1)])
	return next
}

// Without returns a history without a member.
func (h History) Without(id topology.ClusterID) History {
	next := maps.Clone(h)
	delete(next, id)
	return next
}

// Join returns the changes of a member in two histories, the newest first.
func Join(a, b []Change) []Change {
	out := slices.Concat(a, b)
	slices.SortStableFunc(out, func(a, b Change) int { return b.At.Compare(a.At) })
	return out[:min(len(out), HistoryLength)]
}
