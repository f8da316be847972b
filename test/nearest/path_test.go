package nearest

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// path is the data path to a cluster, as far as a probe sees it: a listener that answers HTTP.
type path struct {
	// address is on a loopback address of its own, so that nobody takes the port while the path is down.
	address string
	hangs   atomic.Bool

	mu       sync.Mutex // guards what follows
	listener net.Listener
	held     []net.Conn
	ended    bool
	serving  sync.WaitGroup
}

var paths atomic.Int32

// newPath returns a path that works. It is gone after the test.
func newPath(t *testing.T) *path {
	t.Helper()
	p := &path{address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 99, 0, byte(paths.Add(1))}), 15443).String()}
	must(t, p.up())
	t.Cleanup(func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.refuse()
		p.serving.Wait()
	})
	return p
}

// up lets the path work.
func (p *path) up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hangs.Store(false)
	p.drop()
	if p.listener != nil || p.ended {
		return nil
	}
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.listener = l
	p.serving.Go(func() { p.serve(l) })
	return nil
}

// refuse closes the path: connections are refused.
func (p *path) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.drop()
}

// hang lets connections be made, and answers nothing.
func (p *path) hang() { p.hangs.Store(true) }

// drop is called with mu held.
func (p *path) drop() {
	for _, c := range p.held {
		_ = c.Close()
	}
	p.held = nil
}

func (p *path) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if p.hangs.Load() {
			p.mu.Lock()
			if p.listener == l {
				p.held = append(p.held, conn)
			} else {
				_ = conn.Close()
			}
			p.mu.Unlock()
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if n, _ := conn.Read(make([]byte, 4096)); n > 0 { // a request, of which the first octets are enough
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
		}
		_ = conn.Close()
	}
}

// diary notes whenever a client is answered by others than before.
type diary struct {
	begin time.Time
	stop  func()

	mu      sync.Mutex // guards what follows
	entries []entry
	failed  error
	asked   int
}

// entry says from when on who answered.
type entry struct {
	after time.Duration
	from  string
}

func (e entry) String() string {
	return fmt.Sprintf("%s after %.1f s", e.from, e.after.Seconds())
}

// askEvery is the pause between two queries of a diary.
const askEvery = 25 * time.Millisecond

// keep begins a diary, which goes on until it is stopped or the test is over.
func keep(t *testing.T, s *server.Server, port string, from netip.Addr, name string) *diary {
	t.Helper()
	d := &diary{begin: time.Now()}
	c := dial(t, s, port, from)
	var group sync.WaitGroup
	end := make(chan struct{})
	d.stop = sync.OnceFunc(func() {
		close(end)
		group.Wait()
		c.close()
	})
	t.Cleanup(d.stop)
	tick := time.NewTicker(askEvery)
	group.Go(func() {
		defer tick.Stop()
		for {
			r, err := c.ask(name, typeA)
			d.note(r, err)
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	})
	return d
}

func (d *diary) note(r reply, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if err == nil && len(r.members) != 1 {
		err = fmt.Errorf("answered by %q, rcode %d", r.from(), r.rcode)
	}
	switch {
	case err != nil && d.failed == nil:
		d.failed = err
	case err != nil:
	case len(d.entries) == 0 || d.entries[len(d.entries)-1].from != r.from():
		d.entries = append(d.entries, entry{time.Since(d.begin), r.from()})
	}
}

// read returns what has been noted.
func (d *diary) read() (entries []entry, asked int, failed error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]entry(nil), d.entries...), d.asked, d.failed
}

// moves returns when a cluster left the answers and when it came back, in turn; a diary begins with it. What the others
// make out among themselves does not count.
func moves(entries []entry, of string) (out []entry) {
	for i, e := range entries {
		if i == 0 || e.from == of || entries[i-1].from == of {
			out = append(out, e)
		}
	}
	return out
}
