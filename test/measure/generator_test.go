//go:build linux

package measure

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
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
	ways := map[string]func(*Generator) error{
		"flood":  func(g *Generator) error { _, err := g.Flood(1100 * time.Millisecond); return err },
		"steady": func(g *Generator) error { _, err := g.Steady(1000, 200*time.Millisecond); return err },
	}
	for _, test := range tests {
		for way, ask := range ways {
			t.Run(test.name+", "+way, func(t *testing.T) {
				g, err := NewGenerator(answering(t, test.handler), questions)
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				if err = ask(g); err == nil {
					err = g.CheckLost()
				}
				switch {
				case test.want == "" && err != nil:
					t.Error(err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%v, want %s", err, test.want)
				}
				if way == "steady" && len(g.took)+g.voided != 200 && test.want == "" {
					t.Errorf("%d times and %d left out, want 200 in all", len(g.took), g.voided)
				}
			})
		}
	}
}

func TestHoldUps(t *testing.T) {
	begin := time.Now()
	at := func(us int) time.Time { return begin.Add(time.Duration(us) * time.Microsecond) }
	tests := []struct {
		name  string
		turns []int // when the loop turned, in us
		due   int
		want  bool
	}{
		{"a loop that turns has none", []int{0, 100, 200, 300}, 50, false},
		{"one that was under way before it says nothing", []int{0, 100, 5100, 5200}, 50, true},
		{"nor one that was due meanwhile", []int{0, 100, 5100, 5200}, 3000, true},
		{"one that was due after it does", []int{0, 100, 5100, 5200}, 5150, false},
		{"the last one counts", []int{0, 5000, 5100, 9000}, 5050, true},
		{"what was before the first turn is none", []int{5000, 5100}, 4000, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var h holdUps
			for _, us := range test.turns {
				h.turn(at(us))
			}
			if got := h.spoil(at(test.due)); got != test.want {
				t.Errorf("%t, want %t", got, test.want)
			}
		})
	}
}

// TestWhatWasUnderWayInAHoldUpIsLeftOut asks two questions of which one was due before the end of a hold-up.
func TestWhatWasUnderWayInAHoldUpIsLeftOut(t *testing.T) {
	questions, err := Draw(200, func(i int) Service { return Service{fmt.Sprintf("svc%d.shop.svc.clusterset.local.", i), 0, "http"} }, 1)
	if err != nil {
		t.Fatal(err)
	}
	questions = slices.DeleteFunc(questions, func(q Question) bool { return q.Rcode != dns.RcodeNameError })
	g, err := NewGenerator(answering(t, func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg((&dns.Msg{}).SetRcode(r, dns.RcodeNameError)) // the asker may have gone
	}), questions)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	c, now := g.clients[0], time.Now()
	g.holdUps.end = now
	for _, due := range []time.Time{now.Add(-time.Millisecond), now} {
		if err := g.ask(c, 1, due); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := now.Add(10 * time.Second); g.answered < 2; {
		if _, err := g.receive(c); err != nil || time.Now().After(deadline) {
			t.Fatal(g.answered, err)
		}
	}
	if len(g.took) != 1 || g.voided != 1 {
		t.Errorf("%d times and %d left out, want one each", len(g.took), g.voided)
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
