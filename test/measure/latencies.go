//go:build linux

package measure

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Latencies are what Steady has measured.
type Latencies struct {
	// Took is how long answers took, sorted.
	Took []time.Duration
	// LeftOut is the share of the questions that were not asked, since the one who asks had no processor when they were due.
	LeftOut float64
	// Stolen is the share of the time in which the host ran others on the processor of servers.
	Stolen float64
}

const (
	// mostLeftOut is what may be left out for the rest to say something.
	mostLeftOut = 0.5
	// undisturbed is what may be stolen without much effect on the slowest hundredth of all answers.
	undisturbed = 0.003
	// tries is how often Steady measures in search of such a time.
	tries = 3
)

// better reports whether less came in between than with others.
func (l Latencies) better(than Latencies) bool {
	if enough := l.LeftOut <= mostLeftOut; enough != (than.LeftOut <= mostLeftOut) {
		return enough
	}
	return l.Stolen < than.Stolen
}

// Steady asks a server at a fixed rate for so long, after a while in which it gets used to that. When the host of a virtual
// machine was busy meanwhile it asks again, three times in all, and returns those latencies with which it interfered least. The
// error is ErrLost when too many questions were lost.
func Steady(port int, questions []Question, perSecond int, d time.Duration) (best Latencies, err error) {
	g, err := NewGenerator(port, questions)
	if err != nil {
		return best, err
	}
	err = OnThread(func() error {
		if err := last(); err != nil {
			return err
		}
		if _, _, err := g.Steady(perSecond, Warm); err != nil {
			return err
		}
		for try := range tries {
			l, err := g.latencies(perSecond, d)
			if err != nil {
				return err
			}
			if try == 0 || l.better(best) {
				best = l
			}
			if best.LeftOut <= mostLeftOut && best.Stolen <= undisturbed {
				break
			}
		}
		return nil
	})
	if err == nil {
		err = g.CheckLost()
	}
	return best, errors.Join(err, g.Close())
}

// latencies asks once.
func (g *Generator) latencies(perSecond int, d time.Duration) (l Latencies, err error) {
	before, err := stolen()
	if err != nil {
		return l, err
	}
	took, leftOut, err := g.Steady(perSecond, d)
	if err != nil {
		return l, err
	}
	after, err := stolen()
	l.Took, l.LeftOut = took, float64(leftOut)/float64(max(leftOut+len(took), 1))
	l.Stolen = (after - before).Seconds() / d.Seconds()
	return l, err
}

// last lets this thread run when no other wants its processor. Those of who simulates clusters and of control planes do, for a moment
// each time: let in late, they would do all at once what they should have done meanwhile, and the server got its updates in heaps.
func last() error {
	const lowest = 19
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest); err != nil {
		return fmt.Errorf("ask when others have no need of the processor: %w", err)
	}
	return nil
}
