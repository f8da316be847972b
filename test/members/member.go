package members

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	// firstVersion is the resourceVersion of everything in the beginning.
	firstVersion = 1000
	// remembered is how many changes an API server knows: watches cannot begin before them.
	remembered = 10_000
	// bookmarkEvery is how often the clients of a watch are told how far it is, as kube-apiserver does.
	bookmarkEvery = time.Minute
)

// Member is the API server of one cluster. Its methods may be called from several goroutines.
type Member struct {
	server  *Server
	world   World
	number  int
	door    *door
	http    *http.Server
	watches atomic.Int64

	mu      sync.Mutex // guards what follows
	version uint64
	changes map[int]change // what has happened to EndpointSlices, by the service
	// log holds the services whose EndpointSlices have changed, one per version after oldest.
	log    []happened
	oldest uint64
	// changed is closed when something has happened, and made anew.
	changed chan struct{}
}

// happened is a change of one EndpointSlice.
type happened struct {
	service int
	change
}

// Watches is how many watches are open.
func (m *Member) Watches() int { return int(m.watches.Load()) }

// Move gives the first endpoint of a service an address that it has never had, and returns that.
func (m *Member) Move(service int) netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version++
	c := change{version: m.version, at: time.Now(), address: moved(m.version)}
	m.changes[service] = c
	m.log = append(m.log, happened{service, c})
	if len(m.log) > 2*remembered {
		m.log = slices.Clone(m.log[remembered:])
		m.oldest += remembered
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return c.address
}

// Down takes the API server away: all connections end, and new ones are refused.
func (m *Member) Down() { m.door.shut() }

// Up brings it back. Like one that has restarted it has all objects, but knows no change that was before: watches cannot
// begin there. It must be down.
func (m *Member) Up() error {
	m.mu.Lock()
	m.log, m.oldest = nil, m.version
	m.mu.Unlock()
	return m.door.open()
}

// view is what a member holds at one moment.
type view struct {
	version uint64
	changes map[int]change
}

func (m *Member) view() view {
	m.mu.Lock()
	defer m.mu.Unlock()
	return view{m.version, maps.Clone(m.changes)}
}

// since returns what has happened after a version, and a channel that is closed when there is more. ok is false when that
// is not known any more.
func (m *Member) since(version uint64) (all []happened, more <-chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if version < m.oldest {
		return nil, nil, false
	}
	return slices.Clone(m.log[min(version-m.oldest, uint64(len(m.log))):]), m.changed, true
}

// ServeHTTP implements http.Handler.
func (m *Member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !m.server.begin() {
		return
	}
	defer m.server.end()
	kind := Request
	if r.URL.Query().Get("watch") != "" {
		kind = Watch
	}
	m.server.note(m.number, kind)
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method != http.MethodGet:
		refuse(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "only GET is simulated")
	case parts[0] == "apis" && len(parts) == 2:
		m.group(w, parts[1])
	case parts[0] == "apis" && len(parts) == 3:
		m.groupVersion(w, parts[1], parts[2])
	case parts[0] == "apis" && len(parts) > 3:
		m.resource(w, r, parts[1], parts[2], parts[3:])
	case parts[0] == "api" && len(parts) > 2:
		m.resource(w, r, "", parts[1], parts[2:])
	default:
		notFound(w)
	}
}

// group answers which versions of a group there are.
func (m *Member) group(w http.ResponseWriter, group string) {
	i := slices.IndexFunc(resources, func(r resource) bool { return r.Group == group })
	if i < 0 {
		notFound(w)
		return
	}
	version := metav1.GroupVersionForDiscovery{GroupVersion: resources[i].GroupVersion().String(), Version: resources[i].Version}
	reply(w, metav1.APIGroup{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIGroup"}, Name: group,
		Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version,
	})
}

// groupVersion answers which resources a version has.
func (m *Member) groupVersion(w http.ResponseWriter, group, version string) {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"}, GroupVersion: group + "/" + version}
	for _, r := range resources {
		if r.Group == group && r.Version == version {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.plural, Kind: r.Kind, Verbs: metav1.Verbs{"get", "list", "watch"}})
		}
	}
	if len(list.APIResources) == 0 {
		notFound(w)
		return
	}
	reply(w, list)
}

// request is for objects of one resource.
type request struct {
	*Member
	resource *resource
	format   format
	options  metav1.ListOptions
	// namespace is "" for all. name is set for who wants a single object.
	namespace, name string
	labels          labels.Selector
	fields          fields.Selector
}

// resource answers for .../RESOURCE, .../RESOURCE/NAME and both in a namespace.
func (m *Member) resource(w http.ResponseWriter, r *http.Request, group, version string, path []string) {
	q := request{Member: m}
	if len(path) > 2 && path[0] == "namespaces" {
		q.namespace, path = path[1], path[2:]
	}
	if len(path) > 1 {
		q.name = path[1]
	}
	i := slices.IndexFunc(resources, func(r resource) bool { return r.Group == group && r.Version == version && r.plural == path[0] })
	if i < 0 || len(path) > 2 {
		notFound(w)
		return
	}
	q.resource = &resources[i]
	q.format = formatOf(q.resource, r.Header.Get("Accept"))
	if err := q.parse(r); err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	switch {
	case q.options.Watch:
		q.watch(r.Context(), w)
	case q.name != "":
		q.get(w)
	default:
		q.list(w)
	}
}

func (q *request) parse(r *http.Request) (err error) {
	if err := scheme.ParameterCodec.DecodeParameters(r.URL.Query(), schema.GroupVersion{Version: "v1"}, &q.options); err != nil {
		return err
	}
	if q.labels, err = labels.Parse(q.options.LabelSelector); err != nil {
		return err
	}
	q.fields, err = fields.ParseSelector(q.options.FieldSelector)
	return err
}

// wants tells whether an object was asked for.
func (q *request) wants(o object) bool {
	return (q.namespace == "" || q.namespace == o.GetNamespace()) && (q.name == "" || q.name == o.GetName()) &&
		q.labels.Matches(labels.Set(o.GetLabels())) &&
		q.fields.Matches(fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()})
}

// each calls do for the objects that were asked for, from the i-th of the resource on, until it returns false.
func (q *request) each(v view, i int, do func(i int, o object) bool) {
	if name, exact := q.fields.RequiresExactMatch("metadata.name"); exact && name == "-" {
		return // nothing has that name; clients ask so for a sign of life
	}
	for ; i < q.resource.count(q.world); i++ {
		var c change
		if q.resource.plural == endpointSlices.plural {
			c = v.changes[i]
		}
		if o := q.resource.make(q.Member, i, c); q.wants(o) && !do(i, o) {
			return
		}
	}
}

func (q *request) get(w http.ResponseWriter) {
	var found object
	q.each(q.view(), 0, func(_ int, o object) bool {
		found = o
		return false
	})
	if found == nil {
		notFound(w)
		return
	}
	text, err := q.format.object(found)
	q.send(w, text, err)
}

// list answers with a full list, or, where there is a limit, with a piece. The continue token is the number of the next
// object.
func (q *request) list(w http.ResponseWriter) {
	begin := 0
	if q.options.Continue != "" {
		var err error
		if begin, err = strconv.Atoi(q.options.Continue); err != nil || begin < 0 {
			refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "no such continue token")
			return
		}
	}
	v := q.view()
	meta := metav1.ListMeta{ResourceVersion: fmt.Sprint(v.version)}
	objects := []object{}
	q.each(v, begin, func(i int, o object) bool {
		// A limit does not hold where the list may come from a cache.
		if q.options.Limit > 0 && q.options.ResourceVersion != "0" && len(objects) == int(q.options.Limit) {
			meta.Continue = strconv.Itoa(i)
			return false
		}
		objects = append(objects, o)
		return true
	})
	text, err := q.format.list(meta, objects)
	q.send(w, text, err)
}

func (q *request) send(w http.ResponseWriter, text []byte, err error) {
	if err != nil {
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
		return
	}
	w.Header().Set("Content-Type", q.format.media())
	_, _ = w.Write(text) // who is gone does not miss it
}

// watch streams events until the client goes or its time is over. A list is not streamed so: who asks for that is refused, as by
// API servers whose operator does not want it, and makes a full one.
func (q *request) watch(ctx context.Context, w http.ResponseWriter) {
	if q.options.SendInitialEvents != nil {
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
		return
	}
	if q.options.TimeoutSeconds != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*q.options.TimeoutSeconds)*time.Second)
		defer cancel()
	}
	q.watches.Add(1)
	defer q.watches.Add(-1)
	w.Header().Set("Content-Type", q.format.media()+";stream=watch")
	s := &stream{request: q, to: w, flush: http.NewResponseController(w).Flush}
	at, err := q.beginning(s)
	if err == nil {
		err = s.flush()
	}
	if err == nil {
		s.follow(ctx, at)
	}
}

// beginning returns the version from which a watch goes on, after the events that tell what is there already, for who
// names no version.
func (q *request) beginning(s *stream) (at uint64, err error) {
	if q.options.ResourceVersion != "" && q.options.ResourceVersion != "0" {
		return strconv.ParseUint(q.options.ResourceVersion, 10, 64)
	}
	v := q.view()
	q.each(v, 0, func(_ int, o object) bool {
		err = s.event(watch.Added, o)
		return err == nil
	})
	return v.version, err
}

// stream is an open watch.
type stream struct {
	*request
	to    http.ResponseWriter
	flush func() error
}

func (s *stream) write(text []byte, err error) error {
	if err == nil {
		_, err = s.to.Write(text)
	}
	return err
}

func (s *stream) event(kind watch.EventType, o object) error { return s.write(s.format.event(kind, o)) }

func (s *stream) bookmark(version uint64) error {
	o := s.resource.empty()
	o.SetResourceVersion(fmt.Sprint(version))
	return s.event(watch.Bookmark, o)
}

// follow tells what happens after a version. Only EndpointSlices change.
func (s *stream) follow(ctx context.Context, at uint64) {
	ticks := time.NewTicker(bookmarkEvery)
	defer ticks.Stop()
	all, more, ok := s.since(at)
	for ; ok; all, more, ok = s.since(at) {
		if s.resource.plural != endpointSlices.plural {
			all, more = nil, nil
		}
		for _, h := range all {
			at = h.version
			if o := s.resource.make(s.Member, h.service, h.change); s.wants(o) && s.event(watch.Modified, o) != nil {
				return
			}
		}
		if len(all) > 0 && s.flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-more:
		case <-ticks.C:
			if more == nil {
				at = s.view().version
			}
			if s.options.AllowWatchBookmarks && (s.bookmark(at) != nil || s.flush() != nil) {
				return
			}
		}
	}
	s.tooOld(at)
}

// tooOld ends a watch that wants to know what is forgotten.
func (s *stream) tooOld(at uint64) {
	_ = s.write(s.format.status(metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired,
		Message: fmt.Sprintf("too old resource version: %d", at),
	}))
	_ = s.flush() // who is gone does not miss it
}

func notFound(w http.ResponseWriter) {
	refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, why string) {
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // who is gone does not miss it
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: why, //nolint:gosec // a status code
	})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", mediaJSON)
	_ = json.NewEncoder(w).Encode(v) // who is gone does not miss it
}
