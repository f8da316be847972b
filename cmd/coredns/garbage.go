package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Garbage is collected when there is as much of it as of what lives (GOGC=100). A server that answers queries makes the same
// garbage whatever it knows, so that one with a small heap collects all the time. That one may let half as much again pile up:
// a seventh of what an answer costs is collecting garbage, and while it is collected answers take longer.
const (
	usualPercent = 100
	mostPercent  = 150
	// sparedBelow is the garbage, in bytes, from which on the usual rule is as good: what a server with 10,000 services may have.
	sparedBelow = 36 << 20
)

// spareCollections sets the percentage anew after each collection. GOGC in the environment has the last word, as in every Go
// program; GOMEMLIMIT counts besides.
func spareCollections() {
	if os.Getenv("GOGC") != "" {
		return
	}
	now := usualPercent
	afterCollections(func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if percent := percentFor(live[0].Value.Uint64()); percent != now {
			now = percent
			debug.SetGCPercent(percent)
		}
	})
}

// percentFor returns GOGC for so many bytes that live.
func percentFor(live uint64) int {
	const step = 10                                                                         // a change stops the world for a moment
	return int(min(max(sparedBelow*100/max(live, 1)/step*step, usualPercent), mostPercent)) //nolint:gosec // bounded
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
