package clusterset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// store holds what all server blocks and both instances of a reload share: one world per view, counted by leases, and
// one watcher per source, counted by worlds. Both end with the last user. It is the only state at package level.
type store struct {
	started time.Time
	// conditions are what is known of members besides what they export.
	conditions conditions
	// claims are what members call themselves.
	claims claims
	// rejected is what they said that makes no sense.
	rejected rejected
	// wasReady is set once Ready has been true: readiness is never taken back.
	wasReady atomic.Bool

	// prepared bounds the records that are kept for later queries.
	prepared stock

	worlds *lease.Pool[*leased]
	// handlers are those in use, each held by itself: for metrics and status only.
	handlers *lease.Pool[*Clusterset]
	// listeners are the status addresses in use.
	listeners *lease.Pool[*statusServer]
	// numbered counts the handlers.
	numbered atomic.Uint64

	// listed are all watchers and rosters, for whoever only looks. Immutable.
	listed atomic.Pointer[listed]

	mu       sync.Mutex // guards what follows; taken under the lock of the worlds, and under that of a roster
	watchers map[watcherKey]*shared
	rosters  map[string]*sharedRoster
}

// listed is what a store has at a moment.
type listed struct {
	watchers map[watcherKey]*source
	rosters  []*roster
}

// list lets those who only look see what there is now. It is called with mu held, after each change.
func (s *store) list() {
	now := &listed{watchers: make(map[watcherKey]*source, len(s.watchers))}
	for key, w := range s.watchers {
		now.watchers[key] = w.source
	}
	for _, key := range slices.Sorted(maps.Keys(s.rosters)) {
		now.rosters = append(now.rosters, s.rosters[key].roster)
	}
	s.listed.Store(now)
}

// sharedRoster is a roster with a count of the worlds that use it.
type sharedRoster struct {
	*roster
	users int
}

// shared is a source with a count of the worlds that use it.
type shared struct {
	*source
	users int
}

// watcherKey is equal for two uses of a source that one watcher serves.
type watcherKey struct {
	kind          mcs.SourceKind
	cluster       topology.ClusterID
	connection    string
	stale, expire time.Duration
	state         string
	// region is true when it is read from the Nodes.
	region bool
}

// source is a watcher and what goes along with it.
type source struct {
	*watch.Watcher
	name string
	kind mcs.SourceKind
	// front is that of the local cluster, nil elsewhere.
	front *front
	// stop ends what else was started for this source.
	stop func()
}

// leased is a world and the sources that feed it.
type leased struct {
	*world
	store    *store
	config   *config
	watchers []watcherKey
	// roster is nil where no member can come. dynamic are the watchers of those that have; only the roster changes it.
	roster  *sharedRoster
	dynamic map[topology.ClusterID][]watcherKey
}

// process is the store of this process.
var process = newStore()

// remoteGrace is how long readiness waits for remote clusters, counted from the start of the process.
const remoteGrace = 5 * time.Second

func newStore() *store {
	s := &store{started: time.Now(), watchers: map[watcherKey]*shared{}, rosters: map[string]*sharedRoster{}, prepared: stock{most: preparedAtMost}}
	s.listed.Store(&listed{})
	s.worlds = lease.NewPool(s.end)
	s.handlers = lease.NewPool(func(*Clusterset) {})
	s.listeners = lease.NewPool((*statusServer).close)
	return s
}

// newWorld makes a world and subscribes it to its sources. What those know already is in its first snapshot.
func (s *store) newWorld(c *config) (*leased, error) {
	scope := mcs.Scope{Local: c.local, Imports: c.imports != nil, Dynamic: c.dynamic != nil}
	for i := range c.members {
		scope.Members = append(scope.Members, c.members[i].Member)
	}
	l := &leased{world: newWorld(scope), store: s, config: c, dynamic: map[topology.ClusterID][]watcherKey{}}
	for _, u := range uses(c) {
		if err := s.feed(l, u); err != nil {
			s.end(l)
			return nil, err
		}
	}
	if c.dynamic != nil {
		if err := s.enrol(l, c.dynamic); err != nil {
			s.end(l)
			return nil, err
		}
	}
	l.start()
	return l, nil
}

// use is one source that a world wants, and how.
type use struct {
	watch.Spec
	// member is set for the exports of one.
	member *member
	// addresses is set when the cluster IPs of all Services matter: for the local cluster.
	addresses bool
	// state is the folder of its last known state, "" for none.
	state string
}

func (u *use) key() watcherKey {
	return watcherKey{u.Kind, u.Cluster, u.Connection.Key, u.StaleAfter, u.ExpireAfter, u.state, u.member != nil && u.member.region == ""}
}

// uses lists the sources of a configuration. The local cluster is never given up on: its API server being away says
// nothing about its data path, which is next door.
func uses(c *config) []use {
	var out []use
	add := func(kind mcs.SourceKind, id topology.ClusterID, connection watch.Connection, expire time.Duration, m *member) {
		out = append(out, use{watch.Spec{
			Kind: kind, Cluster: id, Connection: connection, Observer: observer{}, StaleAfter: c.stale, ExpireAfter: expire,
		}, m, false, c.state})
	}
	local := ""
	for i := range c.members {
		m := &c.members[i]
		if m.ID != c.local {
			out = append(out, c.remote(m)...)
			continue
		}
		local = m.connection.Key
		add(mcs.Exports, m.ID, m.connection, 0, m)
		out[len(out)-1].addresses = true
		for _, kind := range []mcs.SourceKind{mcs.Properties, mcs.Namespaces, mcs.ServiceRanges} {
			add(kind, m.ID, m.connection, 0, nil)
		}
	}
	switch {
	case c.imports == nil:
	case c.imports.Key == local:
		add(mcs.Imports, "", *c.imports, 0, nil)
	default:
		add(mcs.Imports, "", *c.imports, c.expire, nil)
	}
	return out
}

// remote lists the sources of a member that is not the local one.
func (c *config) remote(m *member) []use {
	spec := watch.Spec{Kind: mcs.Exports, Cluster: m.ID, Connection: m.connection, Observer: observer{}, StaleAfter: c.stale, ExpireAfter: c.expire}
	about := spec
	about.Kind, about.ExpireAfter = mcs.Properties, 0
	return []use{{spec, m, false, c.state}, {about, nil, false, c.state}}
}

// feed subscribes a world to a source, which is started if it is not there.
func (s *store) feed(l *leased, u use) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := u.key()
	w := s.watchers[key]
	if w == nil {
		if u.Seed = s.predecessor(key); u.Seed == nil {
			u.Seed = u.restored()
		}
		watcher, err := watch.Start(u.Spec)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", u.Name(), err)
		}
		w = &shared{source: newSource(watcher, &u)}
		s.watchers[key] = w
		s.list()
	}
	if u.addresses {
		w.TellServiceAddresses()
	}
	w.users++
	// A member whose settings change keeps its watcher: then the world has it twice for a moment.
	if !slices.Contains(l.watchers, key) {
		w.Subscribe(l.world)
	}
	l.watchers = append(l.watchers, key)
	if w.front != nil {
		l.front = w.front
	}
	return nil
}

// predecessor returns what a watcher knows that the new one will take the place of, nil if there is none: the same source
// by another configuration. So the old data serve until the new watch has synced.
func (s *store) predecessor(key watcherKey) *watch.Seed {
	for old, w := range s.watchers {
		if old.kind == key.kind && old.cluster == key.cluster {
			if seed := w.Seed(); seed != nil {
				return seed
			}
		}
	}
	return nil
}

// newSource starts what goes along with a watcher: the region of a member for which none is written, the Service in front
// of this server, and the file with its last known state.
func newSource(w *watch.Watcher, u *use) *source {
	s := &source{Watcher: w, name: u.Name(), kind: u.Kind, stop: func() {}}
	switch {
	case u.Kind == mcs.Exports && u.member.region == "":
		s.stop = followRegion(u.Cluster, u.Connection)
	case u.Kind == mcs.Namespaces:
		s.front = &front{}
		s.stop = followFront(s.front, u.Connection)
	}
	if u.state != "" {
		s.stop = both(s.stop, u.keep(w))
	}
	return s
}

// end closes a world and every watcher that only it used.
func (s *store) end(l *leased) {
	s.strike(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range l.watchers {
		s.watchers[key].Unsubscribe(l.world)
	}
	l.close()
	for _, key := range slices.Clone(l.watchers) {
		s.drop(l, key)
	}
}

// drop gives back one use of a watcher, and closes it after the last.
func (s *store) drop(l *leased, key watcherKey) {
	at := slices.Index(l.watchers, key)
	l.watchers = slices.Delete(l.watchers, at, at+1)
	w := s.watchers[key]
	if w.users--; w.users > 0 {
		return
	}
	delete(s.watchers, key)
	s.list()
	w.stop()
	w.Close()
	left := s.named(w.name)
	if !left {
		s.claims.forget(key.cluster)
		s.rejected.forget(w.name)
	}
	forgetSource(w.name, left)
}

// named reports whether a source of that name is left.
func (s *store) named(name string) bool {
	for _, w := range s.watchers {
		if w.name == name {
			return true
		}
	}
	return false
}

// ready speaks for all server blocks: the local cluster must be known; for the others it waits five seconds at most,
// counted from the start of the process.
func (s *store) ready(now time.Time) bool {
	if s.wasReady.Load() {
		return true
	}
	held, ready := false, true
	s.worlds.Each(func(l *leased) bool {
		held = true
		ready = l.knowsLocal() && (now.Sub(s.started) >= remoteGrace || l.knowsAll())
		return ready
	})
	if held && ready {
		s.wasReady.Store(true)
	}
	return ready
}

// sources calls yield for every source, for metrics. It takes no lock: nobody waits for a slow reader.
func (s *store) sources(yield func(name string, kind mcs.SourceKind, st watch.Status)) {
	for _, w := range s.listed.Load().watchers {
		yield(w.name, w.kind, w.Status())
	}
}

// worldKey is equal for two configurations exactly when they describe the same view of the same sources.
func worldKey(c *config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "local %s stale %v %v state %q\n", c.local, c.stale, c.expire, c.state)
	for i := range c.members {
		m := &c.members[i]
		fmt.Fprintf(&b, "cluster %s %s %d %v %v %q %v %v\n", m.ID, m.connection.Key, m.Address, m.AnyPort, m.Gateway, m.region, m.Allow, m.Namespaces)
	}
	if c.imports != nil {
		fmt.Fprintf(&b, "serviceimports %s\n", c.imports.Key)
	}
	if c.dynamic != nil {
		fmt.Fprintf(&b, "clusters %s\n", c.dynamic.key())
	}
	return b.String()
}
