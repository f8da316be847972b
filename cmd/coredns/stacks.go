package main

import (
	"runtime"
	"time"
)

// Every query is answered by a goroutine of its own (miekg/dns), which needs 4 to 16 KiB of stack on its way through the
// plugins. Go begins a goroutine with as much stack as goroutines had in use on average when garbage was collected last:
// /gc/stack/starting-size:bytes in runtime/metrics. In a server nearly all of them wait with little, so that this is 2 KiB, and
// each query pays for two or three larger stacks and for moving into them: a tenth of what an answer of *clusterset* costs,
// and as much of one of *kubernetes*. So one goroutine waits with a stack that is deep enough to lift the average.
const (
	// stackInUse is what goroutines shall have in use on average, in bytes. Go adds a reserve and takes the next power of 2: 8 KiB.
	stackInUse = 5500
	// deepest bounds the deep stack, in bytes. It is enough for 100 members, which take 1,400 goroutines, and is no burden when
	// a flood makes many more for a while.
	deepest = 4 << 20
	// sinkEvery is how often the depth follows the number of goroutines.
	sinkEvery = 30 * time.Second
)

// liftStacks keeps the deep stack until done is closed: for the life of the process where that is nil.
func liftStacks(done <-chan struct{}) {
	for {
		again := time.NewTimer(sinkEvery)
		sink(min(runtime.NumGoroutine()*stackInUse, deepest), again.C, done)
		select {
		case <-done:
			return
		default:
		}
	}
}

// sink waits for one of two with so many bytes of stack in use.
func sink(depth int, again <-chan time.Time, done <-chan struct{}) byte {
	var frame [8 << 10]byte
	if depth -= len(frame); depth > 0 {
		return sink(depth, again, done) + frame[depth%len(frame)] // to read it afterwards keeps the frame until then
	}
	select {
	case <-again:
	case <-done:
	}
	return frame[0]
}
