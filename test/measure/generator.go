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
	took      []time.Duration // since the question was due; only where asked for
	// holdUps are those of the one who asks, and voided how many questions they spoiled.
	holdUps holdUps
	voided  int
	out, in *batch
}

// client is a socket with the questions that are under way, by their id.
type client struct {
	fd      int
	id      uint16
	waiting int
	asked   [1 << 16]underWay
}

// underWay is a question that was asked; question is nil when none is.
type underWay struct {
	question *Question
	due      time.Time
}

// holdUps tells when the one who asks had no processor, by the time between two turns of a loop that never waits: what the host of a
// virtual machine takes away, or another process.
type holdUps struct{ last, end time.Time }

// heldUpAfter is longer than any turn that has a processor takes.
const heldUpAfter = 250 * time.Microsecond

// turn is called in each.
func (h *holdUps) turn(now time.Time) {
	if !h.last.IsZero() && now.Sub(h.last) > heldUpAfter {
		h.end = now
	}
	h.last = now
}

// spoil reports whether one of them lies within or after the time at which something was due: how long that took says nothing about
// the server then.
func (h *holdUps) spoil(due time.Time) bool { return due.Before(h.end) }

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

// OnThread calls do on a thread that is pinned to the processor of who asks, if there is more than one. No garbage is
// collected meanwhile, which would take a processor from who asks or from the server.
func OnThread(do func() error) error {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and its pinning with it
		err := pin(0, askerProcessor)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// Answered is how many answers have come so far.
func (g *Generator) Answered() int { return g.answered }

// Flood asks as fast as answers come, for so long, and returns how many came. The window is full at the end.
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

// Steady asks so many questions per second, for so long, whether answers come or not, and returns how long each took
// since it was due, sorted. What is lost took until the end. Left out are those during which the one who asks was held up.
func (g *Generator) Steady(perSecond int, d time.Duration) ([]time.Duration, error) {
	n := int(d.Seconds() * float64(perSecond))
	g.took, g.voided, g.holdUps = make([]time.Duration, 0, n), 0, holdUps{}
	interval := time.Second / time.Duration(perSecond)
	begin := time.Now()
	deadline := begin.Add(d + lostAfter)
	for asked := 0; len(g.took)+g.voided < n; {
		now := time.Now()
		if runtime.NumCPU() > 1 { // alone, it has to wait
			g.holdUps.turn(now)
		}
		if now.After(deadline) {
			break
		}
		due := begin.Add(time.Duration(asked) * interval)
		// Who is late catches up, but not faster than the server's socket can hold.
		if c := g.clients[asked%len(g.clients)]; asked < n && !now.Before(due) && c.waiting < window {
			if err := g.ask(c, 1, due); err != nil {
				return nil, err
			}
			asked++
			continue
		}
		idle := true
		for _, c := range g.clients {
			got, err := g.receive(c)
			if err != nil {
				return nil, err
			}
			idle = idle && got == 0
		}
		if idle && runtime.NumCPU() == 1 {
			g.pause(interval)
		}
	}
	now := time.Now()
	for _, c := range g.clients {
		for _, w := range c.asked {
			if w.question != nil {
				g.took = append(g.took, now.Sub(w.due))
			}
		}
		g.forget(c)
	}
	slices.Sort(g.took)
	return g.took, nil
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
		switch {
		case was.due.IsZero():
		case g.holdUps.spoil(was.due):
			g.voided++
		default:
			g.took = append(g.took, time.Since(was.due))
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
