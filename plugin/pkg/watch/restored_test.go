package watch

import (
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// TestABackupIsRestored takes an API server away and brings it back with what it had before, resourceVersions included. A
// watch from where it was is silent then, as that version is yet to come.
func TestABackupIsRestored(t *testing.T) {
	for down := time.Duration(0); down < 50*time.Second; down += 3 * time.Second {
		t.Run(down.String(), func(t *testing.T) {
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
				server.SetWeather(func(w *watchtest.Weather) { w.Refuse-- })
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if _, n := w.feed.size(); n != 0 {
					t.Errorf("There are %d endpoints that the API server does not know any more", n)
				}
			})
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
