package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// Of the flood: how long, from how many sockets, and what memory it may cost, in MiB.
const (
	floodFor     = 8 * time.Second
	floodSockets = 8
	floodMemory  = 64
)

// resident returns a figure of /proc/PID/status, in MiB.
func resident(t *testing.T, s *server.Server, key string) float64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.PID()))
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), key+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			must(t, err)
			return kib / 1024
		}
	}
	t.Fatalf("no %s", key)
	return 0
}

// flood sends as many queries as it can and reads no answer, until ctx ends. It returns how many it has sent.
func flood(ctx context.Context, t *testing.T, s *server.Server, name string) (sent int) {
	t.Helper()
	wire, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	must(t, err)
	var (
		mu   sync.Mutex
		done sync.WaitGroup
	)
	for range floodSockets {
		conn, err := net.Dial("udp", s.Addr())
		must(t, err)
		done.Go(func() {
			defer conn.Close()
			n := 0
			for ctx.Err() == nil {
				if _, err := conn.Write(wire); err == nil {
					n++
				}
			}
			mu.Lock()
			sent += n
			mu.Unlock()
		})
	}
	done.Wait()
	return sent
}

// TestFlood sends ten times more queries than the server can answer. Its memory stays bounded, and it answers again as soon
// as the flood is over. While it lasts, most packets are lost in the socket's buffer, before any program sees them.
func TestFlood(t *testing.T) {
	plain, err := server.Build(t.Context(), os.Stderr)
	must(t, err)
	export(t, east, "flooded", "10.1.0.1", "10.1.0.2")
	for _, row := range []struct {
		what  string
		more  []string
		bound float64 // MiB, 0 for none
	}{
		{"with shed", []string{"shed"}, floodMemory},
		{"without, for comparison", nil, 0},
	} {
		t.Run(row.what, func(t *testing.T) {
			s, err := server.Start(t.Context(), plain, corefile(append(row.more, stanza([]cluster{east}))...), server.Options{})
			must(t, err)
			t.Cleanup(func() { stopped(t, s) })
			ready(t, s)
			within(t, limit, "flooded", answers(s, name("flooded"), 2))
			before := resident(t, s, "VmRSS")

			ctx, cancel := context.WithTimeout(t.Context(), floodFor)
			defer cancel()
			var asked, answered, tries int
			var client sync.WaitGroup
			client.Go(func() {
				c := dns.Client{Timeout: 500 * time.Millisecond}
				for ctx.Err() == nil {
					asked++
					for range 10 {
						tries++
						m, _, err := c.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name("flooded"), dns.TypeA), s.Addr())
						if err == nil && len(m.Answer) == 2 {
							answered++
							break
						}
					}
					time.Sleep(50 * time.Millisecond)
				}
			})
			sent := flood(ctx, t, s, name("flooded"))
			client.Wait()
			peak := resident(t, s, "VmHWM")
			t.Logf("%d queries a second; resident memory %.0f MiB before, %.0f MiB at most; a modest client asked %d times, was answered %d times, with %d packets",
				sent/int(floodFor.Seconds()), before, peak, asked, answered, tries)
			if row.bound > 0 && peak > before+row.bound {
				t.Errorf("The flood took %.0f MiB, at most %.0f may be", peak-before, row.bound)
			}
			within(t, limit, "an answer afterwards", answers(s, name("flooded"), 2))
		})
	}
}
