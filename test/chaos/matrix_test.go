package chaos

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// What a remote cluster may cost those who do not ask for it.
const (
	listensWithin = 3 * time.Second
	readyWithin   = 6 * time.Second // 5 s, and something for the test to see it
	stopsWithin   = 5 * time.Second
	// localWithin is how long an answer of cluster.local may take, but for one of localLate. Most take a tenth of a
	// millisecond, and with a remote cluster in the way all would be late; but the machine may have something else to do.
	localWithin = 100 * time.Millisecond
	localLate   = 20
	// localFor is how long cluster.local is asked for.
	localFor = 2 * time.Second
)

// TestARemoteClusterInAnyState starts a server while north is in some state and looks at what is none of north's business:
// a test for each state and each of these. That the start and readiness do not wait for a cluster that is down or hangs is
// in test/e2e (TestMemberThatIsDownAtStart); that a server which was ready stays so when a cluster falls into one of
// the states is looked at in every row of TestChaos.
func TestARemoteClusterInAnyState(t *testing.T) {
	for _, state := range []struct {
		name string
		// enter puts north into the state, until the test is over.
		enter     func(*testing.T, *scene)
		elsewhere bool // start and readiness are looked at elsewhere
	}{
		{"that is down", func(_ *testing.T, x *scene) { x.proxies[north].Stop() }, true},
		{"that hangs", func(t *testing.T, x *scene) {
			t.Helper()
			must(t, x.proxies[north].hurt("timeout", `"timeout": 0`))
		}, true},
		{"that is slow", func(t *testing.T, x *scene) {
			t.Helper()
			must(t, x.proxies[north].hurtOne("downstream", "latency", `"latency": 5000`))
		}, false},
		{"that sends garbage", func(t *testing.T, x *scene) {
			t.Helper()
			must(t, x.proxies[north].lead(startLiar(t, north).host()))
		}, false},
		{"that floods", func(t *testing.T, _ *scene) { t.Helper(); keepFlooding(t) }, false},
	} {
		t.Run(state.name, func(t *testing.T) {
			x := prepare(t, setting{})
			state.enter(t, x)
			began := time.Now()
			s, err := server.Start(t.Context(), coredns, x.corefile(setting{}, 5), server.Options{})
			must(t, err)
			t.Cleanup(func() { stopped(t, s) })
			listening := time.Since(began)
			x.s = s
			must(t, s.WaitReady(t.Context()))
			ready := time.Since(began)
			if !state.elsewhere {
				t.Run("does not block the start", func(t *testing.T) {
					if listening > listensWithin {
						t.Errorf("it answers after %s", round(listening))
					}
				})
				t.Run("does not keep readiness back for more than 5 seconds", func(t *testing.T) {
					if ready > readyWithin {
						t.Errorf("it is ready after %s", round(ready))
					}
				})
			}
			t.Run("neither delays nor changes answers of cluster.local", x.asksLocal)
			t.Run("does not end readiness", func(t *testing.T) {
				if status, err := s.Ready(t.Context()); err != nil || status != http.StatusOK {
					t.Errorf("readiness is %d, %v", status, err)
				}
			})
			t.Run("does not block the end", func(t *testing.T) {
				began := time.Now()
				must(t, s.Stop())
				if took := time.Since(began); took > stopsWithin {
					t.Errorf("it is gone after %s", round(took))
				}
			})
		})
	}
}

// asksLocal asks for a name of cluster.local many times, while readiness is looked at.
func (x *scene) asksLocal(t *testing.T) {
	x.staysReady(t)
	udp, err := net.Dial("udp", x.s.Addr())
	must(t, err)
	defer udp.Close()
	conn, want := &dns.Conn{Conn: udp}, of(east.endpoints(east.own(), east.now))
	slowest, asked, late := time.Duration(0), 0, 0
	for end := time.Now().Add(localFor); time.Now().Before(end); asked++ {
		began := time.Now()
		m, err := exchange(conn, inClusterLocal())
		took := time.Since(began)
		slowest = max(slowest, took)
		if must(t, err); took > localWithin {
			late++
		}
		if got := outcomeOf(m); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	t.Logf("the slowest of %d answers took %s", asked, round(slowest))
	if late*localLate > asked {
		t.Errorf("%d of %d answers took more than %s, the slowest %s", late, asked, localWithin, round(slowest))
	}
}

// keepFlooding changes endpoints in north as fast as it can until the test is over.
func keepFlooding(t *testing.T) {
	t.Helper()
	floodFrom(t)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i := range floodServices {
		writers.Go(func() {
			for event := 1; ctx.Err() == nil; event++ {
				_ = north.UpdateSlice(ctx, flooding(i, event).Slice()) // fails at the end
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		writers.Wait()
	})
}
