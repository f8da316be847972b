package health

import (
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// When everything fails at once, the fault is more likely on the prober's side (Lifeguard's lesson: suspect yourself
// first), and taking everything out of the answers helps nobody. So while that is suspected, no member falls, for
// maxHeld at most. It is suspected in two cases:
//
//   - The probe of the local member, whose way is the shortest, fails, and no other probe that began since has succeeded.
//     One success is enough to know that it is the local member that has failed and not the prober.
//   - The probes of all remote members fail, and there are at least two of them.
//
// Members count whose failures began within one window, a detection time and at most maxWindow: a member that has long
// been down says nothing about what happens now. So do only members that were up; drained ones may fail as they like.
const (
	maxHeld   = 5 * time.Minute
	maxWindow = 60 * time.Second
)

// Frozen reports whether the guard holds members back, and since when.
func (t *Tracker) Frozen(now time.Time) (since time.Time, frozen bool) {
	return t.held, !t.held.IsZero() && now.Sub(t.held) < maxHeld
}

// guard keeps the time of the guard and reports whether members that should fall must not.
func (t *Tracker) guard(falling bool, now time.Time) bool {
	switch {
	case !t.suspicious():
		t.held = time.Time{}
	case falling && t.held.IsZero():
		t.held = now
	}
	_, frozen := t.Frozen(now)
	return frozen
}

func (t *Tracker) suspicious() bool {
	newest := t.newestFailure()
	remotes, failing, reached := 0, 0, false
	local := t.members[t.config.Local]
	for _, id := range t.ids {
		m := t.members[id]
		if m == local || !t.counts(id, m, newest) {
			continue
		}
		remotes++
		if m.fails > 0 {
			failing++
		}
		if local != nil && m.fails == 0 && !m.good.Before(local.failing) {
			reached = true
		}
	}
	if remotes >= 2 && failing == remotes {
		return true
	}
	return remotes > 0 && !reached && local != nil && local.fails > 0 && t.counts(t.config.Local, local, newest)
}

// counts reports whether a member says something about the prober: one that succeeds always does, one that fails only
// if it began to within one window of the newest failure.
func (t *Tracker) counts(id topology.ClusterID, m *member, newest time.Time) bool {
	if m.level == unknown || m.fails == 0 {
		return m.level != unknown
	}
	return !t.drained[id] && (m.level == up || newest.Sub(m.failing) <= t.window())
}

func (t *Tracker) window() time.Duration { return min(maxWindow, t.config.Bound()) }

// newestFailure is when a member that is up began to fail, the last of them; zero if none does.
func (t *Tracker) newestFailure() time.Time {
	var newest time.Time
	for id, m := range t.members {
		if m.level == up && m.fails > 0 && !t.drained[id] && m.failing.After(newest) {
			newest = m.failing
		}
	}
	return newest
}
