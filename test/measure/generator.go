//go:build linux

package measure

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sockets is how many clients ask, each from an address of its own.
	sockets = 8
	// window is how many questions of a client are under way while a server is asked as fast as it answers.
	window = 16
	// lostAfter is how long nothing may be answered until what is under way counts as lost.
	lostAfter = time.Second
	// Warm is how long a server is asked before anything is measured.
	Warm = 300 * time.Millisecond
	// tolerated is the share of questions that may be lost.
	tolerated = 0.001
)

// The server has the first processor for itself, who asks has the second.
const (
	ServerProcessor = 0
	askerProcessor  = 1
)

// Generator asks a server from one thread of its own, without allocating.
type Generator struct {
	questions []Question
	next      int
	clients   []*client
	answered  int
	lost      int
	took      []time.Duration // since the question was asked; only of Steady
	out, in   *batch
}

// client is a socket with the questions that are under way, by their id.
type client struct {
	fd      int
	id      uint16
	waiting int
	asked   [1 << 16]underWay
}

// underWay is a question that was asked; question is nil when none is. due is the zero time where nobody wants to know how long it
// takes.
type underWay struct {
	question *Question
	due      time.Time
}

// disregard makes nobody want to know how long the question takes that was asked last.
func (c *client) disregard() { c.asked[c.id].due = time.Time{} }

// NewGenerator connects to port of 127.0.0.1. The client's addresses are 127.0.1.1 and so on.
func NewGenerator(port int, questions []Question) (*Generator, error) {
	g := &Generator{questions: questions, out: newBatch(), in: newBatch()}
	for i := range sockets {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open a socket: %w", err), g.Close())
		}
		g.clients = append(g.clients, &client{fd: fd})
		err = errors.Join(
			unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + i)}}),
			unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}),
		)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connect to port %d: %w", port, err), g.Close())
		}
	}
	return g, nil
}

// Close closes the sockets.
func (g *Generator) Close() error {
	var errs []error
	for _, c := range g.clients {
		errs = append(errs, unix.Close(c.fd))
	}
	return errors.Join(errs...)
}

// besides is how many goroutines of this process run Go code at a time while one asks. He never gives up his place, and where there
// is only one other, what is due by a timer comes up to 10 ms late: simulated clusters told their updates in heaps of ten.
const besides = 3

// OnThread calls do on a thread that is pinned to the processor of who asks, if there is more than one. No garbage is
// collected meanwhile, which would take a processor from who asks or from the server.
func OnThread(do func() error) error {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if places := runtime.GOMAXPROCS(0); places < 1+besides {
		runtime.GOMAXPROCS(1 + besides)
		defer runtime.GOMAXPROCS(places)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		// The first thread of a process does not, and says where the process may run.
		var was unix.CPUSet
		err := unix.SchedGetaffinity(0, &was)
		if err == nil {
			err = pin(0, askerProcessor)
		}
		if err == nil {
			err = errors.Join(do(), unix.SchedSetaffinity(0, &was))
		}
		done <- err
	}()
	return <-done
}

// Answered is how many answers have come so far.
func (g *Generator) Answered() int { return g.answered }

// Flood asks as fast as answers come, for so long, and returns how many came. The window is full at the end. The error is
// ErrLost when none came.
func (g *Generator) Flood(d time.Duration) (answered int, err error) {
	before := g.answered
	for _, c := range g.clients {
		if err := g.ask(c, window-c.waiting, time.Time{}); err != nil {
			return 0, err
		}
	}
	now := time.Now()
	end, last := now.Add(d), now
	for ; now.Before(end); now = time.Now() {
		idle := true
		for _, c := range g.clients {
			n, err := g.receive(c)
			if err != nil {
				return 0, err
			}
			if err := g.ask(c, n, time.Time{}); err != nil {
				return 0, err
			}
			idle = idle && n == 0
		}
		switch {
		case !idle:
			last = now
		case now.Sub(last) > lostAfter:
			if err := g.again(); err != nil {
				return 0, err
			}
			last = now
		case runtime.NumCPU() == 1:
			// Elsewhere nobody sleeps: a server that is slower than the asker would pay for waking it with each answer,
			// and a faster one would not.
			g.pause(time.Millisecond)
		}
	}
	if g.answered == before {
		return 0, fmt.Errorf("%w: none in %s", ErrLost, d)
	}
	return g.answered - before, nil
}

// again gives up what is under way and fills the windows anew.
func (g *Generator) again() error {
	for _, c := range g.clients {
		g.forget(c)
		if err := g.ask(c, window, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

func (g *Generator) forget(c *client) {
	g.lost += c.waiting
	c.waiting = 0
	clear(c.asked[:])
}

// Steady asks so many questions per second, for so long, whether answers come or not, and returns how long each took, sorted, and
// how many were not asked since the one who asks was held up. What is lost took until the end.
//
// The kernel tells when answers came, so that others may have the processor of who asks when they do. He does not sleep: the server
// would wake him up with each answer.
func (g *Generator) Steady(perSecond int, d time.Duration) (took []time.Duration, leftOut int, err error) {
	if err := g.stamped(); err != nil {
		return nil, 0, err
	}
	p := newPace(time.Now(), perSecond, d)
	g.took = make([]time.Duration, 0, p.questions)
	deadline := p.begin.Add(d + lostAfter)
	now := p.begin
	for ; p.next < p.questions && now.Before(deadline) && err == nil; now = time.Now() {
		c := g.clients[p.next%len(g.clients)]
		switch {
		case now.Before(p.due()):
			err = g.rest(p.due())
		case c.waiting == window: // the server's socket can hold no more
			p.behind = true
			err = g.rest(now.Add(p.interval))
		case !p.skip(now):
			if err = g.ask(c, 1, p.asked(now)); p.heldUp(time.Since(now)) {
				c.disregard()
			}
		}
	}
	for ; g.waiting() > 0 && now.Before(deadline) && err == nil; now = time.Now() {
		err = g.rest(now.Add(p.interval))
	}
	if err != nil {
		return nil, 0, err
	}
	g.giveUp(now)
	slices.Sort(g.took)
	return g.took, p.leftOut, nil
}

// giveUp forgets what is under way. It took until now.
func (g *Generator) giveUp(now time.Time) {
	for _, c := range g.clients {
		for _, w := range c.asked {
			if w.question != nil && !w.due.IsZero() {
				g.took = append(g.took, now.Sub(w.due))
			}
		}
		g.forget(c)
	}
}

// stamped lets the kernel tell when answers came.
func (g *Generator) stamped() error {
	for _, c := range g.clients {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return fmt.Errorf("ask when answers come: %w", err)
		}
	}
	return nil
}

// waiting is how many questions are under way.
func (g *Generator) waiting() (n int) {
	for _, c := range g.clients {
		n += c.waiting
	}
	return n
}

// rest takes what has come. Alone on a machine with a server, the one who asks sleeps then.
func (g *Generator) rest(until time.Time) error {
	for _, c := range g.clients {
		if _, err := g.receive(c); err != nil {
			return err
		}
	}
	if runtime.NumCPU() == 1 {
		g.pause(max(0, time.Until(until)))
	}
	return nil
}

// pause waits until something has come, or so long.
func (g *Generator) pause(d time.Duration) {
	fds := make([]unix.PollFd, 0, sockets)
	for _, c := range g.clients {
		fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: unix.POLLIN})
	}
	timeout := unix.NsecToTimespec(d.Nanoseconds())
	_, _ = unix.Ppoll(fds, &timeout, nil) // an error ends the pause, and the next read tells what is wrong
}

// ask sends the next n questions, at most window.
func (g *Generator) ask(c *client, n int, due time.Time) error {
	for i := range n {
		q := &g.questions[g.next]
		if g.next++; g.next == len(g.questions) {
			g.next = 0
		}
		c.id++
		q.Packet[0], q.Packet[1] = byte(c.id>>8), byte(c.id)
		c.asked[c.id] = underWay{q, due}
		g.out.set(i, q.Packet)
	}
	c.waiting += n
	if err := g.out.send(c.fd, n); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	return nil
}

// receive takes what has come for a client, and returns how many answers these were.
func (g *Generator) receive(c *client) (int, error) {
	n, err := g.in.receive(c.fd)
	if err != nil {
		return 0, fmt.Errorf("read an answer: %w", err)
	}
	answers := 0
	for i := range n {
		answer := g.in.message(i)
		if len(answer) < 12 {
			return answers, fmt.Errorf("an answer has %d octets", len(answer))
		}
		id := uint16(answer[0])<<8 | uint16(answer[1])
		was := c.asked[id]
		if was.question == nil {
			continue // it was given up
		}
		c.asked[id] = underWay{}
		c.waiting--
		if err := was.question.check(answer); err != nil {
			return answers, err
		}
		if !was.due.IsZero() {
			g.took = append(g.took, g.in.came(i).Sub(was.due))
		}
		answers++
	}
	g.answered += answers
	return answers, nil
}

// check tells what is wrong with an answer.
func (q *Question) check(answer []byte) error {
	rcode, records := int(answer[3]&0xf), int(answer[6])<<8|int(answer[7])
	if answer[2]&0x80 == 0 || rcode != q.Rcode || records < q.Least || records > q.Most {
		return fmt.Errorf("a wrong answer: rcode %d with %d records instead of rcode %d with %d to %d; the question was %q",
			rcode, records, q.Rcode, q.Least, q.Most, q.Packet[12:])
	}
	return nil
}

// ErrLost says that too many questions were lost for the figures to mean anything.
var ErrLost = errors.New("too many questions were not answered")

// CheckLost returns ErrLost if so.
func (g *Generator) CheckLost() error {
	if g.answered == 0 || float64(g.lost) > tolerated*float64(g.lost+g.answered) {
		return fmt.Errorf("%w: %d of %d", ErrLost, g.lost, g.lost+g.answered)
	}
	return nil
}
