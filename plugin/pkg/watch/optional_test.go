package watch

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// TestAClusterWithoutProperties watches what the API server does not have, and may do without.
func TestAClusterWithoutProperties(t *testing.T) {
	for _, row := range []struct {
		name    string
		weather func(w *watchtest.Weather, by int)
		away    time.Duration
		// problems and states are what is told.
		problems []string
		states   []State
	}{
		{
			"a quiet cluster is not a stale one",
			func(*watchtest.Weather, int) {}, time.Minute,
			nil, []State{Synced},
		},
		{
			"once the API server is reached again nothing is wrong any more",
			func(w *watchtest.Weather, by int) { w.Refuse += by }, time.Minute,
			[]string{"discovery unreachable", "discovery fine"}, []State{Synced, Stale, Synced},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := watchtest.NewVirtual(1)
				server.Serve("about.k8s.io", false)
				connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: server})
				if err != nil {
					t.Fatal(err)
				}
				observer := newTold()
				w, err := Start(Spec{Kind: mcs.Properties, Cluster: "east", Connection: connection, Observer: observer, StaleAfter: 20 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				time.Sleep(5 * time.Minute)
				server.SetWeather(func(w *watchtest.Weather) { row.weather(w, 1) })
				time.Sleep(row.away)
				server.SetWeather(func(w *watchtest.Weather) { row.weather(w, -1) })
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				observer.mu.Lock()
				defer observer.mu.Unlock()
				if !slices.Equal(observer.problems, row.problems) {
					t.Errorf("The problems are %q, want %q", observer.problems, row.problems)
				}
				// Whether it is syncing for an instant depends on who runs first.
				if observer.states[0] == Syncing {
					observer.states = observer.states[1:]
				}
				if !slices.Equal(observer.states, row.states) {
					t.Errorf("The states are %v, want %v", observer.states, row.states)
				}
			})
		})
	}
}
