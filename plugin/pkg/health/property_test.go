package health

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestTenChangesOfTheDataPathInAMinuteCauseAtMostThreeChangesOfState(t *testing.T) {
	kinds := map[string]path{"refuses": refused, "hangs": hanging}
	for name, bad := range kinds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(60) {
				c := defaults()
				c.Seed = seed
				c.Fall = 1 + int(seed%3)
				c.Rise = 1 + int(seed%2)
				s := simulate(c, beside(flapping(100*sec+time.Duration(seed)*100*ms, 6*sec, bad)))
				s.run(t, 20*time.Minute)
				checkChanges(t, s, "a")
			}
		})
	}
}

// checkChanges fails if a member changes its state more than three times in a minute, comes back before its hold-down,
// or loses a part of its weight while it is back.
func checkChanges(t *testing.T, s *simulation, id topology.ClusterID) {
	t.Helper()
	changes := s.changes(id)
	for i, c := range changes {
		if i >= 3 && c.at-changes[i-3].at <= time.Minute {
			t.Errorf("Cluster %s: expected at most three changes in a minute, got %v", id, changes[i-3:i+1])
		}
		if c.state == Healthy && c.at-changes[i-1].at < holdDown {
			t.Errorf("Cluster %s: expected to stay down for 30 s at least, got %v", id, changes[i-1:i+1])
		}
	}
	previous := Status{State: Excluded}
	for _, m := range s.moments {
		got := m.snapshot.Status(id)
		if got.State == Healthy && previous.State == Healthy && got.Factor < previous.Factor {
			t.Errorf("Cluster %s at %v: expected the factor not to sink, got %v after %v", id, m.at, got.Factor, previous.Factor)
		}
		if f := got.Weight(); f < 0.1 || f > 1 {
			t.Errorf("Cluster %s at %v: expected a factor in [0.1, 1], got %v", id, m.at, f)
		}
		previous = got
	}
}

// randomPath is good or bad in turn, for times from a fraction of a second to many minutes.
func randomPath(r *rand.Rand) path {
	p := path(good)
	if r.IntN(4) == 0 {
		p = refused
	}
	at := time.Duration(0)
	for range 1 + r.IntN(60) {
		at += time.Duration(float64(100*ms) * float64(uint64(1)<<r.IntN(14)) * (1 + r.Float64()))
		next := []path{good, refused, hanging}[r.IntN(3)]
		p = p.then(at, next)
	}
	return p
}

// Whatever probes find, the rules hold.
func FuzzTracker(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(seed*7), uint8(seed*5))
	}
	f.Fuzz(func(t *testing.T, seed uint64, shape, thresholds uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := Config{
			Interval: time.Duration(1+r.IntN(10)) * sec,
			Fall:     1 + int(thresholds%5),
			Rise:     1 + int(thresholds/5%4),
			Seed:     seed,
		}
		c.Timeout = min(c.Interval, DefaultTimeout)
		ids := []topology.ClusterID{"a", "b", "c", "d", "e"}[:1+shape%5]
		if shape&8 != 0 {
			c.Local = "a"
		}
		if shape&16 != 0 {
			c.Drained = []topology.ClusterID{"b"}
		}
		together := randomPath(r)
		ps := paths{}
		for _, id := range ids {
			own := randomPath(r)
			ps[id] = own
			if shape&32 != 0 { // often all fail at once
				ps[id] = together.then(time.Duration(r.IntN(1200))*sec, own)
			}
		}
		s := simulate(c, ps)
		s.run(t, 30*time.Minute)
		for _, id := range ids {
			checkChanges(t, s, id)
		}
		checkNotKept(t, c, s)
		for _, span := range frozenSpans(s) {
			if span > 5*time.Minute {
				t.Errorf("Expected to be frozen for five minutes at most, got %v", span)
			}
		}
		checkProbes(t, c, s)
	})
}

// checkNotKept fails if a member is healthy that was not reached for longer than the guard can hold: what it takes to
// notice, twice as all must have begun to fail within one window, and five minutes.
func checkNotKept(t *testing.T, c Config, s *simulation) {
	t.Helper()
	reached := map[topology.ClusterID]time.Duration{}
	probes := s.probes
	for i, m := range s.moments {
		for ; len(probes) > 0 && probes[0].to <= m.at; probes = probes[1:] {
			if probes[0].ok {
				reached[probes[0].id] = probes[0].to
			}
		}
		end := s.now
		if i+1 < len(s.moments) {
			end = s.moments[i+1].at
		}
		for id := range s.paths {
			if m.snapshot.Status(id).State == Healthy && len(probes) > 0 && end-reached[id] > 5*time.Minute+2*c.Bound() && !succeeds(probes, id, end) {
				t.Errorf("Expected cluster %s not to be kept until %v, it was last reached at %v", id, end, reached[id])
			}
		}
	}
}

// succeeds reports whether one of the probes of a member does, until a time.
func succeeds(probes []probe, id topology.ClusterID, until time.Duration) bool {
	return slices.ContainsFunc(probes, func(p probe) bool { return p.id == id && p.ok && p.to <= until })
}

// checkProbes fails if a member is probed twice at once, or more often than the edge interval allows, or not often
// enough.
func checkProbes(t *testing.T, c Config, s *simulation) {
	t.Helper()
	last := map[topology.ClusterID]probe{}
	for _, p := range s.probes {
		before, seen := last[p.id]
		last[p.id] = p
		if !seen {
			continue
		}
		if p.from < before.to {
			t.Errorf("Expected one probe of %s at a time, got %v and %v", p.id, before, p)
		}
		if gap := p.from - before.from; gap > c.Interval*11/10+c.Timeout+c.edge() {
			t.Errorf("Expected %s to be probed each interval, got %v and %v", p.id, before, p)
		}
		if !before.ok && p.from-before.to < c.edge() {
			t.Errorf("Expected a pause after a failed probe of %s, got %v and %v", p.id, before, p)
		}
	}
	for id := range s.paths {
		if _, seen := last[id]; !seen {
			t.Errorf("Expected %s to be probed", id)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := simulate(defaults(), beside(good))
	now := s.epoch
	for b.Loop() {
		s.Snapshot(now)
	}
}
