package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Garbage is collected when there is as much of it as of what lives (GOGC=100). A server that answers queries makes the same
// garbage whatever it knows, so that one with a small heap collects all the time: a tenth of what an answer costs is collecting
// garbage, and while it is collected answers take longer. That one may let more pile up, as long as its heap stays small with it.
// While it grows, as at the start and in a reload, it may only as long as it is tiny: later it is at its largest, and a large one
// is collected sooner.
const (
	growingPercent = 75
	usualPercent   = 100
	mostPercent    = 220
	tinyPercent    = 400
	// small is how large a heap may become by garbage above the usual, in bytes. One of which half lives is that by the usual rule:
	// what CoreDNS needs with 10,000 services in kubeadm's chain. tiny is the same for one that grows.
	small = 96 << 20
	tiny  = small / 4
	// large is what lives in a heap, in bytes, that is collected sooner while it grows.
	large = 36 << 20
)

// spareCollections sets the percentage anew after each collection. GOGC in the environment has the last word, as in every Go
// program; GOMEMLIMIT counts besides.
func spareCollections() {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent, before := tinyPercent, uint64(0)
	debug.SetGCPercent(percent)
	afterCollections(func() {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		live := sample[0].Value.Uint64()
		if next := percentFor(live, before); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
		before = live
	})
}

// percentFor returns GOGC for so many bytes that live, and so many that lived when garbage was collected before.
func percentFor(live, before uint64) int {
	switch grows := live > before+before/10; {
	case grows && live > large:
		return growingPercent
	case grows:
		return percentWithin(tiny, live, tinyPercent)
	default:
		return percentWithin(small, live, mostPercent)
	}
}

// percentWithin returns GOGC for a heap that may have so many bytes with its garbage, between the usual and a bound. It goes in
// steps, since each change stops the world for a moment.
func percentWithin(bytes, live uint64, most int) int {
	const step = 10
	percent := (bytes - min(live, bytes)) * 100 / max(live, 1) / step * step
	return max(usualPercent, int(min(percent, uint64(most)))) //nolint:gosec // bounded
}

// collected is garbage as soon as it is made: its cleanup tells that there was a collection.
type collected struct{ _ [1]*byte }

// afterCollections calls do after each collection of garbage, by one goroutine at a time.
func afterCollections(do func()) {
	runtime.AddCleanup(new(collected), func(again func()) {
		again()
		afterCollections(again)
	}, do)
}
