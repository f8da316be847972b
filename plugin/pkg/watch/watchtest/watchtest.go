// Package watchtest is a small API server for tests of what watches API servers: it lists and streams the objects that a
// test puts in, as JSON over plain HTTP, and can forbid resources. It checks nothing and knows no types.
package watchtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Server is a running API server. Its methods may be called from several goroutines.
type Server struct {
	*httptest.Server

	mu        sync.Mutex // guards what follows
	version   int
	resources map[string]*resource
	changed   chan struct{} // closed at the next change
}

// resource is what stands under one path, such as /api/v1/nodes.
type resource struct {
	objects   []*unstructured.Unstructured // by namespace and name
	events    []event
	lists     int
	forbidden bool
}

type event struct {
	version int
	kind    string
	object  *unstructured.Unstructured
}

// Start returns a server that ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{resources: map[string]*resource{}, changed: make(chan struct{}), version: 1}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	tb.Cleanup(func() {
		// The listener goes first: a client that comes back in between would keep Close waiting for ever.
		_ = s.Listener.Close() // a test may have closed it
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// Kubeconfig writes a kubeconfig file for the server and returns its path.
func (s *Server) Kubeconfig(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": [{"name": "test", "cluster": {"server": %q}}], "users": [{"name": "test"}],
		"contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}`, s.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Put creates or replaces an object under a path such as /api/v1/nodes.
func (s *Server) Put(tb testing.TB, path string, object runtime.Object) {
	tb.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		tb.Fatal(err)
	}
	o := &unstructured.Unstructured{Object: fields}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resource(path)
	kind := "ADDED"
	at := slices.IndexFunc(r.objects, same(o))
	if at >= 0 {
		kind = "MODIFIED"
		r.objects = slices.Delete(slices.Clone(r.objects), at, at+1)
	}
	r.objects = append(r.objects, o)
	s.add(r, kind, o)
}

// Delete removes the object of that namespace and name.
func (s *Server) Delete(path, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resource(path)
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetNamespace(namespace)
	o.SetName(name)
	if at := slices.IndexFunc(r.objects, same(o)); at >= 0 {
		gone := r.objects[at].DeepCopy()
		r.objects = slices.Delete(slices.Clone(r.objects), at, at+1)
		s.add(r, "DELETED", gone)
	}
}

// Forbid makes the server refuse to show a resource, or show it again. Streams go on.
func (s *Server) Forbid(path string, forbidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resource(path).forbidden = forbidden
}

// Lists returns how often a whole resource has been listed.
func (s *Server) Lists(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resource(path).lists
}

func same(o *unstructured.Unstructured) func(*unstructured.Unstructured) bool {
	return func(x *unstructured.Unstructured) bool {
		return x.GetNamespace() == o.GetNamespace() && x.GetName() == o.GetName()
	}
}

func (s *Server) resource(path string) *resource {
	r := s.resources[path]
	if r == nil {
		r = &resource{}
		s.resources[path] = r
	}
	return r
}

func (s *Server) add(r *resource, kind string, o *unstructured.Unstructured) {
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	r.events = append(r.events, event{s.version, kind, o})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) serve(w http.ResponseWriter, req *http.Request) {
	query := req.URL.Query()
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	path := strings.TrimSuffix(req.URL.Path, "/")
	s.mu.Lock()
	r, version := s.resource(path), s.version
	forbidden, objects := r.forbidden, r.objects
	if query.Get("watch") == "" && query.Get("limit") != "1" {
		r.lists++
	}
	s.mu.Unlock()
	if forbidden {
		w.WriteHeader(http.StatusForbidden)
		write(w, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": http.StatusForbidden})
		return
	}
	if query.Get("watch") == "" {
		items := []any{}
		for _, o := range objects {
			if selector.Matches(labels.Set(o.GetLabels())) {
				items = append(items, o.Object)
			}
		}
		write(w, map[string]any{
			"kind": "List", "apiVersion": "v1", "items": items,
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(version)},
		})
		return
	}
	since, _ := strconv.Atoi(query.Get("resourceVersion"))
	s.stream(w, req, r, selector, since)
}

// stream sends every event after a version until the client goes away.
func (s *Server) stream(w http.ResponseWriter, req *http.Request, r *resource, selector labels.Selector, since int) {
	flusher := w.(http.Flusher)
	for {
		s.mu.Lock()
		events, changed := r.events, s.changed
		s.mu.Unlock()
		for _, e := range events {
			if e.version > since && selector.Matches(labels.Set(e.object.GetLabels())) {
				write(w, map[string]any{"type": e.kind, "object": e.object.Object})
			}
			since = max(since, e.version)
		}
		flusher.Flush()
		select {
		case <-req.Context().Done():
			return
		case <-changed:
		}
	}
}

// write sends one value. Nobody is left to tell when it fails: the client has gone.
func write(w http.ResponseWriter, value any) {
	_ = json.NewEncoder(w).Encode(value)
}
