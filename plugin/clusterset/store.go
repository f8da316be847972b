package clusterset

import (
	"fmt"
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
	// wasReady is set once Ready has been true: readiness is never taken back.
	wasReady atomic.Bool

	worlds *lease.Pool[*leased]

	mu       sync.Mutex // guards watchers; taken under the lock of the worlds
	watchers map[watcherKey]*shared
}

// shared is a source with a count of the worlds that use it.
type shared struct {
	*source
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

// process is the store of this process.
var process = newStore()

// remoteGrace is how long readiness waits for remote clusters, counted from the start of the process.
const remoteGrace = 5 * time.Second

func newStore() *store {
	s := &store{started: time.Now(), watchers: map[watcherKey]*shared{}}
	s.worlds = lease.NewPool(s.end)
	return s
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
		if err := s.feed(l, mcs.Properties, m.ID, m.connection, nil); err != nil {
			s.end(l)
			return nil, err
		}
		if m.ID != c.local {
			continue
		}
		for _, kind := range []mcs.SourceKind{mcs.Namespaces, mcs.ServiceRanges} {
			if err := s.feed(l, kind, m.ID, m.connection, nil); err != nil {
				s.end(l)
				return nil, err
			}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	key := watcherKey{kind, id, connection.Key}
	w := s.watchers[key]
	if w == nil {
		spec := watch.Spec{Kind: kind, Cluster: id, Connection: connection, Observer: observer{}}
		watcher, err := watch.Start(spec)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", spec.Name(), err)
		}
		w = &shared{source: newSource(watcher, spec, m)}
		s.watchers[key] = w
	}
	w.users++
	l.watchers = append(l.watchers, key)
	w.Subscribe(l.world)
	if w.front != nil {
		l.front = w.front
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
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range l.watchers {
		s.watchers[key].Unsubscribe(l.world)
	}
	l.close()
	for _, key := range l.watchers {
		w := s.watchers[key]
		if w.users--; w.users == 0 {
			delete(s.watchers, key)
			w.stop()
			w.Close()
			left := s.named(w.name)
			if !left {
				s.claims.forget(key.cluster)
			}
			forgetSource(w.name, left)
		}
	}
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

// sources calls yield for every source, for metrics. No update waits for the lock it takes.
func (s *store) sources(yield func(name string, kind mcs.SourceKind, st watch.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watchers {
		yield(w.name, w.kind, w.Status())
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
