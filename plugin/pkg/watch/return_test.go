package watch

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// visitor notes when a server first comes back to an API server that was away: with a whole list, or a watch.
type visitor struct {
	*watchtest.Virtual
	back *atomic.Pointer[time.Time] // nil while it is away

	mu    sync.Mutex
	after time.Duration // 0 before it has
}

// RoundTrip implements http.RoundTripper.
func (v *visitor) RoundTrip(r *http.Request) (*http.Response, error) {
	whole := strings.HasSuffix(r.URL.Path, "/serviceexports") && r.URL.Query().Get("limit") != "1"
	if back := v.back.Load(); whole && back != nil {
		v.mu.Lock()
		if v.after == 0 {
			v.after = max(time.Millisecond, time.Since(*back))
		}
		v.mu.Unlock()
	}
	return v.Virtual.RoundTrip(r)
}

// TestServersComeBackSpreadOverSeconds lets the API server of twenty servers be away, and looks at when each of them lists or
// watches again.
func TestServersComeBackSpreadOverSeconds(t *testing.T) {
	for _, row := range []struct {
		name    string
		away    time.Duration
		weather func(w *watchtest.Weather, by int)
	}{
		{"after 12 s in which it refused connections", 12 * time.Second, func(w *watchtest.Weather, by int) { w.Refuse += by }},
		{"after two minutes", 2 * time.Minute, func(w *watchtest.Weather, by int) { w.Refuse += by }},
		{"after 50 s in which it hung", 50 * time.Second, func(w *watchtest.Weather, by int) { w.Hang += by }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := watchtest.NewVirtual(1)
				var back atomic.Pointer[time.Time]
				var visitors []*visitor
				for range 20 {
					v := &visitor{Virtual: server, back: &back}
					visitors = append(visitors, v)
					connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: v})
					if err != nil {
						t.Fatal(err)
					}
					w, err := Start(Spec{Kind: mcs.Exports, Cluster: "east", Connection: connection, Observer: newTold()})
					if err != nil {
						t.Fatal(err)
					}
					defer w.Close()
				}
				time.Sleep(time.Minute)
				server.SetWeather(func(w *watchtest.Weather) { row.weather(w, 1) })
				server.Drop(io.ErrUnexpectedEOF)
				time.Sleep(row.away)
				synctest.Wait()
				now := time.Now()
				back.Store(&now)
				server.SetWeather(func(w *watchtest.Weather) { row.weather(w, -1) })
				time.Sleep(30 * time.Second)
				synctest.Wait()
				var after []time.Duration
				for _, v := range visitors {
					v.mu.Lock()
					after = append(after, v.after.Round(time.Millisecond))
					v.mu.Unlock()
				}
				slices.Sort(after)
				first, last := after[0], after[len(after)-1]
				t.Logf("The first came back after %s, the last after %s: %v", first, last, after)
				if first == 0 || last-first < 2*time.Second || last > 15*time.Second {
					t.Errorf("Twenty servers came back from %s to %s, want them spread over 2 s at least, and all within 15", first, last)
				}
			})
		})
	}
}
