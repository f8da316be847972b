//go:build linux

package measure

import (
	"errors"
	"time"
)

// Latencies are what Steady has measured.
type Latencies struct {
	// Took is how long answers took, sorted.
	Took []time.Duration
	// LeftOut is the share of the questions that are not in it, since the one who asks had no processor.
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
		if _, err := g.Steady(perSecond, Warm); err != nil {
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
	if l.Took, err = g.Steady(perSecond, d); err != nil {
		return l, err
	}
	after, err := stolen()
	l.LeftOut = float64(g.voided) / float64(max(g.voided+len(l.Took), 1))
	l.Stolen = (after - before).Seconds() / d.Seconds()
	return l, err
}
