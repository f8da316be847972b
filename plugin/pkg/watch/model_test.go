package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	typeddiscovery "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestMain(m *testing.M) {
	// The API machinery reports errors the slower the more there are, by a clock that is one for all: between the time of a
	// bubble (see testing/synctest) and that outside it would wait for years.
	utilruntime.ErrorHandlers = nil
	goleak.VerifyTestMain(m)
}

// told is a Sink and an Observer that remember.
type told struct {
	t          testing.TB // where there is one
	mu         sync.Mutex
	shards     map[mcs.ServiceKey]*mcs.Shard
	imports    map[mcs.ServiceKey]*mcs.ImportShard
	namespaces map[string]bool
	addresses  map[netip.Addr]bool
	synced     []mcs.Source
	restored   []mcs.Source
	calls      int // of any kind
	left       rejections
	problems   []string // "resource problem"
	states     []State
	renewals   []error
}

func newTold() *told {
	return &told{shards: map[mcs.ServiceKey]*mcs.Shard{}, imports: map[mcs.ServiceKey]*mcs.ImportShard{}, namespaces: map[string]bool{}, addresses: map[netip.Addr]bool{}}
}

func (s *told) ApplyShard(_ topology.ClusterID, key mcs.ServiceKey, shard *mcs.Shard, _ time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.shards[key] = shard; shard == nil {
		delete(s.shards, key)
	}
}

func (s *told) ApplyImport(key mcs.ServiceKey, shard *mcs.ImportShard, _ time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.imports[key] = shard; shard == nil {
		delete(s.imports, key)
	}
}

func (s *told) ApplyNamespace(name string, exists bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.namespaces[name] = exists; !exists {
		delete(s.namespaces, name)
	}
}

func (s *told) SetSynced(source mcs.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.synced = append(s.synced, source)
}

func (s *told) ApplyServiceAddresses(taken, free []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range taken {
		if s.addresses[a] {
			panic(fmt.Sprintf("%s was told twice", a))
		}
		s.addresses[a] = true
	}
	for _, a := range free {
		delete(s.addresses, a)
	}
}

func (s *told) SetRestored(source mcs.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = append(s.restored, source)
}

func (s *told) Event(string, string, string, int) {}

func (s *told) Hold(string, string, bool, int, int) {}

func (s *told) Renewed(_ string, _ bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals = append(s.renewals, err)
}

func (s *told) Reject(_ string, reason Rejection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, reason)
}

func (s *told) Problem(_, resource string, p Problem, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (p == NoProblem) != (err == nil) {
		panic(fmt.Sprintf("problem %q with error %v", p, err))
	}
	s.problems = append(s.problems, resource+" "+cmp.Or(string(p), "fine"))
}

func (s *told) State(_ string, _ mcs.SourceKind, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states, state)
}

// look runs f while nobody else is told.
func (s *told) look(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// kind is a resource of the model.
type kind int

const (
	theExports kind = iota
	theServices
	theSlices
	kinds
)

type objects map[mcs.ServiceKey]metav1.Object

type modelEvent struct {
	gone bool
	obj  metav1.Object
}

// model is an API server without a network: three resources with one count of resourceVersions, whose events, full lists
// and replies reach an exportFeed when the test says so, in any order that a real server could show.
type model struct {
	t    *testing.T
	feed *exportFeed
	sink *told
	rv   uint64
	base [kinds]objects // before the first event of log
	from uint64         // the resourceVersion of base
	log  [kinds][]modelEvent
	at   [kinds]int // how many of log the watch has delivered, -1 before the first list
	list [kinds]*modelList
	// selects is which EndpointSlices the watch brings.
	selects labels.Selector

	mu    sync.Mutex
	calls []*call // requests of fetches without a reply, in order
}

// modelList is a full list under way: begun, then evaluated at a point of the log, then made items, then passed on.
type modelList struct {
	at      int // -1 before it is evaluated
	selects labels.Selector
	version uint64
	items   []any
}

// call is a request of a fetch.
type call struct {
	what string
	// ask makes the reply with what the server has, or for true with what its cache has, as old as the request allows.
	ask   func(cached bool) (any, error)
	got   any
	err   error
	asked bool
	reply chan struct{}
}

var errModel = errors.New("no connection")

// newModel must be called in a synctest bubble. The watcher ends with the test.
func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{t: t, sink: newTold(), at: [kinds]int{-1, -1, -1}}
	for k := range kinds {
		m.base[k] = objects{}
	}
	w := testWatcher(t, mcs.Exports, m.sink, clients{core: modelCore{model: m}})
	m.feed = w.feed.(*exportFeed)
	m.feed.subscribe(m.sink)
	return m
}

// testWatcher makes a Watcher that does not run.
func testWatcher(t *testing.T, kind mcs.SourceKind, observer Observer, c clients) *Watcher {
	t.Helper()
	w := &Watcher{spec: Spec{Kind: kind, Cluster: "east", Observer: observer}, restart: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx, w.cancel = func() context.Context { return ctx }, cancel
	t.Cleanup(func() {
		cancel()
		w.done.Wait()
	})
	switch kind {
	case mcs.Namespaces:
		w.feed = newNamespaceFeed(w, c)
	case mcs.Imports:
		w.feed = newImportFeed(w, c)
	default:
		w.feed = newExportFeed(w, c)
	}
	return w
}

func idOf(o metav1.Object) mcs.ServiceKey {
	return mcs.ServiceKey{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// set creates or changes an object at the server.
func (m *model) set(k kind, o metav1.Object) {
	m.rv++
	o.SetResourceVersion(strconv.FormatUint(m.rv, 10))
	m.log[k] = append(m.log[k], modelEvent{obj: o})
}

// del deletes an object at the server, if it is there.
func (m *model) del(k kind, id mcs.ServiceKey) {
	o := m.now(k)[id]
	if o == nil {
		return
	}
	switch v := o.(type) {
	case *mcsv1beta1.ServiceExport:
		o = v.DeepCopy()
	case *corev1.Service:
		o = v.DeepCopy()
	case *discoveryv1.EndpointSlice:
		o = v.DeepCopy()
	}
	m.rv++
	o.SetResourceVersion(strconv.FormatUint(m.rv, 10))
	m.log[k] = append(m.log[k], modelEvent{gone: true, obj: o})
}

// state is what the server had after so many events.
func (m *model) state(k kind, at int) objects {
	out := maps.Clone(m.base[k])
	for _, e := range m.log[k][:at] {
		if e.gone {
			delete(out, idOf(e.obj))
		} else {
			out[idOf(e.obj)] = e.obj
		}
	}
	return out
}

// version is the resourceVersion of that state.
func (m *model) version(k kind, at int) uint64 {
	if at == 0 {
		return m.from
	}
	return version(m.log[k][at-1].obj.GetResourceVersion())
}

func (m *model) now(k kind) objects { return m.state(k, len(m.log[k])) }

// event delivers the next event of a watch. It reports false when there is none, or no watch.
func (m *model) event(k kind) bool {
	if m.at[k] < 0 || m.list[k] != nil || m.at[k] == len(m.log[k]) {
		return false
	}
	e := m.log[k][m.at[k]]
	was := m.state(k, m.at[k])[idOf(e.obj)]
	m.at[k]++
	if k == theSlices {
		had := was != nil && m.selects.Matches(labels.Set(was.GetLabels()))
		if e.gone = e.gone || !m.selects.Matches(labels.Set(e.obj.GetLabels())); e.gone && !had {
			return true // nobody is told
		}
	}
	set, remove := m.feed.setExport, m.feed.removeExport
	switch k {
	case theServices:
		m.feed.servicesReached.Store(version(e.obj.GetResourceVersion()))
		set, remove = m.feed.setService, m.feed.removeService
	case theSlices:
		m.feed.slicesReached.Store(version(e.obj.GetResourceVersion()))
		set, remove = m.feed.setSlice, m.feed.removeSlice
	}
	if e.gone {
		remove(e.obj)
	} else {
		set(e.obj)
	}
	return true
}

// relist goes one step towards a full list, beginning one if none is under way. The server answers it from its cache,
// which is so many events behind, but never behind the watch.
func (m *model) relist(k kind, behind int) {
	l := m.list[k]
	switch {
	case l == nil && k != theExports && m.at[theExports] < 0:
		// Services and slices are listed after the exports.
	case l == nil:
		m.list[k] = &modelList{at: -1}
		switch k {
		case theServices:
			m.feed.beginServices()
		case theSlices:
			m.feed.beginSlices()
			m.list[k].selects = parsed(m.t, m.feed.selected.selector())
		}
	case l.at < 0:
		l.at = max(len(m.log[k])-behind, m.told(k), 0)
		l.version = m.version(k, l.at)
	case l.items == nil:
		compact := []func(any) any{m.feed.compactExport, m.feed.compactService, m.feed.compactSlice}[k]
		l.items = []any{}
		for _, o := range m.state(k, l.at) {
			if l.selects == nil || l.selects.Matches(labels.Set(o.GetLabels())) {
				l.items = append(l.items, compact(o))
			}
		}
	default:
		m.list[k], m.at[k] = nil, l.at
		switch k {
		case theServices:
			m.feed.servicesReached.Store(l.version)
		case theSlices:
			m.feed.slicesReached.Store(l.version)
			m.selects = l.selects
		}
		[]func([]any){m.feed.replaceExports, m.feed.replaceServices, m.feed.replaceSlices}[k](l.items)
	}
}

// told is how many events the client knows of: those that a watch has passed over in silence it does not.
func (m *model) told(k kind) int {
	at := m.at[k]
	for k == theSlices && at > 0 && m.version(k, at) > m.feed.slicesReached.Load() {
		at--
	}
	return at
}

func parsed(t *testing.T, selector string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// listAll makes one full list of a resource at once.
func (m *model) listAll(k kind) {
	for begun := false; !begun || m.list[k] != nil; begun = true {
		m.relist(k, 0)
	}
}

// sync is what happens at the start.
func (m *model) sync() {
	for k := range kinds {
		m.listAll(k)
	}
}

// events delivers all that waits.
func (m *model) events() {
	for k := range kinds {
		for m.event(k) {
		}
	}
}

// pending waits until all fetches wait for the server and returns their requests, in an order that depends on them alone.
func (m *model) pending() []*call {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedStableFunc(slices.Values(m.calls), func(a, b *call) int { return strings.Compare(a.what, b.what) })
}

// evaluate lets the server make the reply, with what it has now.
func (c *call) evaluate() { c.evaluateFrom(false) }

func (c *call) evaluateFrom(cache bool) {
	if !c.asked {
		c.got, c.err = c.ask(cache)
		c.asked = true
	}
}

// answer lets the reply arrive.
func (m *model) answer(c *call) {
	c.evaluate()
	m.mu.Lock()
	m.calls = slices.DeleteFunc(m.calls, func(x *call) bool { return x == c })
	m.mu.Unlock()
	close(c.reply)
	synctest.Wait()
}

// fetch answers all requests, and those that follow from the answers.
func (m *model) fetch() {
	for calls := m.pending(); len(calls) > 0; calls = m.pending() {
		m.answer(calls[0])
	}
}

// settle lets everything arrive.
func (m *model) settle() {
	m.t.Helper()
	for range 1000 {
		for k := range kinds {
			if m.list[k] != nil || m.at[k] < 0 || k == theSlices && m.feed.lacks() {
				m.listAll(k)
			}
		}
		m.events()
		m.fetch()
		if len(m.feed.fetching) == 0 && !m.feed.lacks() {
			return
		}
		time.Sleep(time.Minute) // of the bubble: a fetch that failed waits
	}
	m.t.Fatal("The feed does not come to rest")
}

// restore puts the server back to what it was when the snapshot was taken, resourceVersions included. Watches end.
func (m *model) restore(rv uint64, state [kinds]objects) {
	m.feed.beginRound()
	m.rv, m.from, m.base = rv, rv, state
	for k := range kinds {
		m.log[k], m.list[k] = nil, nil
		if m.at[k] >= 0 {
			m.at[k] = 0
			m.relist(k, 0)
		}
	}
}

func (m *model) snapshot() (uint64, [kinds]objects) {
	var state [kinds]objects
	for k := range kinds {
		state[k] = m.now(k)
	}
	return m.rv, state
}

// owners counts the slices whose owners the feed knows, and looks whether it remembers strays that it does not hold.
func (m *model) owners() (n int) {
	m.t.Helper()
	strays := maps.Clone(m.feed.strays)
	for key, h := range m.feed.held {
		n += m.owned(key, h, strays)
	}
	for key, h := range m.feed.standby.held {
		m.owned(key, h, strays)
	}
	if len(strays) > 0 {
		m.t.Errorf("Remembered are %v, which are not held", strays)
	}
	return n
}

// owned counts the slices of a service whose owner the feed knows, and takes them from strays.
func (m *model) owned(key mcs.ServiceKey, h *held, strays map[mcs.ServiceKey]mcs.ServiceKey) (n int) {
	for i := range h.slices {
		id := mcs.ServiceKey{Namespace: key.Namespace, Name: h.slices[i].fact.Name}
		if owner, there := m.feed.ownerOf(id); there && owner == key {
			n++
		}
		delete(strays, id)
	}
	return n
}

// check compares what the sink was told with what the server has, and that nothing else is kept.
func (m *model) check() {
	m.t.Helper()
	want := map[mcs.ServiceKey]*mcs.Shard{}
	c := converter{reject: func(Rejection) {}}
	owners, endpoints := 0, 0
	for _, o := range m.now(theExports) {
		key, export, ok := c.export(o)
		if !ok {
			continue
		}
		want[key] = &mcs.Shard{Export: export}
		if s := m.now(theServices)[key]; s != nil {
			want[key].Service = c.service(s.(*corev1.Service))
		}
		for _, o := range m.now(theSlices) {
			s := o.(*discoveryv1.EndpointSlice)
			if serviceOf(s) != key {
				continue
			}
			if slice := c.slice(s); slice != nil {
				want[key].Slices = append(want[key].Slices, slice)
				owners++
				endpoints += slice.Endpoints.Len()
			}
		}
		slices.SortFunc(want[key].Slices, func(a, b *mcs.Slice) int { return strings.Compare(a.Name, b.Name) })
	}
	for key, shard := range want {
		if got := m.sink.shards[key]; !got.Equal(shard) {
			m.t.Errorf("%s: got %s, want %s", key, sketch(got), sketch(shard))
		}
	}
	if len(m.sink.shards) != len(want) || len(m.feed.held) != len(want) {
		m.t.Errorf("The sink has %d services and the feed holds %d, want %d", len(m.sink.shards), len(m.feed.held), len(want))
	}
	m.checkStandby()
	if n := m.owners(); n != owners {
		m.t.Errorf("The feed knows the owners of %d slices, want %d", n, owners)
	}
	if s, e := m.feed.size(); s != len(want) || e != endpoints || m.feed.kept != endpoints {
		m.t.Errorf("The feed counts %d services and %d endpoints, and has room for all but %d, want %d and %d", s, e, m.feed.kept, len(want), endpoints)
	}
}

// limit has all EndpointSlices watched as soon as there is an export, and so many services at most stand by.
func (m *model) limit(standby int) { m.feed.limits.selector, m.feed.limits.standby = 0, standby }

// checkStandby compares what stands by with what the server has and nobody exports.
func (m *model) checkStandby() {
	m.t.Helper()
	s := &m.feed.standby
	endpoints := 0
	for key, h := range s.held {
		if h.exported || m.feed.held[key] != nil {
			m.t.Errorf("%s stands by, and is exported", key)
		}
		endpoints += h.endpoints()
	}
	if endpoints != s.endpoints || len(s.held) > m.feed.room() {
		m.t.Errorf("%d services and %d endpoints stand by, counted are %d; there is room for %d services", len(s.held), endpoints, s.endpoints, m.feed.room())
	}
	if !s.complete() {
		return
	}
	want := map[mcs.ServiceKey]*mcs.Shard{}
	add := func(key mcs.ServiceKey) *mcs.Shard {
		if want[key] == nil {
			want[key] = &mcs.Shard{}
		}
		return want[key]
	}
	c := converter{reject: func(Rejection) {}}
	for key, o := range m.now(theServices) {
		if m.now(theExports)[key] == nil {
			add(key).Service = c.service(o.(*corev1.Service))
		}
	}
	for _, o := range m.now(theSlices) {
		o := o.(*discoveryv1.EndpointSlice)
		key := serviceOf(o)
		if slice := c.slice(o); slice != nil && key.Name != "" && m.now(theExports)[key] == nil {
			shard := add(key)
			shard.Slices = append(shard.Slices, slice)
		}
	}
	for key, shard := range want {
		slices.SortFunc(shard.Slices, func(a, b *mcs.Slice) int { return strings.Compare(a.Name, b.Name) })
		got := &mcs.Shard{}
		if h := s.held[key]; h != nil {
			if h.doubtful { // it is fetched before it is told
				continue
			}
			got = mcs.NewShard(mcs.Export{}, h.service.fact, len(h.slices))
			for i := range h.slices {
				got.Slices = append(got.Slices, h.slices[i].fact)
			}
		}
		if !got.Equal(shard) {
			m.t.Errorf("%s: %s stands by, want %s", key, sketch(got), sketch(shard))
		}
	}
	for key, h := range s.held {
		if want[key] == nil && !h.doubtful {
			m.t.Errorf("%s stands by, and there is nothing of it", key)
		}
	}
}

// sketch says which service and slices a shard has.
func sketch(s *mcs.Shard) string {
	if s == nil {
		return "nothing"
	}
	text := "no service"
	if s.Service != nil {
		text = fmt.Sprint(s.Service.ClusterIPs)
	}
	for _, slice := range s.Slices {
		text += " " + slice.Name
		for _, e := range slice.Endpoints.All() {
			text += " " + e.Addr.String()
		}
	}
	return text
}

// modelCore is the part of a clientset that a fetch uses.
type modelCore struct {
	kubernetes.Interface
	typedcore.CoreV1Interface
	typeddiscovery.DiscoveryV1Interface
	model *model
}

func (c modelCore) CoreV1() typedcore.CoreV1Interface                { return c }
func (c modelCore) DiscoveryV1() typeddiscovery.DiscoveryV1Interface { return c }
func (c modelCore) RESTClient() rest.Interface                       { return nil }

type modelServices struct {
	typedcore.ServiceInterface
	model     *model
	namespace string
}

func (c modelCore) Services(namespace string) typedcore.ServiceInterface {
	return modelServices{nil, c.model, namespace}
}

func (s modelServices) Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Service, error) {
	got, err := s.model.call(ctx, "service "+s.namespace+"/"+name, func(cached bool) (any, error) {
		at, err := s.model.served(theServices, o.ResourceVersion, cached)
		if err != nil {
			return nil, err
		}
		if o := s.model.state(theServices, at)[mcs.ServiceKey{Namespace: s.namespace, Name: name}]; o != nil {
			return o, nil
		}
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	})
	service, _ := got.(*corev1.Service)
	return service, err
}

type modelSlices struct {
	typeddiscovery.EndpointSliceInterface
	model     *model
	namespace string
}

func (c modelCore) EndpointSlices(namespace string) typeddiscovery.EndpointSliceInterface {
	return modelSlices{nil, c.model, namespace}
}

func (s modelSlices) List(ctx context.Context, o metav1.ListOptions) (*discoveryv1.EndpointSliceList, error) {
	got, err := s.model.call(ctx, "slices "+s.namespace+" "+o.LabelSelector, func(cached bool) (any, error) {
		at, err := s.model.served(theSlices, o.ResourceVersion, cached)
		if err != nil {
			return nil, err
		}
		out := &discoveryv1.EndpointSliceList{}
		for id, slice := range s.model.state(theSlices, at) {
			slice := slice.(*discoveryv1.EndpointSlice)
			if id.Namespace == s.namespace && o.LabelSelector == labelServiceName+"="+slice.Labels[labelServiceName] {
				out.Items = append(out.Items, *slice)
			}
		}
		return out, nil
	})
	list, _ := got.(*discoveryv1.EndpointSliceList)
	return list, err
}

// served is how many events a reply shows: all, or as few as the request allows of what the cache has.
func (m *model) served(k kind, notOlder string, cached bool) (at int, err error) {
	wanted, at := version(notOlder), len(m.log[k])
	if m.version(k, at) < wanted && m.rv < wanted {
		return 0, errModel // the server has not come so far, as after a restoration
	}
	for cached && wanted != 0 && at > 0 && m.version(k, at-1) >= wanted {
		at--
	}
	return at, nil
}

func (m *model) call(ctx context.Context, what string, ask func(bool) (any, error)) (any, error) {
	c := &call{what: what, ask: ask, reply: make(chan struct{})}
	m.mu.Lock()
	m.calls = append(m.calls, c)
	m.mu.Unlock()
	select {
	case <-c.reply:
		return c.got, c.err
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		m.calls = slices.DeleteFunc(m.calls, func(x *call) bool { return x == c })
		return nil, ctx.Err()
	}
}

// The objects of the tests.

func export(namespace, name string) *mcsv1beta1.ServiceExport {
	return &mcsv1beta1.ServiceExport{ObjectMeta: meta(namespace, name)}
}

func service(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(namespace, name), Spec: corev1.ServiceSpec{ClusterIPs: []string{ip}}}
}

func slice(namespace, name, of string, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta(namespace, name), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels = map[string]string{labelServiceName: of}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}
