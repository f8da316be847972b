package watch

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// importFeed reads ServiceImports and the EndpointSlices that a controller made for them, from the local API server or
// a hub.
type importFeed struct {
	clients clients
	convert converter
	group   mcsGroup

	services, endpoints atomic.Int64
	// holds are the doubts about ServiceImports and EndpointSlices.
	holds [2]hold

	audience // its lock guards what follows
	held     map[mcs.ServiceKey]*heldImport
	owner    map[mcs.ServiceKey]mcs.ServiceKey // EndpointSlice (namespace, name) to service
	listed   struct{ imports, slices bool }
	// partial is true until everything has been listed: at first, and again after the source was found to hold nothing.
	// Nothing new is told then, since it would be half of it.
	partial bool
}

// heldImport is what is known of one imported service. There may be slices before there is a ServiceImport.
type heldImport struct {
	imp    *mcs.Import
	slices []*mcs.Slice // sorted by name
	shard  *mcs.ImportShard
}

func newImportFeed(w *Watcher, c clients) *importFeed {
	f := &importFeed{
		audience: audience{w: w}, clients: c, partial: true,
		convert: converter{func(r Rejection) { w.spec.Observer.Reject(w.spec.Name(), r) }, &portLists{}},
		group:   mcsGroup{clients: c, plural: "serviceimports"},
		held:    map[mcs.ServiceKey]*heldImport{},
		owner:   map[mcs.ServiceKey]mcs.ServiceKey{},
	}
	f.recall = f.remember
	f.retell = f.retellTo
	return f
}

func (f *importFeed) connect(ctx context.Context) ([]stage, error) {
	if err := f.group.discover(ctx); err != nil {
		return nil, err
	}
	f.w.life.proof()
	imports := &store{
		w: f.w, resource: "serviceimports", complete: make(chan struct{}), begin: func() {},
		set: f.setImport, remove: f.removeImport, replace: f.replaceImports, compact: f.compactImport,
		remains: f.remainsOf, hold: &f.holds[0],
	}
	endpointSlices := &store{
		w: f.w, resource: "endpointslices", complete: make(chan struct{}), begin: func() {},
		set: f.setSlice, remove: f.removeSlice, replace: f.replaceSlices, compact: f.compactSlice,
		remains: f.remainsOfSlices, hold: &f.holds[1],
	}
	imported := func(o *metav1.ListOptions) { o.LabelSelector = labelImportName }
	return []stage{{
		f.group.listing(newObjects[mcsv1beta1.ServiceImport]).resource(imports),
		f.clients.endpointSlices(imported).resource(endpointSlices),
	}}, nil
}

func (f *importFeed) ask(ctx context.Context) error { return f.group.ask(ctx) }

func (f *importFeed) tick(time.Time) {}

func (f *importFeed) size() (services, endpoints int) {
	return int(f.services.Load()), int(f.endpoints.Load())
}

func (f *importFeed) retellTo(s Sink) {
	for key, h := range f.held {
		if h.shard != nil {
			s.ApplyImport(key, h.shard, time.Time{})
		}
	}
}

func (f *importFeed) remember(facts mcs.Facts) {
	for key, shard := range facts.Imports {
		f.held[key] = &heldImport{imp: &shard.Import, slices: slices.Clone(shard.Slices), shard: shard}
		for _, s := range shard.Slices {
			f.owner[mcs.ServiceKey{Namespace: key.Namespace, Name: s.Name}] = key
		}
		f.count(shard, 1)
	}
}

func (f *importFeed) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.partial = false
	for key, h := range f.held {
		h.imp, h.slices = nil, nil
		f.tell(key, h, time.Time{})
	}
	clear(f.owner)
	f.goLive()
	f.partial = true
	f.listed.imports, f.listed.slices = false, false
}

// listedAll is called after each full list; when both are there, everything is told that was held back.
func (f *importFeed) listedAll() {
	if !f.listed.imports || !f.listed.slices || !f.partial {
		return
	}
	f.partial = false
	for key, h := range f.held {
		f.tell(key, h, time.Time{})
	}
	f.goLive()
	f.w.complete()
}

// tell builds the shard of a service and passes it on if it is news.
func (f *importFeed) tell(key mcs.ServiceKey, h *heldImport, changed time.Time) {
	if f.partial {
		return
	}
	if h.imp == nil && len(h.slices) == 0 {
		delete(f.held, key)
	}
	var shard *mcs.ImportShard
	if h.imp != nil {
		shard = &mcs.ImportShard{Import: *h.imp, Slices: slices.Clone(h.slices)}
	}
	if shard.Equal(h.shard) {
		return
	}
	f.count(h.shard, -1)
	f.count(shard, 1)
	h.shard = shard
	for _, s := range f.sinks {
		s.ApplyImport(key, shard, changed)
	}
}

func (f *importFeed) count(s *mcs.ImportShard, sign int64) {
	if s == nil {
		return
	}
	f.services.Add(sign)
	f.endpoints.Add(sign * int64(endpointsIn(s.Slices)))
}

func (f *importFeed) entry(key mcs.ServiceKey) *heldImport {
	h := f.held[key]
	if h == nil {
		h = &heldImport{}
		f.held[key] = h
	}
	return h
}

// remainsOf tells how many endpoints are told, and how many would be if only these ServiceImports were left.
func (f *importFeed) remainsOf(items []any) (before, after int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, obj := range items {
		if h := f.held[obj.(*item).id()]; h != nil && h.shard != nil {
			after += endpointsIn(h.shard.Slices)
		}
	}
	return int(f.endpoints.Load()), after
}

// remainsOfSlices tells the same of EndpointSlices.
func (f *importFeed) remainsOfSlices(items []any) (before, after int) {
	return int(f.endpoints.Load()), endpointsOf(items, func(mcs.ServiceKey) bool { return true })
}

// ServiceImports.

// compactImport makes an item whose fact is an *mcs.Import.
func (f *importFeed) compactImport(obj any) any {
	if _, done := obj.(*item); done {
		return obj
	}
	out := identify(obj)
	if key, imp, ok := f.convert.serviceImport(obj); ok {
		out.key, out.fact = key, &imp
	}
	return out
}

func (f *importFeed) setImport(obj any) {
	it := f.compactImport(obj).(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	imp, ok := it.fact.(*mcs.Import)
	if !ok {
		it.key = it.id() // what it was before makes no sense any more
		if f.held[it.key] == nil {
			return
		}
	}
	h := f.entry(it.key)
	h.imp = imp
	f.tell(it.key, h, time.Time{})
}

func (f *importFeed) removeImport(obj any) {
	key := identify(obj).id()
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.held[key]; h != nil {
		h.imp = nil
		f.tell(key, h, time.Time{})
	}
}

func (f *importFeed) replaceImports(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[mcs.ServiceKey]*mcs.Import, len(items))
	for _, obj := range items {
		if it := obj.(*item); it.fact != nil {
			there[it.key] = it.fact.(*mcs.Import)
		}
	}
	for key := range there {
		f.entry(key)
	}
	for key, h := range f.held {
		h.imp = there[key]
		f.tell(key, h, time.Time{})
	}
	f.listed.imports = true
	f.listedAll()
}

// EndpointSlices.

func (f *importFeed) compactSlice(obj any) any {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return identify(obj)
	}
	out := identify(s)
	key, ok := f.convert.key(s.Namespace, s.Labels[labelImportName])
	if !ok {
		return out
	}
	source, err := topology.ParseClusterID(s.Labels[labelSourceCluster])
	if err != nil {
		f.convert.reject(BadSource)
		return out
	}
	if slice := f.convert.slice(s); slice != nil {
		slice.Source = topology.ClusterID(intern(string(source)))
		out.key, out.fact = key, sliceFact{slice, changedAt(s)}
	}
	return out
}

func (f *importFeed) setSlice(obj any) {
	it := f.compactSlice(obj).(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	if owner, there := f.owner[it.id()]; there && (owner != it.key || it.fact == nil) {
		f.takeSlice(owner, it)
	}
	if it.fact == nil {
		return
	}
	h := f.entry(it.key)
	f.putSlice(h, it)
	f.tell(it.key, h, it.fact.(sliceFact).changed)
}

func (f *importFeed) removeSlice(obj any) {
	it := identify(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	if owner, there := f.owner[it.id()]; there {
		f.takeSlice(owner, it)
	}
}

func (f *importFeed) takeSlice(key mcs.ServiceKey, it *item) {
	h := f.held[key]
	if at, there := h.find(it.name); there {
		h.slices = slices.Delete(h.slices, at, at+1)
	}
	delete(f.owner, it.id())
	f.tell(key, h, time.Time{})
}

func (f *importFeed) putSlice(h *heldImport, it *item) {
	slice := it.fact.(sliceFact).slice
	if at, there := h.find(it.name); there {
		h.slices[at] = slice
	} else {
		h.slices = slices.Insert(h.slices, at, slice)
	}
	f.owner[it.id()] = it.key
}

func (h *heldImport) find(name string) (int, bool) {
	return slices.BinarySearchFunc(h.slices, name, func(s *mcs.Slice, name string) int { return strings.Compare(s.Name, name) })
}

func (f *importFeed) replaceSlices(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.owner)
	for _, h := range f.held {
		h.slices = nil
	}
	for _, obj := range items {
		if it := obj.(*item); it.fact != nil {
			f.putSlice(f.entry(it.key), it)
		}
	}
	for key, h := range f.held {
		f.tell(key, h, time.Time{})
	}
	f.listed.slices = true
	f.listedAll()
}
