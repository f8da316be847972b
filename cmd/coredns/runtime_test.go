package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGarbageThatMayPileUp(t *testing.T) {
	const mb = 1 << 20
	tests := []struct {
		name         string
		live, before uint64
		want         int
	}{
		{"a small heap may have twice as much", 10 * mb, 10 * mb, 220},
		{"one as with 10,000 services still has", 30 * mb, 30 * mb, 220},
		{"a larger one has less", 32 * mb, 32 * mb, 200},
		{"and less", 40 * mb, 40 * mb, 140},
		{"in steps, as each change stops the world", 41 * mb, 41 * mb, 130},
		{"one of which half lives when it is no longer small has the usual", 48 * mb, 48 * mb, 100},
		{"one that is no longer small without garbage has the usual", 97 * mb, 97 * mb, 100},
		{"a very large heap has the usual", 1 << 40, 1 << 40, 100},
		{"a tiny heap that grows may have four times as much", 4 * mb, 3 * mb, 400},
		{"what lived before is not known, so it grows", 4 * mb, 0, 400},
		{"it has less the more lives", 6 * mb, 4 * mb, 300},
		{"and less", 10 * mb, 6 * mb, 140},
		{"a small heap that grows has the usual", 12 * mb, 10 * mb, 100},
		{"a large one too at first", 36 * mb, 20 * mb, 100},
		{"a large heap that grows is collected sooner", 60 * mb, 50 * mb, 75},
		{"one that changes a little does not grow", 11 * mb, 10 * mb, 220},
		{"one that shrinks has room", 10 * mb, 60 * mb, 220},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := percentFor(test.live, test.before); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

func TestEachCollectionIsTold(t *testing.T) {
	told := make(chan struct{}, 100)
	afterCollections(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	for n := range 3 {
		runtime.GC()
		select {
		case <-told:
		case <-time.After(time.Minute):
			t.Fatalf("Nothing was told of collection %d", n+1)
		}
	}
}

func TestASmallHeapIsSparedFromItsNextCollectionsOn(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set: it has the last word")
	}
	defer debug.SetGCPercent(usualPercent)
	debug.SetGCPercent(usualPercent)
	runtime.GC() // so that the next is far away
	spareCollections()
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	if metrics.Read(sample); sample[0].Value.Uint64() != tinyPercent {
		t.Errorf("GOGC is %d at first, want %d", sample[0].Value.Uint64(), tinyPercent)
	}
	within(t, func() error {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}}
		metrics.Read(s)
		if got, live := s[0].Value.Uint64(), s[1].Value.Uint64(); got != uint64(percentFor(live, live)) || got == usualPercent {
			return fmt.Errorf("GOGC is %d while %d bytes live", got, live)
		}
		return nil
	})
}

func TestNewGoroutinesHaveStackForAQuery(t *testing.T) {
	idle := make(chan struct{})
	defer close(idle)
	for range 100 { // as many as a server has that wait
		go func() { <-idle }()
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		liftStacks(done)
		close(ended)
	}()
	starting := func() uint64 {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/stack/starting-size:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	within(t, func() error { // the goroutine needs a moment to sink
		if got := starting(); got != 8192 {
			return fmt.Errorf("%d bytes, want 8192", got)
		}
		return nil
	})
	close(done)
	<-ended
	within(t, func() error {
		if got := starting(); got >= 8192 {
			return fmt.Errorf("still %d bytes without the deep stack: what lifted them was something else", got)
		}
		return nil
	})
}

// within tries again and again until there is no error.
func within(t *testing.T, try func() error) {
	t.Helper()
	err := try()
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); err = try() {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
}
