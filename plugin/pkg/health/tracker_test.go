package health

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

type paths = map[topology.ClusterID]path

// expect is the state of a member at a time.
type expect struct {
	at     time.Duration
	id     topology.ClusterID
	state  State
	reason string
}

// Members that answer beside the one in question, so that the guard stays out of it.
func beside(p path) paths { return paths{"a": p, "b": good, "c": good} }

func TestTrackerStates(t *testing.T) {
	const bound = 14500 * ms
	tests := []struct {
		name   string
		config func(*Config)
		paths  paths
		expect []expect
	}{
		{
			name:  "a member is excluded before its first probe and healthy after one success",
			paths: beside(good),
			expect: []expect{
				{0, "a", Excluded, ReasonUnknown},
				{1100 * ms, "a", Healthy, ReasonGood},
			},
		},
		{
			name:  "a member is excluded while its first probe hangs",
			paths: beside(hanging),
			expect: []expect{
				{1900 * ms, "a", Excluded, ReasonUnknown},
				{5 * sec, "a", Excluded, ReasonUnknown},
				{10 * sec, "a", Unhealthy, ReasonFailing},
			},
		},
		{
			name:  "two failures at start delay the admission and leave no trace",
			paths: beside(path(refused).then(1800*ms, good)),
			expect: []expect{
				{1700 * ms, "a", Excluded, ReasonUnknown},
				{4 * sec, "a", Healthy, ReasonGood},
			},
		},
		{
			name:  "a member that was never up needs two successes but no hold-down",
			paths: beside(path(refused).then(20*sec, good)),
			expect: []expect{
				{19 * sec, "a", Unhealthy, ReasonFailing},
				{27 * sec, "a", Healthy, ReasonSlow},
			},
		},
		{
			name:  "a hanging data path takes the member out within the bound",
			paths: beside(path(good).then(60*sec, hanging)),
			expect: []expect{
				{66 * sec, "a", Healthy, ReasonGood},
				{60*sec + bound, "a", Unhealthy, ReasonFailing},
			},
		},
		{
			name:  "a refusing data path takes the member out sooner",
			paths: beside(path(good).then(60*sec, refused)),
			expect: []expect{
				{61900 * ms, "a", Healthy, ReasonGood},
				{68 * sec, "a", Unhealthy, ReasonFailing},
			},
		},
		{
			name:  "two failures are not enough",
			paths: beside(path(good).then(60*sec, refused).then(61500*ms, good)),
			expect: []expect{
				{62 * sec, "a", Healthy, ReasonGood},
				{70 * sec, "a", Healthy, ReasonGood},
			},
		},
		{
			name:   "one failure is enough where the Corefile says so",
			config: func(c *Config) { c.Fall = 1 },
			paths:  beside(path(good).then(60*sec, hanging)),
			expect: []expect{{60*sec + 5500*ms + 2*sec, "a", Unhealthy, ReasonFailing}},
		},
		{
			name:  "a member that comes back at once is held down for 30 seconds",
			paths: beside(path(good).then(60*sec, refused).then(70*sec, good)),
			expect: []expect{
				{80 * sec, "a", Unhealthy, ReasonHoldDown},
				{91 * sec, "a", Unhealthy, ReasonHoldDown},
				{99 * sec, "a", Healthy, ReasonSlow},
			},
		},
		{
			name:  "a member that was away for long comes back after two successes, slowly",
			paths: beside(path(good).then(60*sec, refused).then(600*sec, good)),
			expect: []expect{
				{599 * sec, "a", Unhealthy, ReasonFailing},
				{607 * sec, "a", Healthy, ReasonSlow},
				{668 * sec, "a", Healthy, ReasonGood},
			},
		},
		{
			name:  "the second failure soon after is held down twice as long",
			paths: beside(path(good).then(60*sec, refused).then(70*sec, good).then(105*sec, refused).then(120*sec, good)),
			expect: []expect{
				{100 * sec, "a", Healthy, ReasonSlow},
				{150 * sec, "a", Unhealthy, ReasonHoldDown},
				{165 * sec, "a", Unhealthy, ReasonHoldDown},
				{175 * sec, "a", Healthy, ReasonSlow},
			},
		},
		{
			name:  "a failure after a clean time is held down no longer than the first",
			paths: beside(path(good).then(60*sec, refused).then(70*sec, good).then(140*sec, refused).then(150*sec, good)),
			expect: []expect{
				{160 * sec, "a", Unhealthy, ReasonHoldDown},
				{179 * sec, "a", Healthy, ReasonSlow},
			},
		},
		{
			name:   "a drained member is excluded whatever its probes say",
			config: func(c *Config) { c.Drained = []topology.ClusterID{"a"} },
			paths:  beside(good),
			expect: []expect{{0, "a", Excluded, ReasonDrained}, {30 * sec, "a", Excluded, ReasonDrained}},
		},
		{
			name:   "a drained member that nobody probes is excluded",
			config: func(c *Config) { c.Drained = []topology.ClusterID{"z"} },
			paths:  beside(good),
			expect: []expect{{0, "z", Excluded, ReasonDrained}, {30 * sec, "z", Excluded, ReasonDrained}, {30 * sec, "a", Healthy, ReasonGood}},
		},
		{
			name:   "a member that nobody probes is neutral",
			paths:  beside(good),
			expect: []expect{{30 * sec, "z", Healthy, ""}},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := defaults()
			if tc.config != nil {
				tc.config(&c)
			}
			for seed := range uint64(20) {
				c.Seed = seed
				s := simulate(c, tc.paths)
				s.run(t, 700*sec)
				for _, e := range tc.expect {
					got := s.at(e.at).snapshot.Status(e.id)
					if got.State != e.state || got.Reason != e.reason {
						t.Errorf("Seed %d, cluster %s at %v: expected %v (%s), got %v (%s)", seed, e.id, e.at, e.state, e.reason, got.State, got.Reason)
					}
				}
			}
		})
	}
}

func TestGuard(t *testing.T) {
	type held struct{ from, to time.Duration } // how long it may hold, at the earliest and latest; zero: not at all
	none := held{}
	both := held{5 * time.Minute, 5 * time.Minute}
	tests := []struct {
		name  string
		local topology.ClusterID
		paths paths
		held  held
		down  []topology.ClusterID // at 200 s
	}{
		{
			name:  "all remote members fail at once",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused), "c": path(good).then(100*sec, refused)},
			held:  both,
		},
		{
			name:  "all remote members hang at once",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, hanging), "c": path(good).then(100*sec, hanging)},
			held:  both,
		},
		{
			name:  "all members fail at once and nobody knows which is local",
			paths: paths{"a": path(good).then(100*sec, refused), "b": path(good).then(100*sec, refused), "c": path(good).then(100*sec, refused)},
			held:  both,
		},
		{
			name:  "the local member and all others fail at once",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused), "b": path(good).then(100*sec, hanging), "c": path(good).then(100*sec, refused)},
			held:  both,
		},
		{
			name:  "the local member and the only other fail at once",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused), "b": path(good).then(100*sec, refused)},
			held:  both,
		},
		{
			name:  "the local member is not probed and all others fail at once",
			local: "x",
			paths: paths{"b": path(good).then(100*sec, refused), "c": path(good).then(100*sec, refused)},
			held:  both,
		},
		{
			name:  "the guard lets go when one is reached again",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused), "c": path(good).then(100*sec, refused).then(160*sec, good)},
			held:  held{45 * sec, 60 * sec},
			down:  []topology.ClusterID{"b"},
		},
		{
			name:  "the local member alone fails: others are reached, so it is not the prober",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused), "b": good, "c": good},
			held:  none,
			down:  []topology.ClusterID{"a"},
		},
		{
			name:  "the local member and one other fail: a third is reached",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused), "b": path(good).then(100*sec, refused), "c": good},
			held:  none,
			down:  []topology.ClusterID{"a", "b"},
		},
		{
			name:  "the only remote member fails",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused)},
			held:  none,
			down:  []topology.ClusterID{"b"},
		},
		{
			name:  "the only probed member fails",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused)},
			held:  none,
			down:  []topology.ClusterID{"a"},
		},
		{
			name:  "one of two remote members fails",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused), "c": good},
			held:  none,
			down:  []topology.ClusterID{"b"},
		},
		{
			name:  "the second remote member fails within the window of the first, which is already down",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused), "c": path(good).then(108*sec, refused)},
			held:  both,
			down:  []topology.ClusterID{"b"},
		},
		{
			name:  "the second remote member fails long after the first",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused), "c": path(good).then(160*sec, refused)},
			held:  none,
			down:  []topology.ClusterID{"b", "c"},
		},
		{
			name:  "all others fail at once while one has long been down",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(30*sec, refused), "c": path(good).then(100*sec, refused), "d": path(good).then(100*sec, refused)},
			held:  both,
			down:  []topology.ClusterID{"b"},
		},
		{
			name:  "the local member fails after all others have long been down",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused), "b": path(good).then(30*sec, refused)},
			held:  none,
			down:  []topology.ClusterID{"a", "b"},
		},
		{
			name:  "members that were never up are no evidence",
			local: "a",
			paths: paths{"a": good, "b": refused, "c": refused, "d": path(good).then(100*sec, refused)},
			held:  none,
			down:  []topology.ClusterID{"b", "c", "d"},
		},
		{
			name:  "a drained member that fails is no evidence",
			local: "a",
			paths: paths{"a": good, "b": path(good).then(100*sec, refused), "drained": path(good).then(100*sec, refused)},
			held:  none,
			down:  []topology.ClusterID{"b"},
		},
		{
			name:  "a drained member that is reached clears the prober",
			local: "a",
			paths: paths{"a": path(good).then(100*sec, refused), "b": path(good).then(100*sec, refused), "drained": good},
			held:  none,
			down:  []topology.ClusterID{"a", "b"},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(20) {
				c := defaults()
				c.Seed, c.Local, c.Drained = seed, tc.local, []topology.ClusterID{"drained"}
				s := simulate(c, tc.paths)
				s.run(t, 700*sec)
				var down []topology.ClusterID
				for id, status := range s.at(200 * sec).snapshot.All() {
					if status.State == Unhealthy {
						down = append(down, id)
					}
				}
				if !slices.Equal(down, tc.down) {
					t.Errorf("Seed %d: expected %v down, got %v", seed, tc.down, down)
				}
				spans := frozenSpans(s)
				if tc.held == none {
					if len(spans) > 0 {
						t.Errorf("Seed %d: expected nothing to be frozen, got %v", seed, spans)
					}
					continue
				}
				if len(spans) != 1 || spans[0] < tc.held.from || spans[0] > tc.held.to {
					t.Errorf("Seed %d: expected one freeze between %v and %v, got %v", seed, tc.held.from, tc.held.to, spans)
				}
			}
		})
	}
}

// frozenSpans lists how long the guard held, each time.
func frozenSpans(s *simulation) []time.Duration {
	var spans []time.Duration
	since := time.Duration(-1)
	for _, m := range s.moments {
		switch {
		case m.frozen && since < 0:
			since = m.at
		case !m.frozen && since >= 0:
			spans = append(spans, m.at-since)
			since = -1
		}
	}
	if since >= 0 {
		spans = append(spans, s.now-since)
	}
	return spans
}

func TestFrozenMembersSayWhyAndFallWhenTheTimeIsUp(t *testing.T) {
	c := defaults()
	c.Local = "a"
	bad := path(good).then(100*sec, refused)
	s := simulate(c, paths{"a": good, "b": bad, "c": bad})
	s.run(t, 10*time.Minute)
	for _, id := range []topology.ClusterID{"b", "c"} {
		if got := s.at(200 * sec).snapshot.Status(id); got.State != Healthy || got.Reason != ReasonFrozen {
			t.Errorf("Cluster %s while frozen: expected healthy with the guard as reason, got %+v", id, got)
		}
		changes := s.changes(id)
		if len(changes) != 1 || changes[0].state != Unhealthy || changes[0].at < 400*sec || changes[0].at > 409*sec {
			t.Errorf("Cluster %s: expected to fall five minutes after the freeze began, got %v", id, changes)
		}
	}
}

func TestBound(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		want   time.Duration
	}{
		{"the defaults stay under 15 seconds", defaults(), 14500 * ms},
		{"one failure is enough", Config{Interval: 5 * sec, Timeout: 2 * sec, Fall: 1, Rise: 1}, 8500 * ms},
		{"an interval under a second is the edge interval too", Config{Interval: 500 * ms, Timeout: 200 * ms, Fall: 3, Rise: 2}, 550*ms + 600*ms + sec + sec},
		{"a long interval", Config{Interval: 60 * sec, Timeout: 10 * sec, Fall: 5, Rise: 2}, 66*sec + 50*sec + 4*sec + sec},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.config.Bound(); got != tc.want {
				t.Errorf("Expected %v, got %v", tc.want, got)
			}
			for seed := range uint64(100) {
				c := tc.config
				c.Seed, c.Local = seed, []topology.ClusterID{"", "a", "b"}[seed%3]
				died := 100*sec + time.Duration(seed)*91*ms
				hangs := func(time.Duration) (bool, time.Duration) { return false, c.Timeout }
				s := simulate(c, beside(path(good).then(died, hangs)))
				s.run(t, died+tc.want)
				if got := s.at(died + tc.want).snapshot.Status("a").State; got != Unhealthy {
					t.Errorf("Seed %d: expected the member to be unhealthy %v after it died, got %v", seed, tc.want, got)
				}
			}
		})
	}
}

func TestProbesAreSpacedByTheInterval(t *testing.T) {
	c := defaults()
	ids := paths{"a": good, "b": good, "c": good}
	for seed := range uint64(20) {
		c.Seed = seed
		s := simulate(c, ids)
		s.run(t, 10*time.Minute)
		last, first := map[topology.ClusterID]time.Duration{}, map[topology.ClusterID]bool{}
		gaps := map[time.Duration]bool{}
		for _, p := range s.probes {
			before, seen := last[p.id]
			last[p.id] = p.from
			switch gap := p.from - before; {
			case !seen:
				if p.from >= sec {
					t.Errorf("Expected the first probe within a second, got %v", p.from)
				}
			case !first[p.id]:
				first[p.id] = true // the second comes anywhere within the interval
				if gap < sec || gap > DefaultInterval {
					t.Errorf("Expected the second probe between 1 s and 5 s after the first, got %v", gap)
				}
			case gap < 4500*ms || gap > 5500*ms:
				t.Errorf("Expected 5 s give or take 10 %%, got %v", gap)
			default:
				gaps[gap] = true
			}
		}
		if len(gaps) < 100 {
			t.Errorf("Expected the interval to vary, got %d lengths", len(gaps))
		}
	}
}

func TestAnotherSeedProbesAtOtherTimes(t *testing.T) {
	times := func(seed uint64) []time.Duration {
		c := defaults()
		c.Seed = seed
		s := simulate(c, paths{"a": good})
		s.run(t, time.Minute)
		var out []time.Duration
		for _, p := range s.probes {
			out = append(out, p.from)
		}
		return out
	}
	if !slices.Equal(times(1), times(1)) {
		t.Error("Expected the same seed to probe at the same times")
	}
	if slices.Equal(times(1), times(2)) {
		t.Error("Expected another seed to probe at other times")
	}
}

func TestAChangeThatIsPendingIsProbedAtTheEdgeInterval(t *testing.T) {
	s := simulate(defaults(), beside(path(good).then(100*sec, refused).then(200*sec, good)))
	s.run(t, 300*sec)
	var down, up []probe
	for _, p := range s.probes {
		switch {
		case p.id != "a":
		case p.from >= 100*sec && p.from < 200*sec && len(down) < 4:
			down = append(down, p)
		case p.from >= 200*sec && len(up) < 3:
			up = append(up, p)
		}
	}
	wait := func(ps []probe, i int) time.Duration { return ps[i].from - ps[i-1].to }
	if wait(down, 1) != sec || wait(down, 2) != sec || wait(down, 3) < 4*sec {
		t.Errorf("Expected 1 s between failures until the member is down, then the interval: %v", down)
	}
	if wait(up, 1) != sec || wait(up, 2) < 3*sec {
		t.Errorf("Expected 1 s until the second success, then the interval: %v", up)
	}
}

func TestOneFailureMakesTheOthersBeProbedSoon(t *testing.T) {
	c := defaults()
	c.Interval = 60 * sec
	for seed := range uint64(20) {
		c.Seed = seed
		s := simulate(c, beside(path(good).then(300*sec, refused)))
		s.run(t, 400*sec)
		var failed time.Duration
		for _, p := range s.probes {
			if p.id == "a" && !p.ok {
				failed = p.from
				break
			}
		}
		for _, id := range []topology.ClusterID{"b", "c"} {
			if !slices.ContainsFunc(s.probes, func(p probe) bool { return p.id == id && p.from >= failed && p.to <= failed+1100*ms }) {
				t.Errorf("Seed %d: expected a probe of %s within a second after %v", seed, id, failed)
			}
		}
	}
}

func TestObserveIgnoresWhatWasNotBegun(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tr := NewTracker(defaults(), []topology.ClusterID{"a"}, now)
	tr.Observe("a", true, now)
	tr.Observe("stranger", true, now)
	if got := tr.Snapshot(now).Status("a").State; got != Excluded {
		t.Errorf("Expected the member to stay excluded, got %v", got)
	}
	if tr.Settled() {
		t.Error("Expected the first round not to be over")
	}
	if ids := tr.Begin(now.Add(sec)); !slices.Equal(ids, []topology.ClusterID{"a"}) {
		t.Fatalf("Expected a to be probed, got %v", ids)
	}
	if ids := tr.Begin(now.Add(time.Hour)); len(ids) > 0 {
		t.Errorf("Expected no second probe beside the first, got %v", ids)
	}
	tr.Observe("a", true, now.Add(sec))
	tr.Observe("a", false, now.Add(sec))
	if got := tr.Snapshot(now.Add(sec)).Status("a"); got.State != Healthy || !got.Probed {
		t.Errorf("Expected healthy and probed, got %+v", got)
	}
	if !tr.Settled() {
		t.Error("Expected the first round to be over")
	}
}

func TestNextOfNobodyIsNever(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := defaults()
	c.Drained = []topology.ClusterID{"a"}
	tr := NewTracker(c, nil, now)
	if next := tr.Next(now); !next.IsZero() {
		t.Errorf("Expected nothing to wait for, got %v", next)
	}
	if !tr.Settled() {
		t.Error("Expected nobody to be waited for")
	}
}

func TestSlowStartRaisesTheFactorOncePerSecond(t *testing.T) {
	// Both come back, at different fractions of a second; the guard stays out of it as c is good.
	bad := path(good).then(100*sec, refused).then(200*sec, good)
	badToo := path(good).then(100*sec, hanging).then(203300*ms, good)
	s := simulate(defaults(), paths{"a": bad, "b": badToo, "c": good})
	s.run(t, 300*sec)
	var factors []float64
	var last time.Duration
	previous := s.moments[0].snapshot
	for _, m := range s.moments {
		state := m.snapshot.Status("a").State != previous.Status("a").State || m.snapshot.Status("b").State != previous.Status("b").State
		slow := m.at > 200*sec && !state && m.snapshot != previous
		if slow && m.snapshot.Status("a").Factor != previous.Status("a").Factor || slow && m.snapshot.Status("b").Factor != previous.Status("b").Factor {
			if m.at-last < sec {
				t.Errorf("Expected factors to change at most once a second, got %v after %v", m.at, last)
			}
			last = m.at
		}
		if f := m.snapshot.Status("a").Factor; m.at > 210*sec && (len(factors) == 0 || factors[len(factors)-1] != f) {
			factors = append(factors, f)
		}
		previous = m.snapshot
	}
	if !slices.IsSorted(factors) || factors[len(factors)-1] != 1 || len(factors) < 45 {
		t.Errorf("Expected factors to rise to 1 second by second, got %v", factors)
	}
}

func TestSnapshotIsTheSameUntilSomethingChanges(t *testing.T) {
	s := simulate(defaults(), beside(good))
	s.run(t, 10*time.Minute)
	if len(s.moments) > 4 {
		t.Errorf("Expected one snapshot at start and one per member that is admitted, got %d", len(s.moments))
	}
}

func TestInheritKeepsWhatIsKnown(t *testing.T) {
	tests := []struct {
		name   string
		path   path
		at     time.Duration // when the configuration changes
		expect []expect
	}{
		{"a healthy member stays healthy", good, 60 * sec, []expect{{60 * sec, "a", Healthy, ReasonGood}}},
		{"an unhealthy member stays unhealthy", path(good).then(60*sec, refused), 80 * sec, []expect{{80 * sec, "a", Unhealthy, ReasonFailing}}},
		{
			"hold-down goes on", path(good).then(60*sec, refused).then(70*sec, good), 80 * sec,
			[]expect{{80 * sec, "a", Unhealthy, ReasonHoldDown}, {91 * sec, "a", Unhealthy, ReasonHoldDown}, {99 * sec, "a", Healthy, ReasonSlow}},
		},
		{
			"slow start goes on", path(good).then(60*sec, refused).then(200*sec, good), 230 * sec,
			[]expect{{230 * sec, "a", Healthy, ReasonSlow}, {272 * sec, "a", Healthy, ReasonGood}},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			old := simulate(defaults(), beside(tc.path))
			old.run(t, tc.at)
			changed := maps.Clone(old.paths)
			changed["new"] = good
			s := simulate(defaults(), changed)
			s.Tracker = NewTracker(defaults(), []topology.ClusterID{"a", "b", "c", "new"}, s.epoch.Add(tc.at))
			for _, id := range []topology.ClusterID{"a", "b", "c", "stranger"} {
				s.Inherit(old.Tracker, id)
			}
			s.now, s.moments = tc.at, nil
			s.note()
			s.run(t, 400*sec)
			for _, e := range append(tc.expect, expect{tc.at, "new", Excluded, ReasonUnknown}) {
				got := s.at(e.at).snapshot.Status(e.id)
				if got.State != e.state || got.Reason != e.reason {
					t.Errorf("Cluster %s at %v: expected %v (%s), got %v (%s)", e.id, e.at, e.state, e.reason, got.State, got.Reason)
				}
			}
		})
	}
}

func TestInheritDoesNotProlongAFreeze(t *testing.T) {
	bad := path(good).then(60*sec, refused)
	old := simulate(defaults(), paths{"a": bad, "b": bad})
	old.run(t, 200*sec)
	s := simulate(defaults(), old.paths)
	s.Tracker = NewTracker(defaults(), []topology.ClusterID{"a", "b"}, s.epoch.Add(200*sec))
	s.Inherit(old.Tracker, "a")
	s.Inherit(old.Tracker, "b")
	s.now, s.moments = 200*sec, nil
	s.note()
	s.run(t, 600*sec)
	if changes := s.changes("a"); len(changes) != 1 || changes[0].at > 370*sec {
		t.Errorf("Expected the member to fall within five minutes after the freeze began, got %v", changes)
	}
}
