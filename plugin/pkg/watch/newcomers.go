package watch

import (
	"context"
	"sync/atomic"
	"time"
)

// newcomers are how many sources of names in this process have not told yet what they know. Until they have, nothing can be
// answered, while what only tells where clients are makes answers better. Its list of all EndpointSlices takes as long as the
// one of a member, and slows that down where there are few processors: so it comes afterwards.
var newcomers atomic.Int64

const (
	// yieldFirst is for how long the sources of names are waited for to begin, and then how often it is looked whether they are done.
	yieldFirst = 50 * time.Millisecond
	// yieldAtMost is how long they come first: some may not be reached at all.
	yieldAtMost = 2 * time.Second
)

// giveWay lets newcomers go first.
func giveWay(ctx context.Context) {
	for began := time.Now(); ctx.Err() == nil; {
		sleep(ctx, yieldFirst)
		if newcomers.Load() == 0 || time.Since(began) >= yieldAtMost {
			return
		}
	}
}

// come makes the source a newcomer.
func (w *Watcher) come() {
	w.newcomer.Store(true)
	newcomers.Add(1)
}

// arrive says that it is none any more.
func (w *Watcher) arrive() {
	if w.newcomer.Swap(false) {
		newcomers.Add(-1)
	}
}
