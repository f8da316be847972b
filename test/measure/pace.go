//go:build linux

package measure

import "time"

// pace says when questions are due that are asked at a fixed rate, and which are left out.
type pace struct {
	begin     time.Time
	interval  time.Duration
	questions int // in all
	next      int // counts them
	// behind is set while questions are late since the server held no more of them.
	behind  bool
	leftOut int
}

const (
	// heldUpAfter is longer than others need the processor of who asks at a time.
	heldUpAfter = 250 * time.Microsecond
	// sentWithin is longer than it takes to send a question: mostly 5 to 20 us.
	sentWithin = 100 * time.Microsecond
)

func newPace(begin time.Time, perSecond int, d time.Duration) *pace {
	return &pace{begin: begin, interval: time.Second / time.Duration(perSecond), questions: int(d.Seconds() * float64(perSecond))}
}

// due is when the next question is.
func (p *pace) due() time.Time { return p.begin.Add(time.Duration(p.next) * p.interval) }

// skip leaves out what should have been asked while the one who asks had no processor, and reports whether there was something. The
// host of a virtual machine takes it away, or another process. Asked all at once afterwards, they would wait for each other.
func (p *pace) skip(now time.Time) bool {
	late := now.Sub(p.due())
	if p.behind || late <= heldUpAfter {
		return false
	}
	n := min(int(late/p.interval), p.questions-p.next)
	if n == 0 { // a slow pace
		return false
	}
	p.leftOut += n
	p.next += n
	return true
}

// asked tells that the next question is being asked, and returns from when on its time counts: from now, unless the server let it
// wait before.
func (p *pace) asked(now time.Time) (from time.Time) {
	from = now
	if p.behind {
		from = p.due()
		p.behind = now.Sub(from) > p.interval
	}
	p.next++
	return from
}

// heldUp leaves the question out that was asked last if sending it took so long that the one who asks had no processor meanwhile, and
// reports whether it did: nobody knows when it was sent.
func (p *pace) heldUp(sending time.Duration) bool {
	if sending <= sentWithin {
		return false
	}
	p.leftOut++
	return true
}
