package watch

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// audience is who a feed tells, and how far it has told. Its lock guards the whole feed and is held while sinks are
// called, never while waiting for an API server.
type audience struct {
	w  *Watcher
	mu sync.Mutex
	// sinks are those who have subscribed.
	sinks []Sink
	level atomic.Uint32
	// retell says all that is known to one sink; recall takes what was known before the first contact as if the source
	// had said it. The feed sets them.
	retell func(Sink)
	recall func(mcs.Facts)
}

// How far a feed has told.
const (
	// levelNone: nothing at all. Stale beats partial, so nothing is told before all is known.
	levelNone uint32 = iota
	// levelRestored: what was known before the first contact.
	levelRestored
	// levelSynced: all that the source says.
	levelSynced
)

// restore begins with what was known before the first contact. synced says that it was all that the source said. It is
// called before the source is contacted.
func (a *audience) restore(facts mcs.Facts, synced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recall(facts)
	if a.level.Store(levelRestored); synced {
		a.level.Store(levelSynced)
	}
}

func (a *audience) subscribe(s Sink) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sinks = append(a.sinks, s)
	level := a.level.Load()
	if level == levelNone {
		return
	}
	a.retell(s)
	if level == levelRestored {
		s.SetRestored(a.w.source())
	} else {
		s.SetSynced(a.w.source())
	}
}

func (a *audience) unsubscribe(s Sink) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sinks = slices.DeleteFunc(a.sinks, func(x Sink) bool { return x == s })
}

func (a *audience) synced() bool { return a.level.Load() == levelSynced }

func (a *audience) wasRestored() bool { return a.level.Load() == levelRestored }

// goLive says, once, that everything has been told. The lock is held.
func (a *audience) goLive() {
	if a.level.Swap(levelSynced) == levelSynced {
		return
	}
	for _, s := range a.sinks {
		s.SetSynced(a.w.source())
	}
}
