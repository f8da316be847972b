package watch

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// exportFeed reads what a member exports: its ServiceExports, and of Services and EndpointSlices those that are exported. Where
// nothing is kept of the others (see standby), a new export has to be fetched; that is done at once.
type exportFeed struct {
	clients clients
	convert converter
	group   mcsGroup
	// requests bounds how many fetches ask the API server at once. Each asks two things.
	requests chan struct{}

	// reselect gets a token when an export is not covered by selected.
	reselect chan struct{}
	// servicesReached and slicesReached are the resourceVersions up to which the watches have told everything.
	servicesReached     atomic.Uint64
	slicesReached       atomic.Uint64
	services, endpoints atomic.Int64
	// brief is true until an export is listed of which there is more than metadata.
	brief atomic.Bool
	// addressed is true when the cluster IPs of all Services are asked for.
	addressed atomic.Bool
	// holds are the doubts about ServiceExports, Services and EndpointSlices.
	holds [3]hold

	audience // its lock guards what follows
	held     map[mcs.ServiceKey]*held
	// strays tells to which service a held EndpointSlice (namespace, name) belongs whose name does not say it; see ownerOf.
	strays  map[mcs.ServiceKey]mcs.ServiceKey
	standby standby
	// counting converts what is exported, noting what stands by; leftOut tells that the last conversion has left something out.
	counting, noting converter
	leftOut          bool
	// selected is which EndpointSlices were asked for last.
	selected selection
	// following is true once Services and EndpointSlices are watched: an export that appears from then on must be fetched.
	following bool
	listed    struct{ exports, services, slices bool }
	// partial is true until everything has been listed: at first, and again after the source was found to hold nothing.
	// Nothing new is told then, since it would be half of it.
	partial bool
	// fresh are endpoints that have never been ready, by slice and identity, and since when they are known.
	fresh map[mcs.ServiceKey]map[mcs.Identity]time.Time
	// fetching are the fetches under way, by the service they are for.
	fetching map[mcs.ServiceKey]*fetch
	// fetches counts finished fetches, lists full lists of Services and EndpointSlices. Of a fetch and a full list that
	// overlap nobody can tell which is older, so that fetch is made again.
	fetches, lists uint64
	limits         limits
	// addresses are these cluster IPs, with the Services that have them as far as that is known.
	addresses map[netip.Addr]holder
	// kept counts the endpoints held; over is true after something was left out for want of room.
	kept                       int
	over                       bool
	servicesBegan, slicesBegan uint64 // fetches when the last list was asked for
}

// held is what is known of one exported service.
type held struct {
	export  mcs.Export
	service fetched[*mcs.ServiceSpec]
	slices  []fetched[*mcs.Slice] // sorted by name
	fetch   *fetch                // not nil while one is under way
	fetched uint64                // the number of the last finished fetch, 0 if there was none
	shard   *mcs.Shard            // what the sinks were told last
	// exported is false while it stands by, doubtful true when something of it was left out.
	exported, doubtful bool
	only               [1]fetched[*mcs.Slice] // room for slices, which are mostly one
}

// fetched is a fact with its resourceVersion.
type fetched[T any] struct {
	fact T
	origin
}

// origin is a resourceVersion, and in the lowest bit whether a fetch brought it and not the watch. Nothing has more than 63
// bits of changes.
type origin uint64

const byFetch origin = 1

func watched(version uint64) origin { return origin(version << 1) }

func (o origin) version() uint64 { return uint64(o >> 1) }

// older reports whether a fetch has brought a newer version already. Within the watch itself, order is order: a
// resourceVersion that goes back there means that etcd was restored.
func (o origin) older(version uint64) bool {
	return o&byFetch != 0 && version != 0 && version < o.version()
}

func newExportFeed(w *Watcher, c clients) *exportFeed {
	f := &exportFeed{
		audience: audience{w: w}, clients: c, partial: true,
		limits:    limits{maxServices, maxEndpoints, selectAtMost, standbyAtMost},
		convert:   converter{func(r Rejection) { w.spec.Observer.Reject(w.spec.Name(), r) }, &portLists{}},
		group:     mcsGroup{clients: c, plural: "serviceexports"},
		requests:  make(chan struct{}, 4),
		reselect:  make(chan struct{}, 1),
		fetching:  map[mcs.ServiceKey]*fetch{},
		held:      map[mcs.ServiceKey]*held{},
		strays:    map[mcs.ServiceKey]mcs.ServiceKey{},
		fresh:     map[mcs.ServiceKey]map[mcs.Identity]time.Time{},
		addresses: map[netip.Addr]holder{},
	}
	f.counting, f.noting = f.convert, f.convert
	f.counting.reject = func(r Rejection) {
		f.leftOut = true
		f.convert.reject(r)
	}
	f.noting.reject = func(Rejection) { f.leftOut = true }
	f.brief.Store(true)
	f.recall = f.remember
	f.retell = f.retellTo
	return f
}

func (f *exportFeed) connect(ctx context.Context) ([]stage, error) {
	if err := f.group.discover(ctx); err != nil {
		return nil, err
	}
	f.w.life.proof()
	f.beginRound()
	exports, services, endpointSlices := f.stores()
	all := f.group.listing(recycledExports)
	all.brief = &f.brief
	return []stage{
		{all.resource(exports)},
		{
			f.clients.services().resource(services),
			f.clients.endpointSlices(f.selectSlices).resource(endpointSlices),
		},
	}, nil
}

// beginRound forgets what does not outlive the lists with which a new round begins.
func (f *exportFeed) beginRound() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servicesReached.Store(0)
	f.slicesReached.Store(0)
	f.endStandby()
	f.standby.full = false
}

// stores are what the three Reflectors of a round write to.
func (f *exportFeed) stores() (exports, services, endpointSlices *store) {
	exports = &store{
		w: f.w, resource: "serviceexports", complete: make(chan struct{}), begin: func() {},
		set: f.setExport, remove: f.removeExport, replace: f.replaceExports, compact: f.compactExport,
		remains: f.remainsOf, hold: &f.holds[0],
	}
	services = &store{
		w: f.w, resource: "services", complete: make(chan struct{}), begin: f.beginServices,
		set: f.setService, remove: f.removeService, replace: f.replaceServices, compact: f.compactService,
		remains: f.remainsOf, hold: &f.holds[1], reached: &f.servicesReached,
	}
	endpointSlices = &store{
		w: f.w, resource: "endpointslices", complete: make(chan struct{}), begin: f.beginSlices,
		set: f.setSlice, remove: f.removeSlice, replace: f.replaceSlices, compact: f.compactSlice,
		remains: f.remainsOfSlices, hold: &f.holds[2], reached: &f.slicesReached, again: f.selectAnew,
	}
	return exports, services, endpointSlices
}

func (f *exportFeed) ask(ctx context.Context) error { return f.group.ask(ctx) }

func (f *exportFeed) size() (services, endpoints int) {
	return int(f.services.Load()), int(f.endpoints.Load())
}

func (f *exportFeed) retellTo(s Sink) {
	for key, h := range f.held {
		if h.shard != nil {
			s.ApplyShard(f.w.spec.Cluster, key, h.shard, time.Time{})
		}
	}
	if len(f.addresses) > 0 {
		s.ApplyServiceAddresses(slices.Collect(maps.Keys(f.addresses)), nil)
	}
}

func (f *exportFeed) remember(facts mcs.Facts) {
	for key, shard := range facts.Shards {
		h := &held{export: shard.Export, service: fetched[*mcs.ServiceSpec]{fact: shard.Service}, shard: shard, exported: true}
		for _, s := range shard.Slices {
			h.slices = append(h.slices, fetched[*mcs.Slice]{fact: s})
			f.own(mcs.ServiceKey{Namespace: key.Namespace, Name: s.Name}, key)
			f.kept += s.Endpoints.Len()
		}
		f.held[key] = h
		f.count(shard, 1)
	}
	for _, a := range facts.Addresses {
		f.addresses[a] = 0
	}
}

func (f *exportFeed) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endStandby()
	for key := range f.held {
		f.drop(key)
	}
	f.goLive()
	f.partial = true
	f.listed.exports, f.listed.services, f.listed.slices = false, false, false
}

// tell builds the shard of a service and passes it on if it is news.
func (f *exportFeed) tell(key mcs.ServiceKey, h *held, changed time.Time) {
	if f.partial || h.fetch != nil || !h.exported {
		return
	}
	shard := mcs.NewShard(h.export, h.service.fact, len(h.slices))
	for i := range h.slices {
		shard.Slices = append(shard.Slices, h.slices[i].fact)
	}
	if shard.Equal(h.shard) {
		return
	}
	f.count(h.shard, -1)
	f.count(shard, 1)
	h.shard = shard
	for _, s := range f.sinks {
		s.ApplyShard(f.w.spec.Cluster, key, shard, changed)
	}
}

func (f *exportFeed) count(s *mcs.Shard, sign int64) {
	if s == nil {
		return
	}
	f.services.Add(sign)
	f.endpoints.Add(sign * int64(endpointsIn(s.Slices)))
}

func endpointsIn(all []*mcs.Slice) (n int) {
	for _, s := range all {
		n += s.Endpoints.Len()
	}
	return n
}

// drop forgets a service that is no longer exported.
func (f *exportFeed) drop(key mcs.ServiceKey) {
	h := f.held[key]
	if h == nil {
		return
	}
	delete(f.held, key)
	delete(f.fetching, key)
	for i := range h.slices {
		delete(f.fresh, mcs.ServiceKey{Namespace: key.Namespace, Name: h.slices[i].fact.Name})
	}
	f.kept -= h.endpoints()
	f.leave(key, h)
	f.makeRoom()
	if h.shard == nil {
		return
	}
	f.count(h.shard, -1)
	for _, s := range f.sinks {
		s.ApplyShard(f.w.spec.Cluster, key, nil, time.Time{})
	}
}

// listedAll is called after each full list; when all three are there, everything is told that was held back.
func (f *exportFeed) listedAll() {
	if !f.listed.exports || !f.listed.services || !f.listed.slices || !f.partial {
		return
	}
	f.partial = false
	for key, h := range f.held {
		f.tell(key, h, time.Time{})
	}
	first := f.level.Load() == levelNone
	f.goLive()
	if first {
		f.tellAddresses(slices.Collect(maps.Keys(f.addresses)), nil)
	}
	f.w.complete()
}

// remainsOf tells how many endpoints are told, and how many would be if only these exports, or services, were left.
func (f *exportFeed) remainsOf(items []any) (before, after int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, obj := range items {
		if h := f.held[obj.(*item).id()]; h != nil && h.shard != nil {
			after += endpointsIn(h.shard.Slices)
		}
	}
	return int(f.endpoints.Load()), after
}

// remainsOfSlices tells the same of EndpointSlices. Those that stand by answer nothing, and do not count.
func (f *exportFeed) remainsOfSlices(items []any) (before, after int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.endpoints.Load()), endpointsOf(items, func(key mcs.ServiceKey) bool { return f.held[key] != nil })
}

// endpointsOf counts the endpoints of some services in a full list of EndpointSlices.
func endpointsOf(items []any, of func(mcs.ServiceKey) bool) (n int) {
	for _, obj := range items {
		it := obj.(*item)
		if fact, ok := it.fact.(sliceFact); ok && of(it.key) {
			n += fact.slice.Endpoints.Len()
		}
	}
	return n
}

func (f *exportFeed) beginServices() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin(&f.servicesBegan, &f.standby.asked.services)
}

// beginSlices selects the EndpointSlices of all exports that are known.
func (f *exportFeed) beginSlices() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin(&f.slicesBegan, &f.standby.asked.slices)
	f.selected = selectionOf(f.held, f.limits.selector)
	if !f.selected.whole {
		f.endStandby()
	}
}

func (f *exportFeed) begin(mark *uint64, asked *bool) {
	*mark = f.fetches
	f.following = true
	f.beginStandby(asked)
}

// ServiceExports.

// compactExport makes an item whose fact is an mcs.Export.
func (f *exportFeed) compactExport(obj any) any {
	if _, done := obj.(*item); done {
		return obj
	}
	out := identify(obj)
	if key, export, ok := f.convert.export(obj); ok {
		out.key, out.fact = key, export
	}
	return out
}

func (f *exportFeed) setExport(obj any) {
	it := f.compactExport(obj).(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.export(it)
}

func (f *exportFeed) export(it *item) {
	export, ok := it.fact.(mcs.Export)
	if !ok {
		return
	}
	h := f.held[it.key]
	if h == nil {
		if len(f.held) >= f.limits.services {
			f.leaveOut()
			return
		}
		var known bool
		h, known = f.arrive(it.key)
		it.key.Namespace = intern(it.key.Namespace) // it is that of many
		f.held[it.key] = h
		if f.following && !known {
			f.fetch(it.key, h)
		}
	}
	h.export = export
	f.tell(it.key, h, time.Time{})
}

func (f *exportFeed) removeExport(obj any) {
	it := identify(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(mcs.ServiceKey{Namespace: it.namespace, Name: it.name})
}

func (f *exportFeed) replaceExports(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[mcs.ServiceKey]bool, len(items))
	for _, obj := range items {
		there[obj.(*item).key] = true
	}
	for key := range f.held {
		if !there[key] {
			f.drop(key)
		}
	}
	for _, obj := range items {
		f.export(obj.(*item))
	}
	f.listed.exports = true
	f.listedAll()
}

// Services.

func (f *exportFeed) compactService(obj any) any {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return identify(obj)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return listed(f.serviceItem(s))
}

// nobody is what is left of all objects of a full list that nobody wants: most of a cluster.
var nobody = &item{}

func listed(it *item) *item {
	if it.fact == nil && !it.doubtful {
		return nobody
	}
	return it
}

// serviceItem has a fact only if something of the service is kept: of one that nobody exports at most the addresses where nothing
// stands by.
func (f *exportFeed) serviceItem(s *corev1.Service) *item {
	out := identify(s)
	out.key = mcs.ServiceKey{Namespace: s.Namespace, Name: s.Name}
	switch {
	case f.wants(out.key):
		out.fact, out.doubtful = f.factOfService(out.key, s)
	case f.addressed.Load():
		out.fact = converter{reject: func(Rejection) {}}.addresses(clusterIPs(s))
	}
	return out
}

func (f *exportFeed) setService(obj any) {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	it := f.serviceItem(s)
	f.takeAddresses(it.key, addressesOf(it), s.Spec.Type == corev1.ServiceTypeExternalName)
	if h := f.have(it.key); h != nil && !h.service.older(it.version) {
		h.service = fetched[*mcs.ServiceSpec]{it.fact.(*mcs.ServiceSpec), watched(it.version)}
		h.doubtful = h.doubtful || it.doubtful
		f.tell(it.key, h, time.Time{})
	}
}

func (f *exportFeed) removeService(obj any) {
	it := identify(obj)
	key := mcs.ServiceKey{Namespace: it.namespace, Name: it.name}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := obj.(*corev1.Service); ok && f.addressed.Load() {
		f.freeAddresses(key, addressesOf(f.serviceItem(s)))
	}
	h := f.of(key)
	if h == nil || h.service.older(it.version) {
		return
	}
	if h.fetch != nil {
		h.fetch.serviceGone = &it.version
	}
	h.service = fetched[*mcs.ServiceSpec]{}
	f.prune(key, h)
	f.tell(key, h, time.Time{})
}

func (f *exportFeed) replaceServices(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	f.replaceAddresses(items)
	there := make(map[mcs.ServiceKey]*item, len(f.held))
	for _, obj := range items {
		if it := obj.(*item); f.held[it.key] != nil {
			there[it.key] = it
		}
	}
	for key, h := range f.held {
		h.service = fetched[*mcs.ServiceSpec]{}
		// Without a fact when the export is newer than the list: then there is a fetch, under way or finished since.
		if it := there[key]; it != nil {
			if spec, ok := it.fact.(*mcs.ServiceSpec); ok {
				h.service = fetched[*mcs.ServiceSpec]{spec, watched(it.version)}
				h.doubtful = h.doubtful || it.doubtful
			}
		}
		f.settle(key, h, f.servicesBegan)
	}
	f.standbyServices(items)
	f.listed.services = true
	f.listedAll()
}

// settle ends the part of a full list in one service: it is told, but for one that was fetched since the list was asked
// for. That fetch is made again.
func (f *exportFeed) settle(key mcs.ServiceKey, h *held, began uint64) {
	if h.fetch == nil && h.fetched > began {
		f.fetch(key, h)
	}
	f.tell(key, h, time.Time{})
}

// EndpointSlices.

// sliceFact is the fact of an item for an EndpointSlice.
type sliceFact struct {
	slice   *mcs.Slice
	changed time.Time
}

// serviceOf returns the service to which a member's own EndpointSlice belongs. Slices that an MCS controller imported
// from other clusters may carry the same label; they are copies and do not count. Nor do those that Cilium adds to its global
// services, which say from which cluster they are and nothing else.
func serviceOf(s *discoveryv1.EndpointSlice) mcs.ServiceKey {
	for _, label := range []string{labelImportName, labelSourceCluster} {
		if _, copied := s.Labels[label]; copied {
			return mcs.ServiceKey{}
		}
	}
	return mcs.ServiceKey{Namespace: s.Namespace, Name: s.Labels[labelServiceName]}
}

func (f *exportFeed) compactSlice(obj any) any {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return identify(obj)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return listed(f.sliceItem(s))
}

// sliceItem has a fact only if something of the service is kept and the slice makes sense.
func (f *exportFeed) sliceItem(s *discoveryv1.EndpointSlice) *item {
	out := identify(s)
	out.key = serviceOf(s)
	if f.wants(out.key) {
		out.fact, out.doubtful = f.factOfSlice(out.key, s)
	}
	return out
}

func (f *exportFeed) setSlice(obj any) {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	it := f.sliceItem(s)
	f.pass(it)
	if owner, there := f.ownerOf(it.id()); there && (owner != it.key || it.fact == nil) && !f.takeSlice(owner, it) {
		return
	}
	if h := f.keepSlice(it, nil); h != nil && it.fact != nil {
		f.tell(it.key, h, it.fact.(sliceFact).changed)
	}
}

// keepSlice keeps a slice that the watch or a full list has told, for the service to which it belongs, which it returns; nil for one
// of which nothing is kept. was is what a full list replaces, nil otherwise.
func (f *exportFeed) keepSlice(it *item, was *mcs.Slice) *held {
	if it.fact == nil && !it.doubtful {
		return nil
	}
	h := f.have(it.key)
	if h == nil {
		return nil
	}
	h.doubtful = h.doubtful || it.doubtful
	if it.fact != nil {
		f.putSlice(h, it, watched(it.version), was)
	}
	return h
}

// pass notes that the watch has told something of a slice while fetches are under way.
func (f *exportFeed) pass(it *item) {
	for key, fetch := range f.fetching {
		if key.Namespace == it.namespace {
			fetch.passed[it.name] = it.version
		}
	}
}

func (f *exportFeed) removeSlice(obj any) {
	it := identify(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pass(it)
	if owner, there := f.ownerOf(it.id()); there {
		f.takeSlice(owner, it)
	}
}

// takeSlice removes a slice from the service that has it, unless a fetch has brought a newer one of that name.
func (f *exportFeed) takeSlice(owner mcs.ServiceKey, it *item) bool {
	h := f.of(owner)
	at, there := h.find(it.name)
	if !there || h.slices[at].older(it.version) {
		return false
	}
	f.keep(h, -h.slices[at].fact.Endpoints.Len())
	h.slices = slices.Delete(h.slices, at, at+1)
	delete(f.strays, it.id())
	delete(f.fresh, it.id())
	f.prune(owner, h)
	f.makeRoom()
	f.tell(owner, h, time.Time{})
	return true
}

// leaveOut counts something for which there is no room.
func (f *exportFeed) leaveOut() {
	f.over = true
	f.convert.reject(TooMany)
}

// makeRoom lists everything anew when there is room again for what was left out.
func (f *exportFeed) makeRoom() {
	if f.over && len(f.held) <= f.limits.services*9/10 && f.kept <= f.limits.endpoints*9/10 {
		f.over = false
		f.w.anew()
	}
}

// putSlice adds or replaces a slice. was is what a full list replaces, nil otherwise.
func (f *exportFeed) putSlice(h *held, it *item, from origin, was *mcs.Slice) {
	entry := fetched[*mcs.Slice]{it.fact.(sliceFact).slice, from}
	at, there := h.find(it.name)
	more := entry.fact.Endpoints.Len()
	if there {
		if h.slices[at].older(it.version) {
			return
		}
		was = h.slices[at].fact
		more -= was.Endpoints.Len()
	}
	if !f.keep(h, more) {
		return
	}
	if h.exported && (there || from&byFetch == 0) {
		f.freshen(it.id(), was, entry.fact)
	}
	if there {
		h.slices[at] = entry
	} else {
		h.slices = slices.Insert(h.slices, at, entry)
	}
	f.own(it.id(), it.key)
}

// own notes to which service a slice belongs, where its name does not say it. Controllers name slices by the service, a hyphen
// and something random, who writes them by hand mostly as the service, and there are many.
func (f *exportFeed) own(id, key mcs.ServiceKey) {
	if rest, begins := strings.CutPrefix(id.Name, key.Name); !begins || rest != "" && rest[0] != '-' {
		f.strays[id] = key
	}
}

// ownerOf returns the service to which a held slice belongs.
func (f *exportFeed) ownerOf(id mcs.ServiceKey) (mcs.ServiceKey, bool) {
	if key, there := f.strays[id]; there {
		return key, true
	}
	for key := id; ; {
		if h := f.of(key); h != nil {
			if _, there := h.find(id.Name); there {
				return key, true
			}
		}
		at := strings.LastIndexByte(key.Name, '-')
		if at <= 0 {
			return mcs.ServiceKey{}, false
		}
		key.Name = key.Name[:at]
	}
}

func (h *held) find(name string) (int, bool) {
	return slices.BinarySearchFunc(h.slices, name, func(s fetched[*mcs.Slice], name string) int {
		return strings.Compare(s.fact.Name, name)
	})
}

func (f *exportFeed) replaceSlices(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	clear(f.strays)
	was := map[mcs.ServiceKey]*mcs.Slice{}
	for key, h := range f.held {
		for i := range h.slices {
			was[mcs.ServiceKey{Namespace: key.Namespace, Name: h.slices[i].fact.Name}] = h.slices[i].fact
		}
		h.forgetSlices()
	}
	for _, h := range f.standby.held {
		h.forgetSlices()
	}
	f.kept, f.standby.endpoints = 0, 0
	for _, obj := range items {
		it := obj.(*item)
		f.keepSlice(it, was[it.id()])
	}
	f.standbyListed(f.standby.asked.slices, &f.standby.listed.slices)
	maps.DeleteFunc(f.fresh, func(id mcs.ServiceKey, _ map[mcs.Identity]time.Time) bool {
		_, there := f.ownerOf(id)
		return !there
	})
	for key, h := range f.held {
		f.settle(key, h, f.slicesBegan)
	}
	f.listed.slices = true
	f.listedAll()
}
