package clusterset

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// store holds what all server blocks and both instances of a reload share: one watcher per source, one world per view.
// Both are counted by the leases on them, and end with the last one. It is the only state at package level.
type store struct {
	started time.Time
	// wasReady is set once Ready has been true: readiness is never taken back.
	wasReady atomic.Bool

	mu       sync.Mutex
	watchers map[watcherKey]*shared[*source]
	worlds   map[string]*shared[*leased]
	tenants  map[*tenant][]string // the worlds each instance holds, one entry per lease
}

// shared is something with a count of its users.
type shared[T any] struct {
	value T
	users int
}

type watcherKey struct {
	kind       mcs.SourceKind
	cluster    topology.ClusterID
	connection string
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
	watchers []watcherKey
}

// tenant stands for one instance of the server in the store. It must not have size zero: pointers to distinct tenants
// must differ.
type tenant struct{ _ byte }

// process is the store of this process.
var process = newStore()

// remoteGrace is how long readiness waits for remote clusters, counted from the start of the process.
const remoteGrace = 5 * time.Second

func newStore() *store {
	return &store{
		started:  time.Now(),
		watchers: map[watcherKey]*shared[*source]{},
		worlds:   map[string]*shared[*leased]{},
		tenants:  map[*tenant][]string{},
	}
}

// acquire returns the world that a configuration describes, and begins to watch what nobody watches yet. It waits for
// no API server. The tenant holds the world until release.
func (s *store) acquire(t *tenant, c *config) (*world, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := worldKey(c)
	w := s.worlds[key]
	if w == nil {
		made, err := s.newWorld(c)
		if err != nil {
			return nil, "", err
		}
		w = &shared[*leased]{value: made}
		s.worlds[key] = w
	}
	w.users++
	s.tenants[t] = append(s.tenants[t], key)
	return w.value.world, key, nil
}

// newWorld makes a world and subscribes it to its sources. What those know already is in its first snapshot.
func (s *store) newWorld(c *config) (*leased, error) {
	scope := mcs.Scope{Local: c.local, Imports: c.imports != nil}
	for i := range c.members {
		scope.Members = append(scope.Members, c.members[i].Member)
	}
	l := &leased{world: newWorld(scope)}
	for i := range c.members {
		m := &c.members[i]
		if err := s.feed(l, mcs.Exports, m.ID, m.connection, m); err != nil {
			s.end(l)
			return nil, err
		}
		if m.ID != c.local {
			continue
		}
		if err := s.feed(l, mcs.Namespaces, m.ID, m.connection, nil); err != nil {
			s.end(l)
			return nil, err
		}
	}
	if c.imports != nil {
		if err := s.feed(l, mcs.Imports, "", *c.imports, nil); err != nil {
			s.end(l)
			return nil, err
		}
	}
	l.start()
	return l, nil
}

// feed subscribes a world to a source, which is started if it is not there.
func (s *store) feed(l *leased, kind mcs.SourceKind, id topology.ClusterID, connection watch.Connection, m *member) error {
	key := watcherKey{kind, id, connection.Key}
	w := s.watchers[key]
	if w == nil {
		spec := watch.Spec{Kind: kind, Cluster: id, Connection: connection, Observer: observer{}}
		watcher, err := watch.Start(spec)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", spec.Name(), err)
		}
		w = &shared[*source]{value: newSource(watcher, spec, m)}
		s.watchers[key] = w
	}
	w.users++
	l.watchers = append(l.watchers, key)
	w.value.Subscribe(l.world)
	if w.value.front != nil {
		l.front = w.value.front
	}
	return nil
}

// newSource starts what goes along with a watcher: the region of a member for which none is written, and the Service in
// front of this server.
func newSource(w *watch.Watcher, spec watch.Spec, m *member) *source {
	s := &source{Watcher: w, name: spec.Name(), kind: spec.Kind, stop: func() {}}
	switch {
	case spec.Kind == mcs.Exports && m.region == "":
		s.stop = followRegion(m.ID, spec.Connection)
	case spec.Kind == mcs.Namespaces:
		s.front = &front{}
		s.stop = followFront(s.front, spec.Connection)
	}
	return s
}

// end closes a world and every watcher that only it used.
func (s *store) end(l *leased) {
	for _, key := range l.watchers {
		s.watchers[key].value.Unsubscribe(l.world)
	}
	l.close()
	for _, key := range l.watchers {
		w := s.watchers[key]
		if w.users--; w.users == 0 {
			delete(s.watchers, key)
			w.value.stop()
			w.value.Close()
			forgetSource(w.value.name, s.named(w.value.name))
		}
	}
}

// named reports whether a source of that name is left.
func (s *store) named(name string) bool {
	for _, w := range s.watchers {
		if w.value.name == name {
			return true
		}
	}
	return false
}

// release gives back one lease of a tenant. Giving back what it does not hold is no error.
func (s *store) release(t *tenant, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.tenants[t]
	for i := range held {
		if held[i] != key {
			continue
		}
		if held = append(held[:i], held[i+1:]...); len(held) == 0 {
			delete(s.tenants, t)
		} else {
			s.tenants[t] = held
		}
		s.drop(key)
		return
	}
}

func (s *store) drop(key string) {
	w := s.worlds[key]
	if w.users--; w.users == 0 {
		delete(s.worlds, key)
		s.end(w.value)
	}
}

// keep gives back everything that tenants hold for which alive is false: instances that failed to start are never told
// to shut down.
func (s *store) keep(alive func(*tenant) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, held := range s.tenants {
		if alive(t) {
			continue
		}
		delete(s.tenants, t)
		for _, key := range held {
			s.drop(key)
		}
	}
}

// ready speaks for all server blocks: the local cluster must be known; for the others it waits five seconds at most,
// counted from the start of the process.
func (s *store) ready(now time.Time) bool {
	if s.wasReady.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.worlds {
		if !w.value.syncedLocal() || now.Sub(s.started) < remoteGrace && !w.value.syncedAll() {
			return false
		}
	}
	s.wasReady.Store(len(s.worlds) > 0)
	return true
}

// sources calls yield for every source, for metrics. No update waits for the lock it takes.
func (s *store) sources(yield func(name string, kind mcs.SourceKind, st watch.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watchers {
		yield(w.value.name, w.value.kind, w.value.Status())
	}
}

// worldKey is equal for two configurations exactly when they describe the same view of the same sources.
func worldKey(c *config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "local %s\n", c.local)
	for i := range c.members {
		m := &c.members[i]
		fmt.Fprintf(&b, "cluster %s %s %d %v %q\n", m.ID, m.connection.Key, m.Address, m.Gateway, m.region)
	}
	if c.imports != nil {
		fmt.Fprintf(&b, "serviceimports %s\n", c.imports.Key)
	}
	return b.String()
}
