package clusterhealth

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// network is what probes meet in a synctest bubble: how each member is now.
type network struct {
	mu     sync.Mutex
	is     map[topology.ClusterID]string // "", "refused" or "hanging"
	probes int
}

func newNetwork() *network {
	return &network{is: map[topology.ClusterID]string{}}
}

func (n *network) set(is string, ids ...topology.ClusterID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		n.is[id] = is
	}
}

// asked is how often all members have been probed.
func (n *network) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.probes
}

func (n *network) dial(p probe, _ *x509.CertPool) prober {
	return func(ctx context.Context) error {
		n.mu.Lock()
		is := n.is[p.cluster]
		n.probes++
		n.mu.Unlock()
		switch is {
		case "refused":
			return errors.New("connection refused")
		case "hanging":
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
}

func mustParse(t *testing.T, body string) *config {
	t.Helper()
	c, err := parseText("clusterhealth {\n" + body + "\n}")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const threeProbes = "probe a tcp a:1\nprobe b tcp b:1\nprobe c tcp c:1\n"

// hold takes a lease on the set of a stanza, as OnStartup does.
func hold(t *testing.T, s *store, who *lease.Tenant, c *config) *set {
	t.Helper()
	made, err := s.sets.Acquire(who, c.key(), func() (*set, error) { return s.begin(c), nil })
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func state(s *set, id topology.ClusterID) health.State { return s.snapshot.Load().Status(id).State }

// stays waits until a member's state is another, or time is up, and returns how long that took.
func stays(s *set, id topology.ClusterID, limit time.Duration) time.Duration {
	start, was := time.Now(), state(s, id)
	for time.Since(start) < limit && state(s, id) == was {
		time.Sleep(10 * time.Millisecond) // of the bubble's time
	}
	return time.Since(start)
}

func TestSetOverTime(t *testing.T) {
	const bound = 14500 * time.Millisecond
	tests := []struct {
		name  string
		local topology.ClusterID
		story func(t *testing.T, n *network, s *set)
	}{
		{"members are excluded until they have been probed", "", func(t *testing.T, _ *network, s *set) {
			t.Helper()
			if got := state(s, "a"); got != health.Excluded {
				t.Errorf("Expected excluded at first, got %v", got)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := state(s, "a"); got != health.Healthy {
				t.Errorf("Expected healthy after the first probe, got %v", got)
			}
		}},
		{"a member's history tells when it left and came back", "", func(t *testing.T, n *network, s *set) {
			t.Helper()
			time.Sleep(time.Minute)
			n.set("refused", "b")
			stays(s, "b", time.Minute)
			left := time.Now()
			n.set("", "b")
			time.Sleep(3 * time.Minute)
			var got []string
			for _, c := range s.changes()["b"] {
				got = append(got, c.State.String()+": "+c.Reason)
			}
			want := []string{
				"healthy: " + health.ReasonGood, "healthy: " + health.ReasonSlow, "unhealthy: " + health.ReasonHoldDown,
				"unhealthy: " + health.ReasonFailing, "healthy: " + health.ReasonGood,
			}
			if !slices.Equal(got, want) {
				t.Errorf("The history is %q, want %q", got, want)
			}
			if at := s.changes()["b"][3].At; left.Sub(at) > time.Second || at.After(left) {
				t.Errorf("It left at %v, and the history says %v", left, at)
			}
		}},
		{"a member that hangs leaves within the bound", "", func(t *testing.T, n *network, s *set) {
			t.Helper()
			time.Sleep(time.Minute)
			n.set("hanging", "b")
			if took := stays(s, "b", time.Minute); took > bound || took < 6*time.Second {
				t.Errorf("Expected to leave within %v, took %v", bound, took)
			}
			if state(s, "b") != health.Unhealthy || state(s, "a") != health.Healthy {
				t.Errorf("Expected b alone to be unhealthy, got %v and a %v", state(s, "b"), state(s, "a"))
			}
		}},
		{"a member that comes back at once is held down for 30 s and starts slowly", "", func(t *testing.T, n *network, s *set) {
			t.Helper()
			time.Sleep(time.Minute)
			n.set("refused", "b")
			stays(s, "b", time.Minute)
			n.set("", "b")
			if took := stays(s, "b", 5*time.Minute); took < 29900*time.Millisecond || took > 32*time.Second {
				t.Errorf("Expected to be held down for 30 s, took %v", took)
			}
			if f := s.snapshot.Load().Status("b").Factor; f != 0.1 {
				t.Errorf("Expected to start with a tenth of the weight, got %v", f)
			}
			time.Sleep(31 * time.Second)
			if f := s.snapshot.Load().Status("b").Factor; f < 0.48 || f > 0.53 {
				t.Errorf("Expected half of the weight after half a minute, got %v", f)
			}
			time.Sleep(30 * time.Second)
			if f := s.snapshot.Load().Status("b").Factor; f != 1 {
				t.Errorf("Expected the whole weight after a minute, got %v", f)
			}
		}},
		{"ten changes of the data path in a minute change the state three times at most", "", func(t *testing.T, n *network, s *set) {
			t.Helper()
			time.Sleep(time.Minute)
			changes, last := 0, state(s, "b")
			for i := range 10 {
				n.set([]string{"refused", ""}[i%2], "b")
				for range []int{80, 40}[i%2] { // a failure of 8 s is always noticed, wherever between two probes it begins
					time.Sleep(100 * time.Millisecond)
					if now := state(s, "b"); now != last {
						changes, last = changes+1, now
					}
				}
			}
			if changes < 1 || changes > 3 {
				t.Errorf("Expected one to three changes, got %d", changes)
			}
		}},
		{"when all remote members fail at once they are kept for five minutes, and it shows", "a", func(t *testing.T, n *network, s *set) {
			t.Helper()
			time.Sleep(time.Minute)
			n.set("refused", "b", "c")
			time.Sleep(15 * time.Second)
			if state(s, "b") != health.Healthy || state(s, "c") != health.Healthy || !s.frozen.Load() {
				t.Errorf("Expected all to be kept, got b %v, c %v, frozen %v", state(s, "b"), state(s, "c"), s.frozen.Load())
			}
			if took := stays(s, "b", 10*time.Minute); took < 285*time.Second || took > 5*time.Minute {
				t.Errorf("Expected to be kept for five minutes, took %v more", took)
			}
			synctest.Wait()
			if state(s, "b") != health.Unhealthy || state(s, "c") != health.Unhealthy || s.frozen.Load() {
				t.Errorf("Expected all to fall at last, got b %v, c %v, frozen %v", state(s, "b"), state(s, "c"), s.frozen.Load())
			}
		}},
		{"the local member alone leaves within the bound", "a", func(t *testing.T, n *network, s *set) {
			t.Helper()
			time.Sleep(time.Minute)
			n.set("hanging", "a")
			if took := stays(s, "a", time.Minute); took > bound {
				t.Errorf("Expected to leave within %v, took %v", bound, took)
			}
		}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				c := mustParse(t, threeProbes)
				c.local = tc.local
				s := newSet(c, func(p probe) prober { return n.dial(p, nil) })
				s.start(nil, nil)
				defer s.stop()
				tc.story(t, n, s)
			})
		})
	}
}

func TestStopEndsAProbeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.set("hanging", "a", "b", "c")
		s := newSet(mustParse(t, threeProbes), func(p probe) prober { return n.dial(p, nil) })
		s.start(nil, nil)
		time.Sleep(1100 * time.Millisecond)
		start := time.Now()
		s.stop()
		if took := time.Since(start); took != 0 {
			t.Errorf("Expected to stop at once, took %v", took)
		}
		if got := state(s, "a"); got != health.Excluded {
			t.Errorf("Expected the last snapshot to stay, got %v", got)
		}
	})
}

func TestOneSetServesAllWithTheSameStanza(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newStore(n.dial)
		old, other := &lease.Tenant{}, &lease.Tenant{}
		c := mustParse(t, threeProbes)
		first := hold(t, s, old, c)
		time.Sleep(30 * time.Second)
		if second := hold(t, s, other, mustParse(t, threeProbes)); second != first {
			t.Error("Expected the same set")
		}
		s.sets.Release(old, c.key())
		before := n.asked()
		time.Sleep(30 * time.Second)
		if n.asked() == before {
			t.Error("Expected probes to go on for the new instance")
		}
		s.sets.Release(other, c.key())
		before = n.asked()
		time.Sleep(30 * time.Second)
		if n.asked() != before || len(s.live) != 0 {
			t.Error("Expected probes to end with the last instance")
		}
	})
}

func TestAChangeOfTheCorefileKeepsWhatIsKnown(t *testing.T) {
	tests := []struct {
		name   string
		change string
		a, b   health.State // right after the change
	}{
		{"another interval", threeProbes + "interval 6s", health.Healthy, health.Unhealthy},
		{"one more probe", threeProbes + "probe d tcp d:1", health.Healthy, health.Unhealthy},
		{"one is drained", threeProbes + "drain a", health.Excluded, health.Unhealthy},
		{"another target is another member", "probe a tcp a:2\nprobe b tcp b:1", health.Excluded, health.Unhealthy},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				s := newStore(n.dial)
				old, next := &lease.Tenant{}, &lease.Tenant{}
				c := mustParse(t, threeProbes)
				before := hold(t, s, old, c)
				time.Sleep(time.Minute)
				n.set("refused", "b")
				stays(before, "b", time.Minute)
				n.set("", "b")
				time.Sleep(10 * time.Second) // of 30 s of hold-down

				changed := mustParse(t, tc.change)
				after := hold(t, s, next, changed)
				s.sets.Release(old, c.key())
				if state(after, "a") != tc.a || state(after, "b") != tc.b {
					t.Errorf("Expected a %v and b %v, got %v and %v", tc.a, tc.b, state(after, "a"), state(after, "b"))
				}
				if took := stays(after, "b", time.Minute); took < 19*time.Second || took > 24*time.Second {
					t.Errorf("Expected the rest of the hold-down, took %v", took)
				}
				s.sets.Release(next, changed.key())
			})
		})
	}
}

func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newStore(n.dial)
		if s.ready(time.Now()) {
			t.Error("Expected not to be ready before anything has started")
		}
		n.set("hanging", "c")
		who := &lease.Tenant{}
		c := mustParse(t, threeProbes)
		hold(t, s, who, c)
		time.Sleep(1900 * time.Millisecond)
		if s.ready(time.Now()) {
			t.Error("Expected not to be ready while the first round lasts")
		}
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if !s.ready(time.Now()) {
			t.Error("Expected to be ready after the first round, whatever it found")
		}
		changed := mustParse(t, "probe new tcp new:1")
		hold(t, s, who, changed)
		if !s.ready(time.Now()) {
			t.Error("Expected never to become unready again")
		}
		s.sets.Release(who, c.key())
		s.sets.Release(who, changed.key())
	})
}

func TestReadyWaitsFiveSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.set("hanging", "a")
		s := newStore(n.dial)
		who := &lease.Tenant{}
		c := mustParse(t, "probe a tcp a:1\ninterval 20s\ntimeout 20s")
		hold(t, s, who, c)
		time.Sleep(4900 * time.Millisecond)
		if s.ready(time.Now()) {
			t.Error("Expected not to be ready before the five seconds are over")
		}
		time.Sleep(100 * time.Millisecond)
		if !s.ready(time.Now()) {
			t.Error("Expected to be ready after five seconds")
		}
		s.sets.Release(who, c.key())
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newStore(n.dial)
		who := &lease.Tenant{}
		c := mustParse(t, "probe m1 tcp a:1\nprobe m2 tcp b:1\nprobe m3 tcp c:1\ndrain m4")
		hold(t, s, who, c)
		time.Sleep(time.Minute)
		n.set("hanging", "m2")
		n.set("refused", "m3")
		time.Sleep(time.Minute)
		registry := prometheus.NewRegistry()
		registry.MustRegister(collector{s})
		want := `
			# HELP coredns_clusterhealth_frozen 1 while the guard against mass failure keeps clusters from becoming unhealthy.
			# TYPE coredns_clusterhealth_frozen gauge
			coredns_clusterhealth_frozen 0
			# HELP coredns_clusterhealth_member_state 1 for the state a cluster is in: healthy, degraded, unhealthy or excluded.
			# TYPE coredns_clusterhealth_member_state gauge
		`
		for id, state := range map[string]string{"m1": "healthy", "m2": "unhealthy", "m3": "unhealthy", "m4": "excluded"} {
			for _, other := range health.States() {
				value := " 0\n"
				if other.String() == state {
					value = " 1\n"
				}
				want += `coredns_clusterhealth_member_state{cluster="` + id + `",state="` + other.String() + `"}` + value
			}
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		counts := map[string]float64{
			"m1 success": testutil.ToFloat64(probesTotal.WithLabelValues("m1", "success")),
			"m2 timeout": testutil.ToFloat64(probesTotal.WithLabelValues("m2", "timeout")),
			"m3 failure": testutil.ToFloat64(probesTotal.WithLabelValues("m3", "failure")),
		}
		for what, got := range counts {
			if got < 5 {
				t.Errorf("Expected %s to count probes, got %v", what, got)
			}
		}
		if got := testutil.ToFloat64(transitionsTotal.WithLabelValues("m2", "unhealthy")); got != 1 {
			t.Errorf("Expected one transition of m2, got %v", got)
		}
		if got := testutil.CollectAndCount(probeDuration); got != 3 {
			t.Errorf("Expected durations of three clusters, got %d", got)
		}
		s.sets.Release(who, c.key())
		for what, vec := range map[string]prometheus.Collector{"probes": probesTotal, "durations": probeDuration, "transitions": transitionsTotal} {
			if got := testutil.CollectAndCount(vec); got != 0 {
				t.Errorf("Expected no %s to be left of clusters that nobody probes, got %d", what, got)
			}
		}
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
			t.Errorf("Expected nothing to complain about, got %v %v", problems, err)
		}
	})
}

func TestFrozenShowsInTheMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newStore(n.dial)
		who := &lease.Tenant{}
		c := mustParse(t, threeProbes)
		hold(t, s, who, c)
		time.Sleep(time.Minute)
		n.set("refused", "a", "b", "c")
		time.Sleep(time.Minute)
		want := `
			# HELP coredns_clusterhealth_frozen 1 while the guard against mass failure keeps clusters from becoming unhealthy.
			# TYPE coredns_clusterhealth_frozen gauge
			coredns_clusterhealth_frozen 1
		`
		if err := testutil.CollectAndCompare(collector{s}, strings.NewReader(want), "coredns_clusterhealth_frozen"); err != nil {
			t.Error(err)
		}
		s.sets.Release(who, c.key())
	})
}
