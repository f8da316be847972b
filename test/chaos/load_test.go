package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	// sockets ask at the same time, each with a pause after every answer: about 450 queries a second.
	sockets = 4
	pause   = 8 * time.Millisecond
	// patience is how long a query waits before it counts as unanswered.
	patience = time.Second
)

// phase is a time in which the same answers are right.
type phase struct {
	allowed allowed
	names   []string
}

// load asks all names of the phase, over UDP, from several sockets, until it is stopped.
type load struct {
	stop  context.CancelFunc
	done  sync.WaitGroup
	phase atomic.Pointer[phase]

	mu    sync.Mutex // guards what follows
	tally tally
	right map[string]time.Time // when each name was last answered rightly
}

// tally is what became of the queries.
type tally struct {
	queries, right, servfail, unanswered int
	wrong                                map[string]int // what was answered to what
	refused                              map[string]int // the names that were SERVFAIL, or not answered, against what is right
	gap                                  time.Duration  // the longest time without a right answer, of any name
	gapOf                                string         // which
}

// ask begins to ask.
func ask(t *testing.T, s *server.Server, b belief) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel, right: map[string]time.Time{}, tally: tally{wrong: map[string]int{}, refused: map[string]int{}}}
	l.enter(b)
	for i := range sockets {
		conn, err := net.Dial("udp", s.Addr())
		must(t, err)
		l.done.Go(func() { l.run(ctx, &dns.Conn{Conn: conn}, i) })
	}
	t.Cleanup(func() { l.end() })
	return l
}

// enter begins another phase. What was asked before and is answered after may be right by either.
func (l *load) enter(b belief) {
	p := &phase{allowed: b.allows()}
	p.names = slices.Sorted(maps.Keys(p.allowed))
	l.phase.Store(p)
}

// end stops asking and returns what has become of it all.
func (l *load) end() tally {
	l.stop()
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.phase.Load().allowed {
		l.close(name, time.Now())
	}
	return l.tally
}

func (l *load) run(ctx context.Context, conn *dns.Conn, i int) {
	defer conn.Close()
	for ; ctx.Err() == nil; i++ {
		before := l.phase.Load()
		name := before.names[i%len(before.names)]
		m, err := exchange(conn, name)
		if ctx.Err() != nil && err != nil {
			return
		}
		l.note(name, m, err, before, l.phase.Load())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// note counts an answer that was asked for in one phase and came in another.
func (l *load) note(name string, m *dns.Msg, err error, before, after *phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.queries++
	if err != nil {
		l.tally.unanswered++
		why := "in time"
		if errors.Is(err, syscall.ECONNREFUSED) {
			why = "since nobody listens"
		}
		l.tally.refused[name+" "+why]++
		return
	}
	if m.Rcode == dns.RcodeServerFailure {
		l.tally.servfail++
	}
	switch o := outcomeOf(m); {
	case before.allowed[name][o] || after.allowed[name][o]:
		l.tally.right++
		l.close(name, time.Now())
	case m.Rcode == dns.RcodeServerFailure:
		l.tally.refused[name+" SERVFAIL"]++
	default:
		l.tally.wrong[fmt.Sprintf("%s: %s", name, o)]++
	}
}

// close ends the time since the last right answer.
func (l *load) close(name string, now time.Time) {
	if last, ok := l.right[name]; ok && now.Sub(last) > l.tally.gap {
		l.tally.gap, l.tally.gapOf = now.Sub(last), name
	}
	l.right[name] = now
}

// more waits until that many further queries have been answered rightly.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.tally.right
	}
	from := count()
	within(t, limit, "load", func(context.Context) error {
		if got := count() - from; got < n {
			return fmt.Errorf("%d of %d answers", got, n)
		}
		return nil
	})
}

// exchange asks for the A records of a name and waits for the answer to this very query.
func exchange(conn *dns.Conn, name string) (*dns.Msg, error) {
	m := (&dns.Msg{}).SetQuestion(name, dns.TypeA)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	// Of an earlier query: nobody listened then.
	if err := conn.WriteMsg(m); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, err
	} else if err != nil {
		if err := conn.WriteMsg(m); err != nil {
			return nil, err
		}
	}
	for {
		answer, err := conn.ReadMsg()
		if err != nil || answer.Id == m.Id {
			return answer, err
		}
	}
}
