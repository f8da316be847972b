package watch

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// apiServer speaks as much of the Kubernetes API as a Watcher needs: discovery, full lists, watches, single objects. The
// real thing is in the end-to-end tests; this one can be made to fail.
type apiServer struct {
	t        *testing.T
	http     *httptest.Server
	mu       sync.Mutex
	versions []string             // of multicluster.x-k8s.io, none: no CRDs
	fail     map[string]int       // HTTP status by resource
	objects  map[string][]apiItem // by resource
	rv       int
	changed  chan struct{} // closed at each change
	asked    map[string]int
}

// apiItem is an object, or with gone set what is left of it.
type apiItem struct {
	runtime.Object
	rv   int
	gone bool
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{t: t, versions: []string{"v1beta1"}, fail: map[string]int{}, objects: map[string][]apiItem{}, changed: make(chan struct{}), asked: map[string]int{}}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *apiServer) connection() Connection {
	c, err := NewConnection(&rest.Config{Host: s.http.URL})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// change alters the server and wakes its watches.
func (s *apiServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

var apiKinds = map[string]schema.GroupVersionKind{
	"serviceexports": {Group: "multicluster.x-k8s.io", Version: "v1beta1", Kind: "ServiceExport"},
	"serviceimports": {Group: "multicluster.x-k8s.io", Version: "v1beta1", Kind: "ServiceImport"},
	"services":       {Version: "v1", Kind: "Service"},
	"nodes":          {Version: "v1", Kind: "Node"},
	"namespaces":     {Version: "v1", Kind: "Namespace"},
	"endpointslices": {Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"},
}

func (s *apiServer) put(resource string, o metav1.Object, gone bool) {
	s.change(func() {
		s.rv++
		o.SetResourceVersion(fmt.Sprint(s.rv))
		item := apiItem{o.(runtime.Object), s.rv, gone}
		kind := apiKinds[resource]
		if strings.HasPrefix(resource, "service") && len(resource) == len("serviceexports") && len(s.versions) > 0 {
			kind.Version = s.versions[0]
		}
		item.GetObjectKind().SetGroupVersionKind(kind)
		s.objects[resource] = append(s.objects[resource], item)
	})
}

func (s *apiServer) set(resource string, o metav1.Object) { s.put(resource, o, false) }
func (s *apiServer) del(resource string, o metav1.Object) { s.put(resource, o, true) }

func (s *apiServer) count(resource string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[resource]
}

// serve answers /api/v1/..., /apis/GROUP and /apis/GROUP/VERSION/...
func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	s.mu.Lock()
	versions := slices.Clone(s.versions)
	s.mu.Unlock()
	if parts[0] == "apis" && parts[1] == "multicluster.x-k8s.io" && (len(parts) == 2 && len(versions) == 0 || len(parts) > 2 && !slices.Contains(versions, parts[2])) {
		s.refuse(w, http.StatusNotFound)
		return
	}
	switch {
	case parts[0] == "apis" && len(parts) == 2:
		group := metav1.APIGroup{Name: parts[1]}
		for _, v := range versions {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: parts[1] + "/" + v, Version: v})
		}
		s.reply(w, group)
		return
	case parts[0] == "apis" && len(parts) == 3:
		s.reply(w, metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "serviceexports"}, {Name: "serviceimports"}}})
		return
	}
	parts = parts[cmp.Or(map[string]int{"api": 2, "apis": 3}[parts[0]], len(parts)):]
	namespace, name := "", ""
	if len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 1 {
		name = parts[1]
	}
	s.resource(w, r, parts[0], namespace, name)
}

func (s *apiServer) resource(w http.ResponseWriter, r *http.Request, resource, namespace, name string) {
	s.mu.Lock()
	s.asked[resource]++
	status := s.fail[resource]
	s.mu.Unlock()
	query := r.URL.Query()
	switch {
	case status != 0:
		s.refuse(w, status)
	case query.Has("sendInitialEvents"):
		s.t.Errorf("A list of %s was to be streamed: %s", resource, r.URL)
		s.refuse(w, http.StatusUnprocessableEntity)
	case query.Get("watch") == "true" || query.Get("watch") == "1":
		s.watch(w, r, resource)
	default:
		items, rv := s.list(resource, namespace, query.Get("labelSelector"))
		if name == "" {
			s.reply(w, map[string]any{"kind": apiKinds[resource].Kind + "List", "apiVersion": apiKinds[resource].GroupVersion().String(),
				"metadata": map[string]string{"resourceVersion": fmt.Sprint(rv)}, "items": items})
			return
		}
		for _, item := range items {
			if item.(metav1.Object).GetName() == name {
				s.reply(w, item)
				return
			}
		}
		s.refuse(w, http.StatusNotFound)
	}
}

// list returns what there is now.
func (s *apiServer) list(resource, namespace, selector string) (out []runtime.Object, rv int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out = []runtime.Object{}
	selects, err := labels.Parse(selector)
	if err != nil {
		s.t.Errorf("The fake API server: %v", err)
		return out, s.rv
	}
	seen := map[mcs.ServiceKey]bool{}
	for _, item := range slices.Backward(s.objects[resource]) {
		o := item.Object.(metav1.Object)
		id := idOf(o)
		if !seen[id] && !item.gone && (namespace == "" || o.GetNamespace() == namespace) && selects.Matches(labels.Set(o.GetLabels())) {
			out = append(out, item.Object)
		}
		seen[id] = true
	}
	return out, s.rv
}

// watch streams events until the client goes or the resource fails.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	selects, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		s.t.Errorf("The fake API server: %v", err)
		return
	}
	send := func(kind string, o any) {
		if err := out.Encode(map[string]any{"type": kind, "object": o}); err == nil {
			w.(http.Flusher).Flush()
		}
	}
	var seen int
	if _, err := fmt.Sscan(r.URL.Query().Get("resourceVersion"), &seen); err != nil {
		seen = 0
	}
	told := map[mcs.ServiceKey]bool{} // what the client has
	w.(http.Flusher).Flush()
	for {
		s.mu.Lock()
		changed, failed := s.changed, s.fail[resource] != 0
		items := slices.Clone(s.objects[resource])
		s.mu.Unlock()
		if failed {
			return
		}
		for _, item := range items {
			o := item.Object.(metav1.Object)
			selected, had := !item.gone && selects.Matches(labels.Set(o.GetLabels())), told[idOf(o)]
			told[idOf(o)] = selected
			if item.rv <= seen {
				continue
			}
			switch seen = item.rv; {
			case selected:
				send("MODIFIED", item.Object)
			case had:
				send("DELETED", item.Object)
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (s *apiServer) reply(w http.ResponseWriter, o any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(o); err != nil {
		s.t.Errorf("The fake API server: %v", err)
	}
}

func (s *apiServer) refuse(w http.ResponseWriter, status int) {
	reasons := map[int]metav1.StatusReason{
		http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusUnauthorized: metav1.StatusReasonUnauthorized,
		http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	o := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(status), Reason: reasons[status]} //nolint:gosec // an HTTP status
	if err := json.NewEncoder(w).Encode(o); err != nil {
		s.t.Errorf("The fake API server: %v", err)
	}
}

// stop closes the port, which start opens again. The listener goes first: a client that comes back in between would keep
// Close waiting for ever.
func (s *apiServer) stop() (addr string) {
	addr = s.http.Listener.Addr().String()
	if err := s.http.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.t.Error(err)
	}
	s.http.CloseClientConnections()
	s.http.Close()
	return addr
}

func (s *apiServer) start(addr string) {
	var listener net.Listener
	eventually(s.t, "the port is free again", func() bool {
		var err error
		listener, err = net.Listen("tcp", addr)
		return err == nil
	})
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if err := s.http.Listener.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.http.Listener = listener
	s.http.Start()
}

// eventually waits for a condition, not for a time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Not within 20 s: %s", what)
		}
	}
}
