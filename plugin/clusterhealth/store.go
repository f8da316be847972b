package clusterhealth

import (
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// store holds what all server blocks and both instances of a reload share. It is the only state at package level.
type store struct {
	started time.Time
	// wasReady is set once ready has been true: readiness is never taken back.
	wasReady atomic.Bool
	// dial makes the probers.
	dial func(probe, *x509.CertPool) prober
	// sets are shared by all whose configurations are equal.
	sets *lease.Pool[*set]

	mu   sync.Mutex // guards live; taken under the lock of the sets
	live []*set     // the youngest last
}

// process is the store of this process.
var process = newStore(newProber)

func newStore(dial func(probe, *x509.CertPool) prober) *store {
	s := &store{started: time.Now(), dial: dial}
	s.sets = lease.NewPool(s.end)
	return s
}

// begin starts to probe. Of members that are probed already in the same way, by a set that is about to be replaced, it
// takes over what is known: a change of the Corefile forgets neither health nor hold-down.
func (s *store) begin(c *config) *set {
	made := newSet(c, func(p probe) prober { return s.dial(p, c.roots) })
	s.mu.Lock()
	defer s.mu.Unlock()
	var before *health.Snapshot
	var history health.History
	for _, other := range s.live {
		made.inherit(other)
		before, history = other.snapshot.Load(), other.changes()
	}
	for id := range history {
		if !c.concerns(id) {
			history = history.Without(id)
		}
	}
	made.start(before, history)
	s.live = append(s.live, made)
	return made
}

// end stops probing.
func (s *store) end(old *set) {
	old.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = slices.DeleteFunc(s.live, func(other *set) bool { return other == old })
	for id := range old.snapshot.Load().All() {
		if !s.knows(id) {
			forget(id)
		}
	}
}

func (s *store) knows(id topology.ClusterID) bool {
	return slices.ContainsFunc(s.live, func(other *set) bool {
		for known := range other.snapshot.Load().All() {
			if known == id {
				return true
			}
		}
		return false
	})
}

// settled reports whether the first round of probes is over everywhere.
func (s *store) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live) > 0 && !slices.ContainsFunc(s.live, func(other *set) bool { return !other.settled.Load() })
}

// youngest returns the sets, the youngest first: while one replaces another, it is the one that counts.
func (s *store) youngest() []*set {
	s.mu.Lock()
	defer s.mu.Unlock()
	sets := slices.Clone(s.live)
	slices.Reverse(sets)
	return sets
}
