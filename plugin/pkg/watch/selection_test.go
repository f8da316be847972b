package watch

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

func TestSelection(t *testing.T) {
	many := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("a-service-%04d", i))
		}
		return names
	}
	for _, tc := range []struct {
		name     string
		exports  []string // namespace/name
		selector string
	}{
		{"without exports nothing is asked for", nil, "kubernetes.io/service-name,!kubernetes.io/service-name"},
		{"one", []string{"shop/web"}, "kubernetes.io/service-name in (web)"},
		{"one name in two namespaces", []string{"shop/web", "data/web"}, "kubernetes.io/service-name in (web)"},
		{"names in order", []string{"shop/web", "data/db"}, "kubernetes.io/service-name in (db,web)"},
		{"as many as the selector has room for", many(350), "kubernetes.io/service-name in (" + strings.Join(many(350), ",") + ")"},
		{"more are too many", many(400), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := map[mcs.ServiceKey]*held{}
			for _, text := range tc.exports {
				namespace, name, ok := strings.Cut(text, "/")
				if !ok {
					namespace, name = "shop", text
				}
				all[mcs.ServiceKey{Namespace: namespace, Name: name}] = &held{}
			}
			s := selectionOf(all, selectAtMost)
			if got := s.selector(); got != tc.selector {
				t.Fatalf("The selector is %q", got)
			}
			selects, err := labels.Parse(tc.selector)
			if err != nil {
				t.Fatal(err)
			}
			for key := range all {
				if !s.covers(key.Name) || !selects.Matches(labels.Set{labelServiceName: key.Name}) {
					t.Errorf("%s is not covered", key)
				}
			}
			if other := "other"; s.covers(other) != selects.Matches(labels.Set{labelServiceName: other}) {
				t.Errorf("Another name is covered: %v", s.covers(other))
			}
		})
	}
}

// TestSelectionFollowsExports exports one service after the other while endpoints of another come and go.
func TestSelectionFollowsExports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := watchtest.NewVirtual(1)
		put := func(resource string, o runtime.Object) {
			t.Helper()
			if _, err := server.Put(resource, o); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		var selectors []string
		connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/apis/discovery.k8s.io/v1/endpointslices" && !slices.Contains(selectors, r.URL.Query().Get("labelSelector")) {
				selectors = append(selectors, r.URL.Query().Get("labelSelector"))
			}
			return server.RoundTrip(r)
		})})
		if err != nil {
			t.Fatal(err)
		}
		_, sink := startWatcher(t, mcs.Exports, connection)
		for i, name := range []string{"a", "b", "c"} {
			has := func(when string, last int) {
				t.Helper()
				if got, want := sketch(sink.shards[mcs.ServiceKey{Namespace: "shop", Name: name}]), fmt.Sprintf("[10.0.0.%d invalid IP] %s-1 10.8.0.%d", i+1, name, last); got != want {
					t.Errorf("%s, %s: got %s, want %s", name, when, got, want)
				}
			}
			put("services", service("shop", name, fmt.Sprint("10.0.0.", i+1)))
			put("endpointslices", slice("shop", name+"-1", name, "10.8.0.1"))
			put("serviceexports", export("shop", name))
			has("at once", 1)
			put("endpointslices", slice("shop", name+"-1", name, "10.8.0.2"))
			time.Sleep(reselectEvery)
			synctest.Wait()
			has("with the selection", 2)
			put("endpointslices", slice("shop", "other", "other", fmt.Sprint("10.8.1.", i)))
			put("endpointslices", slice("shop", name+"-1", name, "10.8.0.3"))
			has("by the watch", 3)
		}
		want := []string{selectionOf(nil, selectAtMost).selector()}
		for _, names := range []string{"a", "a,b", "a,b,c"} {
			want = append(want, "kubernetes.io/service-name in ("+names+")")
		}
		if !slices.Equal(selectors, want) {
			t.Errorf("EndpointSlices were asked for by %q, want %q", selectors, want)
		}
	})
}
