package watch

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// TestABackupIsRestored takes an API server away and brings it back with what it had before, resourceVersions included. A
// watch from where it was is silent then, as that version is yet to come, and a list of that version is refused. An API server
// that has just started may not know yet who may read.
func TestABackupIsRestored(t *testing.T) {
	for i := range 34 {
		down, forbidden := time.Duration(i/2)*3*time.Second, time.Duration(i%2)*3*time.Second
		t.Run(fmt.Sprintf("%s and %s", down, forbidden), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := watchtest.NewVirtual(1)
				put := func(resource string, o runtime.Object) {
					if _, err := server.Put(resource, o); err != nil {
						t.Fatal(err)
					}
				}
				put("serviceexports", export("shop", "a"))
				put("services", service("shop", "a", "10.0.0.1"))
				backup := server.Backup()
				put("endpointslices", slice("shop", "s", "a", "10.8.0.1"))
				connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: server})
				if err != nil {
					t.Fatal(err)
				}
				w, _ := startWatcher(t, mcs.Exports, connection)
				time.Sleep(10 * time.Second) // a stream of no age is not taken up again where it was
				synctest.Wait()
				if _, n := w.feed.size(); n != 1 {
					t.Fatalf("There are %d endpoints", n)
				}
				server.SetWeather(func(w *watchtest.Weather) { w.Refuse++ })
				server.Restore(backup)
				time.Sleep(down)
				server.SetWeather(func(w *watchtest.Weather) { w.Refuse, w.Status = w.Refuse-1, http.StatusForbidden })
				time.Sleep(forbidden)
				server.SetWeather(func(w *watchtest.Weather) { w.Status = 0 })
				time.Sleep(15 * time.Second)
				synctest.Wait()
				if _, n := w.feed.size(); n != 0 {
					t.Errorf("There are %d endpoints that the API server does not know any more", n)
				}
			})
		})
	}
}

// TestWhatIsInterruptedGoesOnOnlyWhereItWas asks an API server how far it is, before anything refers to a version.
func TestWhatIsInterruptedGoesOnOnlyWhereItWas(t *testing.T) {
	for _, tc := range []struct {
		name   string
		code   int
		at     string
		goesOn bool
		anew   bool
	}{
		{"it is further", 200, "18", true, false},
		{"it is where it was", 200, "17", true, false},
		{"it has gone back", 200, "16", false, true},
		{"it does not say how far it is", 200, "", true, false},
		{"it does not know yet who may read", 403, "", false, false},
		{"it does not know the credentials yet", 401, "", false, false},
		{"it does not answer well: then the watch fails by itself", 500, "", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				text := fmt.Sprintf(`{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":%q},"items":[]}`, tc.at)
				return &http.Response{StatusCode: tc.code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			c, err := connection.clients()
			if err != nil {
				t.Fatal(err)
			}
			w := testWatcher(t, mcs.Exports, newTold(), clients{})
			var reached atomic.Uint64
			reached.Store(17)
			lists := cache.NewFilteredListWatchFromClient(c.core.CoreV1().RESTClient(), "services", "", func(*metav1.ListOptions) {})
			err = w.mayGoOn(t.Context(), resource{name: "services", lists: lists, store: &store{w: w, reached: &reached}}, "17")
			if (err == nil) != tc.goesOn || (len(w.restart) > 0) != tc.anew || (reached.Load() == 0) != tc.anew {
				t.Errorf("Got %v, begins anew: %v, reached %d", err, len(w.restart) > 0, reached.Load())
			}
		})
	}
}

// TestCloseDoesNotWait closes a watch at every moment of the attempts to reach an API server that has gone.
func TestCloseDoesNotWait(t *testing.T) {
	for after := time.Second; after < 40*time.Second; after += 1700 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			server := watchtest.NewVirtual(1)
			connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: server})
			if err != nil {
				t.Fatal(err)
			}
			w, err := Start(Spec{Kind: mcs.Exports, Cluster: "east", Connection: connection, Observer: newTold()})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			server.SetWeather(func(w *watchtest.Weather) { w.Refuse++ })
			for _, resource := range []string{"serviceexports", "services", "endpointslices"} {
				server.Expire(resource)
			}
			time.Sleep(after)
			began := time.Now()
			w.Close()
			if took := time.Since(began); took > 0 {
				t.Errorf("Closed after %s: it took %s", after, took)
			}
		})
	}
}
