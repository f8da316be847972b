package watchtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Virtual is an API server without a network: an http.RoundTripper that lists and streams what a test puts in, and that can
// be late, deaf, forgetful or gone. It is made for testing/synctest: nothing in it waits for anything but its own channels
// and timers, and what it does by chance follows from its seed and from what happened, never from the order in which
// requests come. Clients of several bearer tokens are told apart. Its methods may be called from several goroutines.
type Virtual struct {
	seed uint64

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	weather Weather
	// index counts changes for ever; version is the resourceVersion, which a restore takes back.
	index   int
	version uint64
	shelves map[string]*shelf
	absent  map[string]bool // API groups that are not served
	clients map[string]*Client
}

// Weather is what goes wrong with a Virtual. The zero value is a good day.
type Weather struct {
	// Lag is how late events can be, each resource on its own. Repeat and Swap are how many percent of the events are
	// delivered twice, and before the one that comes before them (of another object).
	Lag          time.Duration
	Repeat, Swap int
	// Refuse lets connections be refused; Hang lets nothing be answered and nothing be streamed any more. Both count the
	// reasons for that, so that two faults can overlap.
	Refuse, Hang int
	// Status, if not 0, is the HTTP status of every answer.
	Status int
	// Latency is how long an answer takes. It is as old as that, then.
	Latency time.Duration
	// Behind is how old a list can be where the client allows it.
	Behind time.Duration
	// Cold is a resource whose full lists are empty, as those of a server are that is still filling its cache.
	Cold string
}

// Client is what a Virtual has told to the clients of one bearer token.
type Client struct {
	// Delivered is, by resource, the index up to which the last list or stream has told everything.
	Delivered map[string]int
	// Oldest is, by resource, the index of the oldest full list that was answered.
	Oldest map[string]int
	// Streams counts the open streams, by resource.
	Streams map[string]int
	// Selectors are, by resource, that of the last stream.
	Selectors map[string]labels.Selector
	// Waiting counts requests that are not answered yet.
	Waiting int
	// Denied is the index when the client was told last that multicluster.x-k8s.io is not served, 0 if never.
	Denied int
	// Answered is when any request was answered or any frame was streamed last, Proved when that was of a list or a stream of
	// a resource in all namespaces; by resource.
	Answered, Proved map[string]time.Time
	// Failed is when a request for something in one namespace failed last.
	Failed time.Time
}

// shelf holds the objects of a resource.
type shelf struct {
	resource, apiVersion, kind string
	objects                    map[objectID]*object
	changes                    []change
	streams                    []*stream
	compacted                  uint64 // watches cannot begin before this version
	era                        int    // the index when all was replaced last
}

type objectID struct{ namespace, name string }

type object struct {
	objectID
	labels  labels.Set
	version uint64
	json    []byte
	partial []byte // its metadata only, as PartialObjectMetadata
	brief   []byte // the same in protobuf
}

// change is one event. was and is are nil where there is nothing.
type change struct {
	index   int
	version uint64
	at      time.Time
	id      objectID
	was, is *object
}

// What objects are called of which only the metadata is asked for.
const (
	partialKind    = "PartialObjectMetadata"
	partialVersion = "meta.k8s.io/v1"
)

// virtualResources are those that are served: plural, API version, kind.
var virtualResources = [][3]string{
	{"services", "v1", "Service"},
	{"secrets", "v1", "Secret"},
	{"nodes", "v1", "Node"},
	{"namespaces", "v1", "Namespace"},
	{"endpointslices", "discovery.k8s.io/v1", "EndpointSlice"},
	{"servicecidrs", "networking.k8s.io/v1", "ServiceCIDR"},
	{"serviceexports", "multicluster.x-k8s.io/v1beta1", "ServiceExport"},
	{"serviceimports", "multicluster.x-k8s.io/v1beta1", "ServiceImport"},
	{"clusterproperties", "about.k8s.io/v1beta1", "ClusterProperty"},
}

// NewVirtual returns an empty API server. In a synctest bubble it must be made there.
func NewVirtual(seed uint64) *Virtual {
	v := &Virtual{
		seed: seed, changed: make(chan struct{}), version: 1,
		shelves: map[string]*shelf{}, absent: map[string]bool{}, clients: map[string]*Client{},
	}
	for _, r := range virtualResources {
		v.shelves[r[0]] = &shelf{resource: r[0], apiVersion: r[1], kind: r[2], objects: map[objectID]*object{}}
	}
	return v
}

// Put creates or replaces an object of a resource such as "services" and returns the index of the change. It changes the
// object's resourceVersion and type, so that the object must not be used otherwise.
func (v *Virtual) Put(resource string, o runtime.Object) (index int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.shelves[resource]
	if s == nil {
		return 0, fmt.Errorf("no resource %q", resource)
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return 0, err
	}
	id := objectID{m.GetNamespace(), m.GetName()}
	made, err := v.encode(s, o, id, m)
	if err != nil {
		return 0, err
	}
	v.change(s, id, made)
	return v.index, nil
}

func (v *Virtual) encode(s *shelf, o runtime.Object, id objectID, m metav1.Object) (*object, error) {
	version := v.version + 1
	m.SetResourceVersion(strconv.FormatUint(version, 10))
	t, err := meta.TypeAccessor(o)
	if err != nil {
		return nil, err
	}
	t.SetAPIVersion(s.apiVersion)
	t.SetKind(s.kind)
	if s.resource == "serviceexports" && m.GetManagedFields() == nil { // nobody asks for those of others
		m.SetManagedFields(managed(o))
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	metadata := meta.AsPartialObjectMetadata(m)
	brief, err := metadata.Marshal()
	if err != nil {
		return nil, err
	}
	partial, err := json.Marshal(metadata)
	if err != nil {
		return nil, err
	}
	partial = slices.Insert(partial, 1, []byte(`"kind":"`+partialKind+`","apiVersion":"`+partialVersion+`",`)...)
	return &object{objectID: id, labels: m.GetLabels(), version: version, json: text, partial: partial, brief: brief}, nil
}

// managed notes which fields of its spec an object has, as an API server does.
func managed(o runtime.Object) []metav1.ManagedFieldsEntry {
	fields := map[string]any{}
	if made, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o); err == nil {
		spec, _ := made["spec"].(map[string]any)
		for name := range spec {
			fields["f:"+name] = struct{}{}
		}
	}
	text, err := json.Marshal(map[string]any{"f:spec": fields})
	if err != nil {
		panic(err) // texts cannot fail
	}
	return []metav1.ManagedFieldsEntry{{Manager: "somebody", Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(string(text))}}
}

// Delete removes an object, if it is there, and returns the index of the last change.
func (v *Virtual) Delete(resource, namespace, name string) (index int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, id := v.shelves[resource], objectID{namespace, name}
	if s != nil && s.objects[id] != nil {
		v.change(s, id, nil)
	}
	return v.index
}

// change records a change and wakes the streams.
func (v *Virtual) change(s *shelf, id objectID, is *object) {
	v.index++
	v.version++
	s.changes = append(s.changes, change{v.index, v.version, time.Now(), id, s.objects[id], is})
	if is == nil {
		delete(s.objects, id)
	} else {
		s.objects[id] = is
	}
	v.wake()
}

func (v *Virtual) wake() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// SetWeather changes the weather.
func (v *Virtual) SetWeather(change func(*Weather)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.weather)
	v.wake()
}

// Index returns the index of the last change.
func (v *Virtual) Index() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.index
}

// Drop ends all open streams with an error, io.EOF for a clean end. What was due before still arrives.
func (v *Virtual) Drop(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(err)
}

func (v *Virtual) drop(err error) {
	for _, s := range v.shelves {
		for _, st := range s.streams {
			st.fill(time.Now())
			st.err = err
		}
		s.streams = nil
	}
	v.wake()
}

// Expire ends the open streams of a resource with the event that tells their clients to list anew.
func (v *Virtual) Expire(resource string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.shelves[resource]
	for _, st := range s.streams {
		st.buffer = append(st.buffer, frame("ERROR", status(http.StatusGone))...)
		st.err = io.EOF
	}
	s.streams = nil
	v.wake()
}

// Compact forgets all events, so that a watch from an older version is refused.
func (v *Virtual) Compact() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.shelves {
		s.compacted = v.version
	}
}

// Image is a backup of a Virtual.
type Image struct {
	version uint64
	objects map[string]map[objectID]*object
}

// Backup returns what there is.
func (v *Virtual) Backup() Image {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := Image{v.version, map[string]map[objectID]*object{}}
	for name, s := range v.shelves {
		out.objects[name] = maps.Clone(s.objects)
	}
	return out
}

// Restore puts back what there was, resourceVersions included, as an etcd restored from a backup does. All streams end. It
// returns the index, which counts on.
func (v *Virtual) Restore(from Image) (index int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(io.ErrUnexpectedEOF) // first: nobody was told of the restore
	v.index++
	v.version = from.version
	for name, s := range v.shelves {
		s.objects, s.changes, s.compacted = maps.Clone(from.objects[name]), nil, v.version
		s.era = v.index
	}
	return v.index
}

// Serve installs the CRDs of an API group such as multicluster.x-k8s.io, or removes them and all their objects. It returns
// the index.
func (v *Virtual) Serve(group string, served bool) (index int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.absent[group] != served {
		return v.index
	}
	v.absent[group] = !served
	v.index++
	v.version++
	for _, s := range v.shelves {
		if g, _, grouped := strings.Cut(s.apiVersion, "/"); !grouped || g != group {
			continue
		}
		for _, st := range s.streams {
			st.err = io.EOF
		}
		s.objects, s.changes, s.streams, s.compacted = map[objectID]*object{}, nil, nil, v.version
		s.era = v.index
	}
	v.wake()
	return v.index
}

// Serves reports whether an API group is served.
func (v *Virtual) Serves(group string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.absent[group]
}

// Client returns what the clients of a bearer token know.
func (v *Virtual) Client(token string) Client {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := *v.client(token)
	c.Delivered, c.Oldest, c.Streams = maps.Clone(c.Delivered), maps.Clone(c.Oldest), maps.Clone(c.Streams)
	c.Answered, c.Proved, c.Selectors = maps.Clone(c.Answered), maps.Clone(c.Proved), maps.Clone(c.Selectors)
	return c
}

func (v *Virtual) client(token string) *Client {
	c := v.clients[token]
	if c == nil {
		c = &Client{
			Delivered: map[string]int{}, Oldest: map[string]int{}, Streams: map[string]int{}, Selectors: map[string]labels.Selector{},
			Answered: map[string]time.Time{}, Proved: map[string]time.Time{},
		}
		v.clients[token] = c
	}
	return c
}

// request is a request as far as it is understood.
type request struct {
	*http.Request
	client          *Client
	query           url.Values
	group, version  string // of the API
	resource        string // "" for discovery
	namespace, name string
	watch           bool
	partial         bool // only metadata
	protobuf        bool // them in protobuf, if it is a list
	selects         func(*object) bool
	selector        labels.Selector
}

// proves tells whether it asks for a resource in all namespaces, whole whether for all of it.
func (r *request) proves() bool { return r.resource != "" && r.namespace == "" && r.name == "" }
func (r *request) whole() bool  { return r.proves() && r.query.Get("limit") != "1" }

func (v *Virtual) parse(req *http.Request) (*request, error) {
	r := &request{Request: req, query: req.URL.Query(), client: v.client(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))}
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 1:
		r.version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) == 2:
		r.group, parts = parts[1], nil
	case parts[0] == "apis" && len(parts) > 2:
		r.group, r.version, parts = parts[1], parts[2], parts[3:]
	default:
		return nil, fmt.Errorf("no such path: %s", req.URL.Path)
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		r.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 0 {
		r.resource = parts[0]
	}
	if len(parts) > 1 {
		r.name = parts[1]
	}
	selector, err := labels.Parse(r.query.Get("labelSelector"))
	if err != nil {
		return nil, err
	}
	field, only := strings.CutPrefix(r.query.Get("fieldSelector"), "metadata.name=")
	r.selects = func(o *object) bool {
		return (r.namespace == "" || o.namespace == r.namespace) && (!only || o.name == field) &&
			(r.name == "" || o.name == r.name) && selector.Matches(o.labels)
	}
	r.selector = selector
	r.watch = r.query.Get("watch") == "true" || r.query.Get("watch") == "1"
	r.partial = strings.Contains(req.Header.Get("Accept"), "as="+partialKind)
	r.protobuf = r.partial && strings.HasPrefix(req.Header.Get("Accept"), runtime.ContentTypeProtobuf)
	return r, nil
}

// RoundTrip implements http.RoundTripper.
func (v *Virtual) RoundTrip(req *http.Request) (*http.Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, err := v.parse(req)
	if err != nil {
		return nil, err
	}
	if v.weather.Refuse > 0 {
		v.fails(r)
		return nil, fmt.Errorf("virtual API server: %w", syscall.ECONNREFUSED)
	}
	r.client.Waiting++
	defer func() { r.client.Waiting-- }()
	for v.weather.Hang > 0 {
		if err := v.wait(req.Context(), nil); err != nil {
			v.fails(r)
			return nil, err
		}
	}
	reply := v.answer(r)
	if latency := v.weather.Latency; latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		for fired := false; !fired; {
			v.mu.Unlock()
			select {
			case <-timer.C:
				fired, err = true, nil
			case <-req.Context().Done():
				fired, err = true, req.Context().Err()
			}
			v.mu.Lock()
		}
		if err != nil {
			v.fails(r)
			return nil, err
		}
	}
	return reply(), nil
}

func (v *Virtual) fails(r *request) {
	if r.namespace != "" {
		r.client.Failed = time.Now()
	}
}

// wait gives up the lock until something has changed.
func (v *Virtual) wait(ctx context.Context, timer <-chan time.Time) error {
	changed := v.changed
	v.mu.Unlock()
	defer v.mu.Lock()
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// answer makes the answer from what there is now. What it returns is called when the answer arrives.
func (v *Virtual) answer(r *request) (arrives func() *http.Response) {
	refuse := func(code int) func() *http.Response {
		return func() *http.Response {
			v.fails(r)
			return respond(r.Request, code, status(code))
		}
	}
	if code := v.weather.Status; code != 0 {
		return refuse(code) //nolint:bodyclose // the client closes it
	}
	if v.absent[r.group] {
		index := v.index
		return func() *http.Response {
			r.client.Answered["discovery"] = time.Now()
			if r.group == "multicluster.x-k8s.io" && r.resource == "" {
				r.client.Denied = index
			}
			return respond(r.Request, http.StatusNotFound, status(http.StatusNotFound))
		}
	}
	if r.resource == "" {
		text := v.discovery(r)
		return func() *http.Response {
			r.client.Answered["discovery"] = time.Now()
			return respond(r.Request, http.StatusOK, text)
		}
	}
	s := v.shelves[r.resource]
	switch {
	case s == nil:
		return refuse(http.StatusNotFound) //nolint:bodyclose // likewise
	case r.watch:
		return v.watch(r, s) //nolint:bodyclose // likewise
	case r.name != "":
		return v.get(r, s) //nolint:bodyclose // likewise
	}
	return v.list(r, s) //nolint:bodyclose // likewise
}

// get answers with one object.
func (v *Virtual) get(r *request, s *shelf) (arrives func() *http.Response) {
	objects, _, _, ok := v.served(r, s)
	if !ok {
		return v.notYet(r) //nolint:bodyclose // the client closes it
	}
	o := objects[objectID{r.namespace, r.name}]
	if o == nil {
		return func() *http.Response { return respond(r.Request, http.StatusNotFound, status(http.StatusNotFound)) }
	}
	return func() *http.Response { return respond(r.Request, http.StatusOK, r.text(o)) }
}

// served is what a request is answered from: what there is, or what the cache has where the request allows that. It is false for
// a version that is yet to come.
func (v *Virtual) served(r *request, s *shelf) (objects map[objectID]*object, version uint64, index int, ok bool) {
	wanted, _ := strconv.ParseUint(r.query.Get("resourceVersion"), 10, 64)
	if wanted > v.version {
		return nil, 0, 0, false
	}
	if r.query.Get("resourceVersion") != "" && v.weather.Behind > 0 {
		objects, version, index = s.before(v.weather.Behind, wanted, v)
		return objects, version, index, true
	}
	return s.objects, v.version, v.index, true
}

func (v *Virtual) notYet(r *request) (arrives func() *http.Response) {
	return func() *http.Response {
		v.fails(r)
		return respond(r.Request, http.StatusGatewayTimeout, tooLarge())
	}
}

// discovery answers what an API group or version has.
func (v *Virtual) discovery(r *request) []byte {
	var out any
	if r.version == "" {
		group := metav1.APIGroup{Name: r.group}
		for _, s := range v.shelves {
			if g, version, _ := strings.Cut(s.apiVersion, "/"); g == r.group {
				group.Versions = []metav1.GroupVersionForDiscovery{{GroupVersion: s.apiVersion, Version: version}}
			}
		}
		out = group
	} else {
		list := metav1.APIResourceList{GroupVersion: r.group + "/" + r.version}
		for _, s := range v.shelves {
			if s.apiVersion == list.GroupVersion {
				list.APIResources = append(list.APIResources, metav1.APIResource{Name: s.resource})
			}
		}
		out = list
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // these types cannot fail
	}
	return text
}

// text is an object as it is asked for.
func (r *request) text(o *object) []byte {
	if r.partial {
		return o.partial
	}
	return o.json
}

// kind is how the objects of a shelf are called in the answer.
func (r *request) kind(s *shelf) (apiVersion, kind string) {
	if r.partial {
		return partialVersion, partialKind
	}
	return s.apiVersion, s.kind
}

// list answers with the objects that are selected.
func (v *Virtual) list(r *request, s *shelf) (arrives func() *http.Response) {
	objects, version, index, ok := v.served(r, s)
	if !ok {
		return v.notYet(r) //nolint:bodyclose // the client closes it
	}
	selected := slices.DeleteFunc(sorted(objects), func(o *object) bool {
		return !r.selects(o) || v.weather.Cold == r.resource && r.whole()
	})
	text, media := r.listText(s, version, selected), "application/json"
	if r.protobuf {
		text, media = listBrief(version, selected), runtime.ContentTypeProtobuf
	}
	return func() *http.Response {
		r.client.Answered[r.resource] = time.Now()
		if r.proves() {
			r.client.Proved[r.resource] = time.Now()
		}
		if r.whole() {
			r.client.Delivered[r.resource] = index
			if oldest, there := r.client.Oldest[r.resource]; !there || index < oldest {
				r.client.Oldest[r.resource] = index
			}
		}
		response := respond(r.Request, http.StatusOK, text)
		response.Header.Set("Content-Type", media)
		return response
	}
}

// listText is a list in JSON.
func (r *request) listText(s *shelf, version uint64, objects []*object) []byte {
	var text bytes.Buffer
	apiVersion, kind := r.kind(s)
	fmt.Fprintf(&text, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":"%d"},"items":[`, kind, apiVersion, version)
	for i, o := range objects {
		if i > 0 {
			text.WriteByte(',')
		}
		text.Write(r.text(o))
	}
	text.WriteString("]}")
	return text.Bytes()
}

// listBrief is a list of metadata in protobuf.
func listBrief(version uint64, objects []*object) []byte {
	about := metav1.ListMeta{ResourceVersion: strconv.FormatUint(version, 10)}
	octets, err := about.Marshal()
	list := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), octets)
	for _, o := range objects {
		list = protowire.AppendBytes(protowire.AppendTag(list, 2, protowire.BytesType), o.brief)
	}
	all := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: partialVersion, Kind: partialKind + "List"}, Raw: list}
	if err == nil {
		octets, err = all.Marshal()
	}
	if err != nil {
		panic(err) // these types cannot fail
	}
	return append([]byte("k8s\x00"), octets...)
}

// before returns what there was so long ago, but not before a version, nor before what a watch can begin from.
func (s *shelf) before(ago time.Duration, wanted uint64, v *Virtual) (objects map[objectID]*object, version uint64, index int) {
	objects, version, index = maps.Clone(s.objects), v.version, v.index
	oldest := max(wanted, s.compacted)
	for i := len(s.changes) - 1; i >= 0; i-- {
		c := &s.changes[i]
		if c.version <= oldest || time.Since(c.at) > ago {
			break
		}
		if c.was == nil {
			delete(objects, c.id)
		} else {
			objects[c.id] = c.was
		}
		version, index = c.version-1, c.index-1
	}
	return objects, version, index
}

func sorted(objects map[objectID]*object) []*object {
	return slices.SortedFunc(maps.Values(objects), func(a, b *object) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
}

func respond(r *http.Request, code int, text []byte) *http.Response {
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)),
	}
}

// status is the body of a refusal.
func status(code int) []byte {
	reasons := map[int]metav1.StatusReason{
		http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusUnauthorized: metav1.StatusReasonUnauthorized,
		http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusGone: metav1.StatusReasonExpired,
		http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests, http.StatusInternalServerError: metav1.StatusReasonInternalError,
		http.StatusServiceUnavailable: metav1.StatusReasonServiceUnavailable,
	}
	return fmt.Appendf(nil, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"so the test wants it","reason":%q,"code":%d}`, reasons[code], code)
}

// tooLarge is the answer to who knows more than the server.
func tooLarge() []byte {
	return fmt.Appendf(nil, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Too large resource version","reason":"Timeout","code":%d,"details":{"causes":[{"reason":%q,"message":"Too large resource version"}]}}`,
		http.StatusGatewayTimeout, metav1.CauseTypeResourceVersionTooLarge)
}

func frame(kind string, text []byte) []byte {
	out := append([]byte(`{"type":"`+kind+`","object":`), text...)
	return append(out, "}\n"...)
}

// CloseIdleConnections has nothing to close.
func (v *Virtual) CloseIdleConnections() {}

// Streams.

// bookmarkEvery is how often a stream says how far it has come, as API servers do.
const bookmarkEvery = time.Minute

// stream is an open watch. It is the body of the response: who reads it does its work.
type stream struct {
	v        *Virtual
	r        *request
	s        *shelf
	next     int    // into the changes of the shelf
	future   uint64 // silent up to this version: the client says that it knows it
	lost     bool   // the client goes on from what there was before a restore, and misses what that brought back
	buffer   []byte
	told     int // index up to which everything is in the buffer or was read
	err      error
	due      time.Time // of the last event
	bookmark time.Time
	closed   bool
}

func (v *Virtual) watch(r *request, s *shelf) (arrives func() *http.Response) {
	since, _ := strconv.ParseUint(r.query.Get("resourceVersion"), 10, 64)
	if since < s.compacted {
		return func() *http.Response { return respond(r.Request, http.StatusGone, status(http.StatusGone)) }
	}
	st := &stream{v: v, r: r, s: s, told: v.index, bookmark: time.Now().Add(bookmarkEvery)}
	st.next = len(s.changes)
	if since > v.version {
		st.future = since
	}
	st.lost = r.client.Delivered[r.resource] < s.era
	for st.next > 0 && s.changes[st.next-1].version > since {
		st.next--
	}
	if st.next < len(s.changes) {
		st.told = s.changes[st.next].index - 1
	}
	era := s.era
	return func() *http.Response {
		if s.streams = append(s.streams, st); s.era != era {
			st.err = io.ErrUnexpectedEOF
		}
		r.client.Streams[r.resource]++
		r.client.Selectors[r.resource] = r.selector
		r.client.Answered[r.resource], r.client.Proved[r.resource] = time.Now(), time.Now()
		st.delivered()
		reply := respond(r.Request, http.StatusOK, nil)
		reply.Body, reply.ContentLength = st, -1
		return reply
	}
}

// mark puts a bookmark into the buffer.
func (st *stream) mark(version uint64) {
	apiVersion, kind := st.r.kind(st.s)
	st.buffer = append(st.buffer, frame("BOOKMARK", fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"}}`,
		kind, apiVersion, version))...)
}

// Read implements io.Reader: it returns what is due and otherwise waits.
func (st *stream) Read(p []byte) (int, error) {
	v := st.v
	v.mu.Lock()
	defer v.mu.Unlock()
	for {
		if len(st.buffer) == 0 && st.err == nil {
			st.fill(time.Now())
		}
		switch {
		case st.closed:
			return 0, errors.New("read of a closed body")
		case len(st.buffer) > 0:
			n := copy(p, st.buffer)
			if st.buffer = st.buffer[n:]; len(st.buffer) > 0 {
				return n, nil
			}
			st.buffer = nil // with what it was part of
			if st.r.whole() {
				st.delivered()
				c := st.r.client
				c.Answered[st.r.resource], c.Proved[st.r.resource] = time.Now(), time.Now()
			}
			return n, nil
		case st.err != nil:
			return 0, st.err
		}
		timer := time.NewTimer(st.wakes())
		err := v.wait(st.r.Context(), timer.C)
		timer.Stop()
		if err != nil {
			return 0, err
		}
	}
}

// Close implements io.Closer.
func (st *stream) Close() error {
	v := st.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if !st.closed {
		st.closed = true
		st.r.client.Streams[st.r.resource]--
		st.s.streams = slices.DeleteFunc(st.s.streams, func(x *stream) bool { return x == st })
	}
	return nil
}

// dueAt is when a change reaches the stream.
func (st *stream) dueAt(c *change) time.Time {
	due := c.at
	if lag := st.v.weather.Lag; lag > 0 {
		due = due.Add(time.Duration(st.v.chance(c, st.s.resource, "lag") % uint64(lag)))
	}
	if due.Before(st.due) {
		return st.due
	}
	return due
}

// wakes is how long nothing can be due unless something changes.
func (st *stream) wakes() time.Duration {
	switch {
	case st.v.weather.Hang > 0:
		return bookmarkEvery
	case st.next < len(st.s.changes):
		return max(time.Until(st.dueAt(&st.s.changes[st.next])), time.Nanosecond)
	default:
		return max(time.Until(st.bookmark), time.Nanosecond)
	}
}

// fill puts what is due into the buffer.
func (st *stream) fill(now time.Time) {
	v, s := st.v, st.s
	if v.weather.Hang > 0 {
		return
	}
	for st.next < len(s.changes) {
		c := &s.changes[st.next]
		due := st.dueAt(c)
		if due.After(now) {
			return
		}
		st.due, st.next, st.told = due, st.next+1, c.index
		if st.next < len(s.changes) {
			if d := &s.changes[st.next]; d.id != c.id && v.chance(c, s.resource, "swap")%100 < uint64(v.weather.Swap) && !st.dueAt(d).After(now) { //nolint:gosec // a percentage
				st.event(d)
				st.next, st.told = st.next+1, d.index
			}
		}
		st.event(c)
		if v.chance(c, s.resource, "repeat")%100 < uint64(v.weather.Repeat) { //nolint:gosec // a percentage
			st.event(c)
		}
	}
	st.told = v.index
	if !now.Before(st.bookmark) {
		st.mark(v.version)
		st.bookmark = now.Add(bookmarkEvery)
	}
	if len(st.buffer) == 0 {
		st.delivered()
	}
}

// delivered notes how far the client has been told.
func (st *stream) delivered() {
	if st.r.whole() && !st.lost {
		st.r.client.Delivered[st.r.resource] = st.told
	}
}

// event puts a change into the buffer, as the stream's selector sees it.
func (st *stream) event(c *change) {
	was, is := c.was != nil && st.r.selects(c.was), c.is != nil && st.r.selects(c.is)
	switch {
	case c.version <= st.future:
	case is && was:
		st.buffer = append(st.buffer, frame("MODIFIED", st.r.text(c.is))...)
	case is:
		st.buffer = append(st.buffer, frame("ADDED", st.r.text(c.is))...)
	case was:
		st.buffer = append(st.buffer, frame("DELETED", reversion(st.r.text(c.was), c.was.version, c.version))...)
	}
}

// reversion gives the text of an object the version of its deletion, as it stands in that event.
func reversion(text []byte, was, is uint64) []byte {
	return bytes.Replace(text, fmt.Appendf(nil, `"resourceVersion":"%d"`, was), fmt.Appendf(nil, `"resourceVersion":"%d"`, is), 1)
}

// chance is a number that depends on the seed and the change only.
func (v *Virtual) chance(c *change, resource, what string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %s %s", v.seed, c.index, resource, what)
	return h.Sum64()
}
