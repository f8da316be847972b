package clusterset

import (
	"fmt"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/state"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// enrol lets a roster tell a world who its members are, which is started if it is not there.
func (s *store) enrol(l *leased, spec *rosterSpec) error {
	wanted := *spec
	wanted.state = l.config.state
	s.mu.Lock()
	shared := s.rosters[wanted.key()]
	if shared == nil {
		r, err := newRoster(wanted)
		if err != nil {
			s.mu.Unlock()
			return fmt.Errorf("clusters: %w", err)
		}
		shared = &sharedRoster{roster: r}
		s.rosters[wanted.key()] = shared
		s.list()
	}
	shared.users++
	s.mu.Unlock()
	l.roster = shared
	shared.join(l)
	return nil
}

// strike ends it. The roster stops with its last world; it may just be waiting for the lock of the store, so that must
// not be held.
func (s *store) strike(l *leased) {
	if l.roster == nil {
		return
	}
	l.roster.leave(l)
	s.mu.Lock()
	l.roster.users--
	over := l.roster.users == 0
	if over {
		delete(s.rosters, l.roster.spec.key())
		s.list()
	}
	s.mu.Unlock()
	if over {
		l.roster.stop()
	}
}

// setMember implements rosterUser: a member has come, or has changed. What it said before serves until the new watch has
// synced.
func (l *leased) setMember(m *member, joins bool) {
	if slices.ContainsFunc(l.config.members, func(o member) bool { return o.ID == m.ID }) {
		log.Warningf("Cluster %s is in the Corefile, so the other description of it is not used", m.ID)
		return
	}
	wanted := l.config.remote(m)
	was := l.dynamic[m.ID]
	if len(was) > 0 && was[0] != wanted[0].key() {
		process.claims.forget(m.ID) // whoever answers now has not said yet who it is
	}
	l.admit(m, joins)
	l.setDynamic(m.ID, m)
	l.dynamic[m.ID] = l.exchange(m.ID, was, wanted)
}

// exchange lets a world be fed by other watchers of a member than before, and returns their keys. Nothing is published
// meanwhile, and what the old ones have said and the new ones do not know is forgotten in the same snapshot.
func (l *leased) exchange(id topology.ClusterID, was []watcherKey, wanted []use) (now []watcherKey) {
	l.merging.Lock()
	defer l.store.release(l, was)
	defer l.merging.Unlock()
	over := slices.DeleteFunc(slices.Clone(was), func(key watcherKey) bool {
		return slices.ContainsFunc(wanted, func(u use) bool { return u.key() == key })
	})
	l.store.unsubscribe(l, over)
	if slices.ContainsFunc(over, func(key watcherKey) bool { return key.kind == mcs.Exports }) {
		l.add(fact{apply: func(x *mcs.Index) { x.Forget(id) }})
	}
	for _, u := range wanted {
		if err := l.store.feed(l, u); err != nil {
			log.Warningf("Member %s is not used: %v", id, err)
			continue
		}
		now = append(now, u.key())
	}
	return now
}

// dropMember implements rosterUser: a member has gone.
func (l *leased) dropMember(id topology.ClusterID) {
	keys, there := l.dynamic[id]
	if !there {
		return
	}
	l.store.release(l, keys)
	delete(l.dynamic, id)
	l.add(fact{apply: func(x *mcs.Index) { x.RemoveMember(id) }})
	l.setDynamic(id, nil)
	if l.store.knows(id) {
		return // by another Corefile's description
	}
	// Another cluster may get the id some day.
	process.conditions.forget(id)
	if l.config.state != "" {
		for _, kind := range []mcs.SourceKind{mcs.Exports, mcs.Properties} {
			state.Remove(l.config.state, mcs.Source{Kind: kind, Cluster: id})
		}
	}
}

// knows reports whether anything of a cluster is watched.
func (s *store) knows(id topology.ClusterID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named(string(id))
}

// knowsMembers implements rosterUser.
func (l *leased) knowsMembers() { l.SetSynced(mcs.Source{Kind: mcs.Members}) }

func (s *store) unsubscribe(l *leased, keys []watcherKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.watchers[key].Unsubscribe(l.world)
	}
}

// release ends the use of some watchers by a world.
func (s *store) release(l *leased, keys []watcherKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		first := slices.Index(l.watchers, key)
		if !slices.Contains(l.watchers[first+1:], key) {
			s.watchers[key].Unsubscribe(l.world)
		}
		s.drop(l, key)
	}
}
