package health

import (
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// edgeInterval is the pause between probes while a change of state is pending.
const edgeInterval = time.Second

func (c Config) edge() time.Duration { return min(edgeInterval, c.Interval) }

// Next returns when Begin has something to start or Advance something to change, zero if it only waits for results or
// has no members.
func (t *Tracker) Next(now time.Time) time.Time {
	var next time.Time
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	suspected := t.newestFailure()
	for id, m := range t.members {
		if !m.inFlight {
			sooner(t.dueAt(m, suspected))
		}
		if m.level == up && !t.drained[id] && t.factor(m, now) < 1 {
			sooner(t.epoch.Add(now.Sub(t.epoch).Truncate(time.Second) + time.Second))
		}
	}
	if since, frozen := t.Frozen(now); frozen {
		sooner(since.Add(maxHeld))
	}
	return next
}

// dueAt is when a member is to be probed: as planned, or at the edge interval if another began to fail since its last
// probe, so that it is known in time whether all fail.
func (t *Tracker) dueAt(m *member, suspected time.Time) time.Time {
	if at := m.started.Add(t.config.edge()); m.oks > 0 && m.started.Before(suspected) && at.Before(m.due) {
		return at
	}
	return m.due
}

// nextProbe is when the next probe of a member starts, now that one has ended.
func (t *Tracker) nextProbe(id topology.ClusterID, m *member, now time.Time) time.Time {
	if t.pending(m) {
		return now.Add(t.config.edge())
	}
	next, earliest := m.started.Add(t.delay(id, m)), now
	if held := m.heldUntil; m.level == down && m.oks >= t.config.Rise && held.Before(next) {
		next = held // so that it is not held down any longer
	}
	if m.fails > 0 {
		earliest = now.Add(t.config.edge()) // where the timeout is about the interval
	}
	if next.Before(earliest) {
		return earliest
	}
	return next
}

// pending reports whether a few more results like the last would change the state.
func (t *Tracker) pending(m *member) bool {
	switch m.level {
	case down:
		return m.oks > 0 && m.oks < t.config.Rise
	default:
		return m.fails > 0
	}
}

// firstDelay spreads the first probes over one edge interval, so that the first round is soon over.
func (t *Tracker) firstDelay(id topology.ClusterID) time.Duration {
	return time.Duration(t.jitter(id, 0) * float64(t.config.edge()))
}

// delay is the interval with its jitter. After the first probe it is anything up to the interval: probers that were
// started together must not stay together.
func (t *Tracker) delay(id topology.ClusterID, m *member) time.Duration {
	u, interval := t.jitter(id, m.probes), float64(t.config.Interval)
	if m.probes == 1 {
		edge := float64(t.config.edge())
		return time.Duration(edge + u*(interval-edge))
	}
	return time.Duration(interval * (0.9 + 0.2*u))
}

// jitter returns a number in [0, 1) that depends on the seed, the member and the number of its probe: FNV-1a over the
// name, finished by the mix of SplitMix64.
func (t *Tracker) jitter(id topology.ClusterID, n uint64) float64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h += t.config.Seed + n*0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return float64(h>>11) / (1 << 53)
}
