package health

import (
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

const (
	sec = time.Second
	ms  = time.Millisecond
)

// path is the data path to a member: what a probe that starts at a time since the beginning finds, and after how long.
type path func(at time.Duration) (ok bool, took time.Duration)

func good(time.Duration) (bool, time.Duration)    { return true, 20 * ms }
func refused(time.Duration) (bool, time.Duration) { return false, ms }
func hanging(time.Duration) (bool, time.Duration) { return false, DefaultTimeout }

// then goes on as another path from a time on.
func (p path) then(from time.Duration, q path) path {
	return func(at time.Duration) (bool, time.Duration) {
		if at < from {
			return p(at)
		}
		return q(at)
	}
}

// flapping changes between good and bad every period, from a time on.
func flapping(from, period time.Duration, bad path) path {
	return func(at time.Duration) (bool, time.Duration) {
		if at < from || (at-from)/period%2 == 1 {
			return good(at)
		}
		return bad(at)
	}
}

// moment is the state of all members between two events.
type moment struct {
	at       time.Duration
	snapshot *Snapshot
	frozen   bool
}

// probe is one that was made.
type probe struct {
	id       topology.ClusterID
	from, to time.Duration
	ok       bool
}

// simulation drives a Tracker through virtual time, as an exact prober would.
type simulation struct {
	*Tracker
	epoch   time.Time
	now     time.Duration
	paths   map[topology.ClusterID]path
	flying  []probe
	moments []moment
	probes  []probe
}

func defaults() Config {
	return Config{Interval: DefaultInterval, Timeout: DefaultTimeout, Fall: DefaultFall, Rise: DefaultRise}
}

func simulate(c Config, paths map[topology.ClusterID]path) *simulation {
	epoch := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var ids []topology.ClusterID
	for id := range paths {
		ids = append(ids, id)
	}
	s := &simulation{Tracker: NewTracker(c, ids, epoch), epoch: epoch, paths: paths}
	s.note()
	return s
}

func (s *simulation) note() {
	now := s.epoch.Add(s.now)
	m := moment{at: s.now, snapshot: s.Snapshot(now)}
	_, m.frozen = s.Frozen(now)
	if n := len(s.moments); n == 0 || s.moments[n-1].snapshot != m.snapshot || s.moments[n-1].frozen != m.frozen {
		s.moments = append(s.moments, m)
	}
}

// run goes on until a time since the beginning.
func (s *simulation) run(t *testing.T, until time.Duration) {
	t.Helper()
	for events := 0; ; events++ {
		if events > 1_000_000 {
			t.Fatalf("Expected time to pass, still at %v", s.now)
		}
		next, landing := until, -1
		if at := s.Next(s.epoch.Add(s.now)); !at.IsZero() {
			next = min(next, max(s.now, at.Sub(s.epoch)))
		}
		for i, p := range s.flying {
			if p.to <= next {
				next, landing = p.to, i
			}
		}
		s.now = next
		now := s.epoch.Add(next)
		if landing >= 0 {
			p := s.flying[landing]
			s.flying = append(s.flying[:landing], s.flying[landing+1:]...)
			s.probes = append(s.probes, p)
			s.Observe(p.id, p.ok, now)
		} else {
			s.Advance(now)
			for _, id := range s.Begin(now) {
				ok, took := s.paths[id](next)
				s.flying = append(s.flying, probe{id, next, next + took, ok})
			}
		}
		s.note()
		if next >= until {
			return
		}
	}
}

// change is one of a member's state.
type change struct {
	at    time.Duration
	state State
}

// changes lists those of a member, the first admission and what came before left out.
func (s *simulation) changes(id topology.ClusterID) []change {
	var out []change
	admitted := false
	last := Excluded
	for _, m := range s.moments {
		state := m.snapshot.Status(id).State
		if admitted && state != last {
			out = append(out, change{m.at, state})
		}
		admitted = admitted || state == Healthy
		last = state
	}
	return out
}

func (s *simulation) at(when time.Duration) moment {
	found := s.moments[0]
	for _, m := range s.moments {
		if m.at <= when {
			found = m
		}
	}
	return found
}
