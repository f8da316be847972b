//go:build linux

package measure

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// answering starts a server with a handler, and returns its port.
func answering(t *testing.T, handler dns.HandlerFunc) int {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listening, served := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: conn, Handler: handler, NotifyStartedFunc: func() { close(listening) }}
	go func() { served <- s.ActivateAndServe() }()
	select {
	case <-listening:
	case err := <-served:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func TestGenerator(t *testing.T) {
	// One record for every name, so that one handler is right for all questions.
	questions, err := Draw(200, func(i int) Service { return Service{fmt.Sprintf("svc%d.shop.svc.clusterset.local.", i), 1, "http"} }, 1)
	if err != nil {
		t.Fatal(err)
	}
	questions = slices.DeleteFunc(questions, func(q Question) bool { return q.Most == 0 })
	reply := func(change func(*dns.Msg)) dns.HandlerFunc {
		return func(w dns.ResponseWriter, r *dns.Msg) {
			m := (&dns.Msg{}).SetReply(r)
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{10, 0, 0, 1}}}
			change(m)
			_ = w.WriteMsg(m) // the asker may have gone
		}
	}
	tests := []struct {
		name    string
		handler dns.HandlerFunc
		want    string // in the error, "" for none
	}{
		{"right answers are counted", reply(func(*dns.Msg) {}), ""},
		{"another rcode is an error", reply(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), "rcode 2"},
		{"a missing record is an error", reply(func(m *dns.Msg) { m.Answer = nil }), "with 0 records"},
		{"answers with another id are none", reply(func(m *dns.Msg) { m.Id += 1 << 15 }), ErrLost.Error()},
		{"no answer is none", func(dns.ResponseWriter, *dns.Msg) {}, ErrLost.Error()},
	}
	ways := map[string]func(*Generator) (int, error){
		"flood": func(g *Generator) (int, error) { return g.Flood(1100 * time.Millisecond) },
		"steady": func(g *Generator) (int, error) {
			took, leftOut, err := g.Steady(1000, 200*time.Millisecond)
			return len(took) + leftOut, err
		},
	}
	for _, test := range tests {
		for way, ask := range ways {
			t.Run(test.name+", "+way, func(t *testing.T) {
				g, err := NewGenerator(answering(t, test.handler), questions)
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				n, err := ask(g)
				if way == "flood" && n == 0 && err == nil {
					t.Error("nothing was answered, and that is no error")
				}
				if err == nil {
					err = g.CheckLost()
				}
				switch {
				case test.want == "" && err != nil:
					t.Error(err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%v, want %s", err, test.want)
				}
				if way == "steady" && n != 200 && test.want == "" {
					t.Errorf("%d questions are answered or left out, want 200", n)
				}
			})
		}
	}
}

// unknownNames are questions about names that do not exist.
func unknownNames(t *testing.T) []Question {
	t.Helper()
	questions, err := Draw(200, func(i int) Service { return Service{fmt.Sprintf("svc%d.shop.svc.clusterset.local.", i), 0, "http"} }, 1)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(questions, func(q Question) bool { return q.Rcode != dns.RcodeNameError })
}

// askingWhoDenies returns a Generator for a server that denies all names.
func askingWhoDenies(t *testing.T) *Generator {
	t.Helper()
	g, err := NewGenerator(answering(t, func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg((&dns.Msg{}).SetRcode(r, dns.RcodeNameError)) // the asker may have gone
	}), unknownNames(t))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestAnAnswerCountsFromItsArrival reads an answer some time after it came.
func TestAnAnswerCountsFromItsArrival(t *testing.T) {
	g := askingWhoDenies(t)
	defer g.Close()
	if err := g.stamped(); err != nil {
		t.Fatal(err)
	}
	c, asked := g.clients[0], time.Now()
	if err := g.ask(c, 1, asked); err != nil {
		t.Fatal(err)
	}
	g.pause(10 * time.Second)
	there := time.Since(asked)
	time.Sleep(20 * time.Millisecond)
	if n, err := g.receive(c); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if took := g.took[0]; took <= 0 || took > there {
		t.Errorf("it took %s, want %s at most, after which it was there", took, there)
	}
}

// TestQuestionsWaitForAServerThatHoldsNoMore asks one that answers nothing for a second: what is due meanwhile is late by its fault,
// and not left out. Less is left out for the one who asks, whatever holds him up: there is not so much time before and after.
func TestQuestionsWaitForAServerThatHoldsNoMore(t *testing.T) {
	var held atomic.Int32
	release := make(chan struct{})
	g, err := NewGenerator(answering(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if held.Add(1) == 1 {
			time.AfterFunc(time.Second, func() { close(release) })
		}
		<-release
		_ = w.WriteMsg((&dns.Msg{}).SetRcode(r, dns.RcodeNameError)) // the asker may have gone
	}), unknownNames(t))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	took, leftOut, err := g.Steady(1000, 1500*time.Millisecond)
	if err != nil || len(took)+leftOut != 1500 || leftOut > 700 {
		t.Errorf("%d answered, %d left out, %v; want 1500 in all, and few left out", len(took), leftOut, err)
	}
	if len(took) > 0 && took[len(took)-1] < time.Second {
		t.Errorf("the slowest took %s, want a second", took[len(took)-1])
	}
}

// TestNoThreadStaysPinned looks at threads that have asked, unless they have ended.
func TestNoThreadStaysPinned(t *testing.T) {
	usable, err := processors()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		thread := 0
		if err := OnThread(func() error { thread = unix.Gettid(); return nil }); err != nil {
			t.Fatal(err)
		}
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(thread, &set); err == nil && set.Count() != len(usable) {
			t.Fatalf("a thread that is done may use %d processors, want %d", set.Count(), len(usable))
		}
	}
}

// TestOthersHavePlacesWhileOneAsks is for what is due by timers meanwhile: with one other place, it comes late by up to 10 ms.
func TestOthersHavePlacesWhileOneAsks(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	err := OnThread(func() error {
		if got := runtime.GOMAXPROCS(0); got < 1+besides {
			return fmt.Errorf("%d places, want %d", got, 1+besides)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d places afterwards, want %d as before", got, before)
	}
}

// TestADisregardedQuestionCountsForNothing asks two questions of which one is disregarded.
func TestADisregardedQuestionCountsForNothing(t *testing.T) {
	g := askingWhoDenies(t)
	defer g.Close()
	c := g.clients[0]
	for range 2 {
		if err := g.ask(c, 1, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	c.disregard()
	for deadline := time.Now().Add(time.Minute); c.waiting > 0; {
		if _, err := g.receive(c); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are not answered", c.waiting)
		}
	}
	if len(g.took) != 1 || g.answered != 2 {
		t.Errorf("the time of %d counts, and %d are answered; want 1 and 2", len(g.took), g.answered)
	}
}

// TestADisregardedQuestionCountsForNothingThoughItIsLost gives up two questions of which one is disregarded.
func TestADisregardedQuestionCountsForNothingThoughItIsLost(t *testing.T) {
	g := askingWhoDenies(t)
	defer g.Close()
	c, asked := g.clients[0], time.Now()
	for range 2 {
		if err := g.ask(c, 1, asked); err != nil {
			t.Fatal(err)
		}
	}
	c.disregard()
	if g.giveUp(asked.Add(time.Second)); !slices.Equal(g.took, []time.Duration{time.Second}) || g.lost != 2 || g.waiting() != 0 {
		t.Errorf("%v count, %d are lost, %d are under way; want one of a second, 2, 0", g.took, g.lost, g.waiting())
	}
}

// TestWhoAsksGoesLast looks at the priority of the thread that asks.
func TestWhoAsksGoesLast(t *testing.T) {
	err := OnThread(func() error {
		if err := last(); err != nil {
			return err
		}
		// The system call has 20 less that.
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid()); got != 1 || err != nil {
			return fmt.Errorf("the priority is %d, %w; want 1", got, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBetterLatencies(t *testing.T) {
	tests := []struct {
		name      string
		l, others Latencies
		want      bool
	}{
		{"less stolen is better", Latencies{Stolen: 0.01}, Latencies{Stolen: 0.02}, true},
		{"as much is not", Latencies{Stolen: 0.01}, Latencies{Stolen: 0.01}, false},
		{"what is left out does not count while it is not most", Latencies{Stolen: 0.01, LeftOut: 0.5}, Latencies{Stolen: 0.02}, true},
		{"with most left out it is worse", Latencies{LeftOut: 0.51}, Latencies{Stolen: 0.02}, false},
		{"and better than one of the kind", Latencies{Stolen: 0.02, LeftOut: 0.5}, Latencies{LeftOut: 0.51}, true},
		{"of two with most left out, the one with less stolen", Latencies{Stolen: 0.01, LeftOut: 0.9}, Latencies{Stolen: 0.02, LeftOut: 0.6}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.l.better(test.others); got != test.want {
				t.Errorf("%t, want %t", got, test.want)
			}
		})
	}
}
