package watch

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// storesOf returns what the Reflectors write to, by resource.
func storesOf(f *exportFeed) map[string]*store {
	exports, services, endpointSlices := f.stores()
	return map[string]*store{"serviceexports": exports, "services": services, "endpointslices": endpointSlices}
}

func TestHold(t *testing.T) {
	type list struct {
		at            int // seconds
		before, after int
		doubted       bool
	}
	for _, row := range []struct {
		name  string
		lists []list
	}{
		{"the first list of all is believed", []list{{0, 0, 100, false}}},
		{"a list with half of it left is believed", []list{{0, 100, 50, false}}},
		{"one with less is not", []list{{0, 100, 49, true}}},
		{"less than ten things may vanish", []list{{0, 9, 0, false}}},
		{"ten may not", []list{{0, 10, 0, true}}},
		{"a second list that says the same is believed after ten seconds", []list{{0, 100, 0, true}, {10, 100, 0, false}}},
		{"but not before", []list{{0, 100, 0, true}, {5, 100, 0, true}, {9, 100, 3, true}, {10, 100, 0, false}}},
		{"a list with all of it ends the doubt", []list{{0, 100, 0, true}, {10, 100, 100, false}, {15, 100, 0, true}}},
		{"a list of long ago does not count", []list{{0, 100, 0, true}, {31, 100, 0, true}, {41, 100, 0, false}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var h hold
			began := time.Now()
			for i, l := range row.lists {
				if got := h.doubts(l.before, l.after, began.Add(time.Duration(l.at)*time.Second)); got != l.doubted {
					t.Errorf("List %d: doubted is %v, want %v", i, got, l.doubted)
				}
			}
		})
	}
}

// holdLog notes what an observer hears of holds.
type holdLog struct {
	*told
	holds []string
}

func (l *holdLog) Hold(_, resource string, held bool, before, after int) {
	l.holds = append(l.holds, fmt.Sprintf("%s %v %d of %d", resource, held, after, before))
}

// TestHoldInAFeed lists a source of twelve endpoints as empty, and looks at what is told and when it is believed.
func TestHoldInAFeed(t *testing.T) {
	for _, resource := range []string{"serviceexports", "services", "endpointslices"} {
		t.Run(resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := &holdLog{told: newTold()}
				w := testWatcher(t, mcs.Exports, seen, clients{})
				f := w.feed.(*exportFeed)
				f.subscribe(seen)
				stores := storesOf(f)
				var addresses []string
				for i := range 12 {
					addresses = append(addresses, fmt.Sprintf("10.8.0.%d", i+1))
				}
				full := map[string][]any{
					"serviceexports": {export("shop", "a")}, "services": {service("shop", "a", "10.0.0.1")},
					"endpointslices": {slice("shop", "s", "a", addresses...)},
				}
				replace := func(resource string, objects []any) error {
					return stores[resource].Replace(slices.Clone(objects), "1")
				}
				for _, r := range []string{"serviceexports", "services", "endpointslices"} {
					if err := replace(r, full[r]); err != nil {
						t.Fatalf("The first list of %s: %v", r, err)
					}
				}
				before := sketch(seen.shards[a])
				if err := replace(resource, nil); !errors.Is(err, errHeld) {
					t.Errorf("An empty list gave %v", err)
				}
				if got := sketch(seen.shards[a]); got != before {
					t.Errorf("It was believed: %s", got)
				}
				began := time.Now()
				stores[resource].start(t.Context())
				if waited := time.Since(began); waited != holdFor {
					t.Errorf("The second list was asked for after %v", waited)
				}
				if err := replace(resource, nil); err != nil {
					t.Errorf("The second list gave %v", err)
				}
				if got := sketch(seen.shards[a]); got == before {
					t.Errorf("The second list was not believed: %s", got)
				}
				want := []string{resource + " true 0 of 12", resource + " false 0 of 12"}
				if !slices.Equal(seen.holds, want) {
					t.Errorf("Observed %q, want %q", seen.holds, want)
				}
			})
		})
	}
}

func TestAListThatIsNotBelievedLeavesNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := watchtest.NewVirtual(1)
		put := func(resource string, o runtime.Object) {
			if _, err := server.Put(resource, o); err != nil {
				t.Fatal(err)
			}
		}
		put("serviceexports", export("shop", "a"))
		put("services", service("shop", "a", "10.0.0.1"))
		var addrs []string
		for i := range 2 * collapseAtLeast {
			addrs = append(addrs, fmt.Sprintf("10.8.0.%d", 1+i))
		}
		put("endpointslices", slice("shop", "s", "a", addrs...))
		connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: server, BearerToken: "we"})
		if err != nil {
			t.Fatal(err)
		}
		w, _ := startWatcher(t, mcs.Exports, connection)
		synctest.Wait()
		server.SetWeather(func(w *watchtest.Weather) { w.Cold = "endpointslices" })
		server.Compact()
		server.Drop(io.EOF)
		time.Sleep(holdFor / 2)
		synctest.Wait()
		if n := server.Client("we").Streams["endpointslices"]; n != 0 {
			t.Errorf("There are %d streams of lists that are not believed", n)
		}
		if _, n := w.feed.size(); n != len(addrs) {
			t.Errorf("There are %d endpoints, want %d", n, len(addrs))
		}
		server.SetWeather(func(w *watchtest.Weather) { w.Cold = "" })
		time.Sleep(holdFor)
		synctest.Wait()
		if n := server.Client("we").Streams["endpointslices"]; n != 1 {
			t.Errorf("There are %d streams in the end", n)
		}
	})
}

func TestWhatAWatchDeletesIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.set(theExports, export("shop", "a"))
		m.set(theServices, service("shop", "a", "10.0.0.1"))
		for i := range 20 {
			m.set(theSlices, slice("shop", fmt.Sprint("s", i), "a", "10.8.0.1"))
		}
		m.sync()
		for i := range 20 {
			m.del(theSlices, mcs.ServiceKey{Namespace: "shop", Name: fmt.Sprint("s", i)})
		}
		m.events()
		m.sees("after the deletes", oneIP, nothing)
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := newTold()
		w := testWatcher(t, mcs.Exports, seen, clients{})
		f := w.feed.(*exportFeed)
		f.limits = limits{services: 2, endpoints: 3}
		f.subscribe(seen)
		stores := storesOf(f)
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		must(stores["serviceexports"].Replace([]any{export("shop", "a"), export("shop", "b"), export("shop", "c")}, "1"))
		must(stores["services"].Replace([]any{service("shop", "a", "10.0.0.1"), service("shop", "b", "10.0.0.1")}, "1"))
		must(stores["endpointslices"].Replace([]any{slice("shop", "s", "a", "10.8.0.1", "10.8.0.2"), slice("shop", "t", "b", "10.8.0.3", "10.8.0.4")}, "1"))
		if len(seen.shards) != 2 || sketch(seen.shards[a]) != oneIP+" s 10.8.0.1 10.8.0.2" || sketch(seen.shards[b]) != oneIP {
			t.Errorf("Told %s and %s of %d services", sketch(seen.shards[a]), sketch(seen.shards[b]), len(seen.shards))
		}
		if want := []Rejection{TooMany, TooMany}; !slices.Equal(seen.left, want) {
			t.Errorf("Left out: %v, want %v", seen.left, want)
		}
		select {
		case <-w.restart:
			t.Error("It lists again while there is no room")
		default:
		}
		must(stores["serviceexports"].Delete(export("shop", "a")))
		select {
		case <-w.restart:
		default:
			t.Error("It does not list again when there is room")
		}
	})
}

func TestAListOfTooManyObjectsIsRefused(t *testing.T) {
	seen := newTold()
	w := testWatcher(t, mcs.Exports, seen, clients{})
	s := storesOf(w.feed.(*exportFeed))["services"]
	if err := s.bound(maxObjects); err != nil {
		t.Errorf("As many objects as there may be gave %v", err)
	}
	if err := s.Replace(make([]any, maxObjects+1), "1"); !errors.Is(err, errTooLarge) {
		t.Errorf("What could be kept of the list gave %v", err)
	}
	seen.hadProblems(t, "services too_large")
}
