package clusterset

import (
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// world is one view of the ClusterSet: the sources tell it facts, and it publishes a snapshot after each change.
// Server blocks that say the same about clusters share one.
type world struct {
	scope mcs.Scope
	// front is nil without a local cluster. Set before the first query.
	front *front
	index *mcs.Index // owned by whoever holds merging
	// wrong is what metrics count of this world; likewise.
	wrong    map[mcs.ServiceKey]mcs.Report
	snapshot atomic.Pointer[mcs.Snapshot]
	// dynamic are the members that have come since the start, nil where none can. Immutable.
	dynamic atomic.Pointer[[]member]
	merging sync.Mutex
	// quiet worlds report nothing.
	quiet bool
	// tidied is set once the memory that the first lists took has been given back. Guarded by merging.
	tidied bool

	mu      sync.Mutex // guards pending; never held while merging
	pending []fact
	wake    chan struct{} // holds one token while something is pending

	// hosts resolves the names of load balancers. nil where no member answers with them.
	hosts *hosts

	stop chan struct{}
	done sync.WaitGroup
}

// fact is one thing that a source said: exactly one of its functions applies.
type fact struct {
	apply func(*mcs.Index)
	// changed is when the cluster says it happened, the zero time when it does not say.
	changed  time.Time
	headless bool
}

func newWorld(scope mcs.Scope) *world {
	w := newQuietWorld(scope)
	if scope.Dynamic || slices.ContainsFunc(scope.Members, func(m mcs.Member) bool { return m.Address == mcs.AddressLoadBalancer }) {
		w.hosts = newHosts(net.DefaultResolver.LookupNetIP, func(host string, addrs []netip.Addr) {
			w.add(fact{apply: func(x *mcs.Index) { x.ApplyHost(host, addrs) }})
		})
	}
	w.publish()
	return w
}

// newQuietWorld makes one in which nothing happens by itself: no names of load balancers are resolved either.
func newQuietWorld(scope mcs.Scope) *world {
	w := &world{scope: scope, index: mcs.NewIndex(scope), wrong: map[mcs.ServiceKey]mcs.Report{}, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	w.snapshot.Store(&mcs.Snapshot{})
	return w
}

// start publishes what the sources have told already, so that a reload begins with all that is known, and from then on
// every change at once. Further changes coalesce only while a merge runs.
func (w *world) start() {
	w.publish()
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-w.wake:
				w.publish()
			}
		}
	})
}

// close ends publishing. The last snapshot stays; what was wrong with services no longer counts.
func (w *world) close() {
	w.hosts.close()
	close(w.stop)
	w.done.Wait()
	for _, report := range w.wrong {
		uncount(report)
	}
}

func (w *world) publish() {
	w.merging.Lock()
	defer w.merging.Unlock()
	w.mu.Lock()
	facts := w.pending
	w.pending = nil
	w.mu.Unlock()

	began := time.Now()
	for _, f := range facts {
		f.apply(w.index)
	}
	next, changes := w.index.Publish(uint32(began.Unix())) //nolint:gosec // SOA serials wrap around by design (RFC 1982)
	if next == nil {
		return
	}
	w.snapshot.Store(next)
	if w.quiet {
		return
	}
	w.tidy(next)
	w.hosts.want(w.index.Hosts())
	now := time.Now()
	buildDuration.Observe(now.Sub(began).Seconds())
	for _, f := range facts {
		if !f.changed.IsZero() {
			programmingDuration.WithLabelValues(serviceKind(f.headless)).Observe(now.Sub(f.changed).Seconds())
		}
	}
	for _, c := range changes {
		if w.wrong[c.Key] = c.New; c.New.Clean() {
			delete(w.wrong, c.Key)
		}
	}
	reportChanges(changes)
}

// muchToTidy is from how many services on the lists of a start are worth a collection of their own, which takes some ten
// milliseconds in the background.
const muchToTidy = 1000

// tidy gives the memory back that the first lists took, once all sources have told what they know. Without that, a container
// keeps what it needed at its start for minutes, just when a reload or another replica needs room.
func (w *world) tidy(now *mcs.Snapshot) {
	if w.tidied || len(now.Unsynced()) > 0 {
		return
	}
	if w.tidied = true; now.Len() >= muchToTidy {
		w.done.Go(debug.FreeOSMemory)
	}
}

func (w *world) add(f fact) {
	w.mu.Lock()
	w.pending = append(w.pending, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// ApplyShard implements watch.Sink.
func (w *world) ApplyShard(id topology.ClusterID, key mcs.ServiceKey, shard *mcs.Shard, changed time.Time) {
	headless := shard != nil && shard.Service != nil && shard.Service.Type == mcs.Headless
	w.add(fact{func(x *mcs.Index) { x.Apply(id, key, shard) }, changed, headless})
}

// ApplyImport implements watch.Sink.
func (w *world) ApplyImport(key mcs.ServiceKey, shard *mcs.ImportShard, changed time.Time) {
	headless := shard != nil && shard.Import.Type == mcs.Headless
	w.add(fact{func(x *mcs.Index) { x.ApplyImport(key, shard) }, changed, headless})
}

// ApplyNamespace implements watch.Sink.
func (w *world) ApplyNamespace(name string, exists bool) {
	w.add(fact{apply: func(x *mcs.Index) { x.ApplyNamespace(name, exists) }})
}

// ApplyServiceAddresses implements watch.Sink.
func (w *world) ApplyServiceAddresses(taken, free []netip.Addr) {
	w.add(fact{apply: func(x *mcs.Index) { x.ApplyServiceAddresses(taken, free) }})
}

// ApplyServiceRanges implements watch.Sink.
func (w *world) ApplyServiceRanges(ranges []netip.Prefix) {
	w.add(fact{apply: func(x *mcs.Index) { x.ApplyServiceRanges(ranges) }})
}

// SetDrained implements watch.Sink. Draining is no fact about names: it counts when a member is chosen.
func (w *world) SetDrained(id topology.ClusterID, drained bool) {
	process.conditions.setDrained(id, drained)
}

// SetClusterID implements watch.Sink.
func (w *world) SetClusterID(id topology.ClusterID, claimed string) {
	process.claims.set(id, claimed)
	if m := w.member(id); m != nil {
		w.admit(m, true)
	}
}

// member returns the member of that id that has come since the start, nil if there is none.
func (w *world) member(id topology.ClusterID) *member {
	if all := w.dynamic.Load(); all != nil {
		for i := range *all {
			if (*all)[i].ID == id {
				return &(*all)[i]
			}
		}
	}
	return nil
}

// setDynamic replaces the member of an id among those that have come since the start; nil takes it out. Only one goroutine
// does so at a time.
func (w *world) setDynamic(id topology.ClusterID, m *member) {
	var next []member
	if all := w.dynamic.Load(); all != nil {
		next = slices.DeleteFunc(slices.Clone(*all), func(m member) bool { return m.ID == id })
	}
	if m != nil {
		next = append(next, *m)
	}
	w.dynamic.Store(&next)
}

// admit lets a member that has come since the start take part, or tells its new settings. One that says that it is another
// cluster is refused: unlike those in the Corefile, nobody has vouched for it.
func (w *world) admit(m *member, joins bool) {
	settings := m.Member
	settings.Refused = process.claims.disagree(m.ID)
	w.add(fact{apply: func(x *mcs.Index) { x.AddMember(settings, joins) }})
}

// SetSynced implements watch.Sink.
func (w *world) SetSynced(source mcs.Source) {
	w.add(fact{apply: func(x *mcs.Index) { x.SetSynced(source) }})
}

// SetRestored implements watch.Sink.
func (w *world) SetRestored(source mcs.Source) {
	w.add(fact{apply: func(x *mcs.Index) { x.SetRestored(source) }})
}

var _ watch.Sink = (*world)(nil)

// knowsLocal reports whether it is known what the local cluster says, or said before the start; true without a local
// cluster.
func (w *world) knowsLocal() bool {
	return !w.lacks(func(s mcs.Source) bool { return w.scope.Local != "" && s.Cluster == w.scope.Local })
}

// knowsAll reports the same for every source.
func (w *world) knowsAll() bool { return !w.lacks(func(mcs.Source) bool { return true }) }

// lacks reports whether nothing is known of one of these sources.
func (w *world) lacks(of func(mcs.Source) bool) bool {
	now := w.snapshot.Load()
	return slices.ContainsFunc(now.Unsynced(), func(s mcs.Source) bool { return of(s) && !slices.Contains(now.Restored(), s) })
}
