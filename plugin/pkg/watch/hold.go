package watch

import (
	"context"
	"errors"
	"time"
)

// A list in which most of a source has vanished is not believed at once: API servers that fill their cache after a
// restart, or whose etcd was restored, send such lists too, and believing one takes services down that are well. What a
// watch deletes one by one is believed.
const (
	// collapseAtLeast is how much must vanish, and it must be more than half of what there was.
	collapseAtLeast = 10
	// holdFor is how long a second list is waited for. When it says the same, it is believed.
	holdFor = 10 * time.Second
	// holdAtMost is after how long a first list no longer counts.
	holdAtMost = 30 * time.Second
)

// errHeld makes the Reflector list again.
var errHeld = errors.New("most of what was known has vanished from this list: it is not believed until a second one says so too")

// hold is the doubt about one resource of a source. It outlives rounds; only the Reflector of the resource uses it.
type hold struct{ since time.Time }

// doubts reports whether a list is not to be believed that leaves after of before things.
func (h *hold) doubts(before, after int, now time.Time) bool {
	first := h.since
	h.since = time.Time{}
	if before-after < collapseAtLeast || after*2 >= before {
		return false
	}
	waited := now.Sub(first)
	if !first.IsZero() && waited >= holdFor && waited <= holdAtMost {
		return false
	}
	if h.since = first; first.IsZero() || waited > holdAtMost {
		h.since = now
	}
	return true
}

// wait waits until it is time for the second list.
func (h *hold) wait(ctx context.Context) {
	if rest := holdFor - time.Since(h.since); !h.since.IsZero() && rest > 0 {
		sleep(ctx, rest)
	}
}
