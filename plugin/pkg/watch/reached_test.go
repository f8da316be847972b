package watch

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

func TestStoreNotesHowFarTheWatchHasCome(t *testing.T) {
	at := func(version string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", ResourceVersion: version}}
	}
	tests := []struct {
		name string
		do   func(*store) error
		want uint64
	}{
		{"an object that is added", func(s *store) error { return s.Add(at("11")) }, 11},
		{"an object that changes", func(s *store) error { return s.Update(at("12")) }, 12},
		{"an object that goes", func(s *store) error { return s.Delete(at("13")) }, 13},
		{"a bookmark", func(s *store) error { return s.Bookmark("14") }, 14},
		{"a full list has the version of the list", func(s *store) error { return s.Replace([]any{at("3")}, "15") }, 15},
		{"back in time when etcd was restored", func(s *store) error { return s.Replace(nil, "2") }, 2},
		{"a version that is no number is none", func(s *store) error { return s.Bookmark("x") }, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var reached atomic.Uint64
			reached.Store(10)
			seen := uint64(0)
			look := func(any) { seen = reached.Load() }
			s := &store{
				w: &Watcher{spec: Spec{Observer: newTold()}}, complete: make(chan struct{}), reached: &reached,
				set: look, remove: look, replace: func([]any) { look(nil) }, compact: func(obj any) any { return obj },
			}
			if err := test.do(s); err != nil {
				t.Fatal(err)
			}
			if got := reached.Load(); got != test.want {
				t.Errorf("reached %d, want %d", got, test.want)
			}
			if seen != 0 && seen != test.want {
				t.Errorf("the feed was told at %d, want %d: first comes the note, then the feed", seen, test.want)
			}
		})
	}
}

func TestFetchAsksForWhatTheWatchesHaveReached(t *testing.T) {
	tests := []struct {
		name                    string
		services, slices        uint64
		newest                  bool
		wantService, wantSlices string
	}{
		{"no older than the watches are", 8, 7, false, "resourceVersion=8", "resourceVersion=7&resourceVersionMatch=NotOlderThan"},
		{"the newest while the watches have told nothing", 0, 0, false, "", ""},
		{"each by its own watch", 8, 0, false, "resourceVersion=8", ""},
		{"the newest after an error", 8, 7, true, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var service, list atomic.Value
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				q := r.URL.Query()
				q.Del("labelSelector")
				if !strings.HasSuffix(r.URL.Path, "/endpointslices") {
					service.Store(q.Encode())
					w.WriteHeader(http.StatusNotFound)
					_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`))
					return
				}
				list.Store(q.Encode())
				_, _ = w.Write([]byte(`{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","items":[]}`))
			}))
			defer server.Close()
			connection, err := NewConnection(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			clients, err := connection.clients()
			if err != nil {
				t.Fatal(err)
			}
			defer clients.http.CloseIdleConnections()
			f := newExportFeed(&Watcher{spec: Spec{Observer: newTold()}}, clients)
			f.servicesReached.Store(test.services)
			f.slicesReached.Store(test.slices)
			if _, _, err := f.get(t.Context(), mcs.ServiceKey{Namespace: "ns", Name: "web"}, test.newest); err != nil {
				t.Fatal(err)
			}
			if got := service.Load(); got != test.wantService {
				t.Errorf("asked for the Service with %q, want %q", got, test.wantService)
			}
			if got := list.Load(); got != test.wantSlices {
				t.Errorf("asked for EndpointSlices with %q, want %q", got, test.wantSlices)
			}
		})
	}
}
