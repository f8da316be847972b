package clusterhealth

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// set is the probed and drained members of one configuration. One goroutine drives the tracker; each member has at most
// one more, while it is being probed.
type set struct {
	config  *config
	probers map[topology.ClusterID]prober
	cancel  context.CancelFunc
	done    chan struct{}

	snapshot atomic.Pointer[health.Snapshot]
	// history is written with mu held.
	history atomic.Pointer[health.History]
	frozen  atomic.Bool
	settled atomic.Bool // every member has been probed once

	mu      sync.Mutex // guards tracker: a successor inherits from it
	tracker *health.Tracker
}

// result is how a probe ended.
type result struct {
	cluster topology.ClusterID
	err     error
}

// newSet makes a set that does not probe yet.
func newSet(c *config, dial func(probe) prober) *set {
	s := &set{config: c, probers: make(map[topology.ClusterID]prober, len(c.probes)), done: make(chan struct{})}
	var ids []topology.ClusterID
	for _, p := range c.probes {
		ids = append(ids, p.cluster)
		s.probers[p.cluster] = dial(p)
	}
	s.tracker = health.NewTracker(c.tracker(rand.Uint64()), ids, time.Now())
	return s
}

// inherit takes over what another set knows of the members that it probes in the same way.
func (s *set) inherit(from *set) {
	theirs := make(map[topology.ClusterID]string, len(from.config.probes))
	for _, p := range from.config.probes {
		theirs[p.cluster] = from.config.probeKey(p)
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	for _, p := range s.config.probes {
		if theirs[p.cluster] == s.config.probeKey(p) {
			s.tracker.Inherit(from.tracker, p.cluster)
		}
	}
}

// start begins to probe. The first snapshot is there when it returns; before and history are those of the set which this one
// replaces.
func (s *set) start(before *health.Snapshot, history health.History) {
	s.snapshot.Store(before)
	s.history.Store(&history)
	s.mu.Lock()
	s.publish(time.Now(), result{})
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(ctx)
}

// stop ends all probes and waits for them.
func (s *set) stop() {
	s.cancel()
	<-s.done
}

// run does what the tracker wants when it wants it.
func (s *set) run(ctx context.Context) {
	defer close(s.done)
	var flying sync.WaitGroup
	defer flying.Wait()
	results := make(chan result)
	for {
		due, next := s.step()
		for _, id := range due {
			flying.Go(func() { s.probe(ctx, id, results) })
		}
		select {
		case <-ctx.Done():
			return
		case r := <-results:
			s.observe(r)
		case <-until(next):
		}
	}
}

// until returns a channel that receives at a time, never for the zero time.
func until(at time.Time) <-chan time.Time {
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// step lets time pass and returns who is to be probed now, and when to come again.
func (s *set) step() (due []topology.ClusterID, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.tracker.Advance(now)
	s.publish(now, result{})
	return s.tracker.Begin(now), s.tracker.Next(now)
}

func (s *set) observe(r result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.tracker.Observe(r.cluster, r.err == nil, now)
	s.publish(now, r)
}

// publish makes what is known now visible, and reports what has changed. It is called with mu held.
func (s *set) publish(now time.Time, because result) {
	_, frozen := s.tracker.Frozen(now)
	if s.frozen.Swap(frozen) != frozen {
		reportFrozen(frozen)
	}
	snapshot := s.tracker.Snapshot(now)
	if before := s.snapshot.Swap(snapshot); before != snapshot {
		reportChanges(before, snapshot, because)
		s.remember(now, before, snapshot)
	}
	s.settled.Store(s.tracker.Settled())
}

// remember notes what has changed. A member that is new, and not probed yet, has not changed.
func (s *set) remember(at time.Time, before, now *health.Snapshot) {
	known := maps.Collect(before.All())
	history := s.changes()
	for id, status := range now.All() {
		was, there := known[id]
		if !there {
			was = health.Status{State: health.Excluded, Reason: health.ReasonUnknown}
		}
		if was.State != status.State || was.Reason != status.Reason {
			history = history.With(id, health.Change{At: at, State: status.State, Reason: status.Reason})
		}
	}
	s.history.Store(&history)
}

func (s *set) changes() health.History {
	if history := s.history.Load(); history != nil {
		return *history
	}
	return nil
}

// probe asks one member, and reports unless the set is being stopped.
func (s *set) probe(ctx context.Context, id topology.ClusterID, results chan<- result) {
	limited, cancel := context.WithTimeout(ctx, s.config.timeout)
	defer cancel()
	start := time.Now()
	err := s.probers[id](limited)
	if ctx.Err() != nil {
		return
	}
	countProbe(id, err, errors.Is(limited.Err(), context.DeadlineExceeded), time.Since(start))
	select {
	case results <- result{id, err}:
	case <-ctx.Done():
	}
}
