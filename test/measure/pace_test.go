//go:build linux

package measure

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name   string
		next   int           // is due after so many ms
		now    time.Duration // since the begin
		behind bool
		// what comes of it
		leftOut     int
		from        time.Duration
		stillBehind bool
	}{
		{"who is in time asks, and the time counts from now", 3, 3*ms + 100*time.Microsecond, false, 0, 3*ms + 100*time.Microsecond, false},
		{"who was held up leaves out what was due meanwhile", 3, 7*ms + 100*time.Microsecond, false, 4, 7*ms + 100*time.Microsecond, false},
		{"what the server let wait counts from when it was due", 3, 7 * ms, true, 0, 3 * ms, true},
		{"that ends when the next is due", 3, 4 * ms, true, 0, 3 * ms, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			begin := time.Now()
			p := newPace(begin, 1000, time.Second)
			p.next, p.behind = test.next, test.behind
			now := begin.Add(test.now)
			if got := p.skip(now); got != (test.leftOut > 0) || p.leftOut != test.leftOut || p.next != test.next+test.leftOut {
				t.Errorf("%t, %d left out, %d is next; want %d left out", got, p.leftOut, p.next, test.leftOut)
			}
			if p.skip(now) {
				t.Error("something is left out once more")
			}
			if from := p.asked(now).Sub(begin); from != test.from || p.behind != test.stillBehind {
				t.Errorf("the time counts from %s, behind is %t; want %s, %t", from, p.behind, test.from, test.stillBehind)
			}
			if want := test.next + test.leftOut + 1; p.next != want {
				t.Errorf("%d is next, want %d", p.next, want)
			}
		})
	}
}

// TestPaceAtItsEnds is for who was held up until all was over, and for a pace so slow that nothing was due meanwhile.
func TestPaceAtItsEnds(t *testing.T) {
	begin := time.Now()
	p := newPace(begin, 1000, time.Second)
	if p.next = 990; !p.skip(begin.Add(time.Minute)) || p.leftOut != 10 || p.next != p.questions {
		t.Errorf("%d left out, %d is next; want the last 10, and none", p.leftOut, p.next)
	}
	if p := newPace(begin, 10, time.Second); p.skip(begin.Add(50 * time.Millisecond)) {
		t.Errorf("%d left out, want none", p.leftOut)
	}
}

func TestWhatWasHeldUpInSendingIsLeftOut(t *testing.T) {
	tests := []struct {
		name    string
		sending time.Duration
		want    bool
	}{
		{"sending takes a few microseconds", 20 * time.Microsecond, false},
		{"up to a bound", sentWithin, false},
		{"who had no processor meanwhile does not know when it was sent", sentWithin + 1, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPace(time.Now(), 1000, time.Second)
			p.asked(p.due())
			want := 0
			if test.want {
				want = 1
			}
			if got := p.heldUp(test.sending); got != test.want || p.leftOut != want || p.next != 1 {
				t.Errorf("%t, %d left out, %d is next; want %t, %d, 1", got, p.leftOut, p.next, test.want, want)
			}
		})
	}
}
