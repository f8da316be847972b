package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// question is asked again and again. wrong says what is wrong with an answer, "" for nothing.
type question struct {
	name  string
	wrong func(*dns.Msg) string
}

// has wants the name to have as many A records.
func has(name string, records int) question {
	return question{name, func(m *dns.Msg) string {
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != records {
			return fmt.Sprintf("%s with %d records", dns.RcodeToString[m.Rcode], len(m.Answer))
		}
		return ""
	}}
}

// denied wants the name not to exist.
func denied(name string) question {
	return question{name, func(m *dns.Msg) string {
		if m.Rcode != dns.RcodeNameError {
			return dns.RcodeToString[m.Rcode]
		}
		return ""
	}}
}

// load asks questions over UDP, from several sockets, until it is stopped or the server is gone.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex // guards what follows
	good     int
	wrong    map[string]int // name and what was wrong
	lost     []time.Time    // when the queries without an answer were sent
	lastGood time.Time
}

// patience is how long a query waits before it counts as lost.
const patience = 2 * time.Second

// ask begins to ask, each socket with that pause after each answer.
func ask(t *testing.T, s *server.Server, pause time.Duration, questions ...question) *load {
	t.Helper()
	const sockets = 3
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel, wrong: map[string]int{}}
	for range sockets {
		conn, err := net.Dial("udp", s.Addr())
		must(t, err)
		l.done.Go(func() { l.run(ctx, &dns.Conn{Conn: conn}, pause, questions) })
	}
	t.Cleanup(func() { l.end() })
	return l
}

// end stops asking.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

func (l *load) run(ctx context.Context, conn *dns.Conn, pause time.Duration, questions []question) {
	defer conn.Close()
	for i := 0; ctx.Err() == nil; i++ {
		q := questions[i%len(questions)]
		sent := time.Now()
		m, err := exchange(conn, q.name)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			l.note(func() { l.lost = append(l.lost, sent) })
			return // nobody listens any more
		case err != nil:
			l.note(func() { l.lost = append(l.lost, sent) })
		default:
			wrong := q.wrong(m)
			l.note(func() {
				if wrong != "" {
					l.wrong[q.name+" "+wrong]++
					return
				}
				l.good++
				l.lastGood = time.Now()
			})
		}
		if pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

func (l *load) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// answered returns how many good answers there were so far.
func (l *load) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.good
}

// exchange asks for the A records of a name and waits for the answer to this very query.
func exchange(conn *dns.Conn, name string) (*dns.Msg, error) {
	m := (&dns.Msg{}).SetQuestion(name, dns.TypeA)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	for {
		answer, err := conn.ReadMsg()
		if err != nil || answer.Id == m.Id {
			return answer, err
		}
	}
}

// check wants every answer to be right and, after good ones, none lost.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(l.wrong)) {
		t.Errorf("wrong answers: %d times %s", l.wrong[what], what)
	}
	if len(l.lost) > 0 {
		t.Errorf("%d of %d queries without an answer", len(l.lost), len(l.lost)+l.good)
	}
	if l.good == 0 {
		t.Error("no good answer at all")
	}
}

// readiness polls *ready* without a pause.
type readiness struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	answers map[string]int
	closed  int
}

func watchReadiness(t *testing.T, s *server.Server) *readiness {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &readiness{stop: cancel, answers: map[string]int{}}
	url := "http://127.0.0.1:" + strconv.Itoa(s.Port("Ready")) + "/ready"
	r.done.Go(func() {
		for ctx.Err() == nil {
			status, body, err := fetch(ctx, url)
			r.mu.Lock()
			switch {
			case err == nil && body != "Shutting down":
				r.answers[strconv.Itoa(status)+" "+body]++
			case ctx.Err() == nil:
				r.closed++
			}
			r.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { r.end() })
	return r
}

// fetch gets a page on a connection of its own.
func fetch(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func (r *readiness) end() {
	r.stop()
	r.done.Wait()
}

// check wants every answer to be 200. During a reload *ready* itself is closed for a moment, whatever the other plugins
// do: the old instance says "Shutting down", then nobody listens until the new one does. That is only counted.
func (r *readiness) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Logf("readiness: %v, %d times closed", r.answers, r.closed)
	if len(r.answers) != 1 || r.answers["200 OK"] == 0 {
		t.Errorf("readiness: %v, want 200 only", r.answers)
	}
}
