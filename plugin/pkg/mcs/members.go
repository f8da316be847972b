package mcs

import (
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// AddMember lets a cluster be a member, or gives a member other settings; what it says is kept then. joins says that it
// came while others were answered already: no unknown name becomes uncertain because of it before it has synced, so that a
// newcomer that cannot be reached disturbs nobody. Work is proportional to the number of services.
func (x *Index) AddMember(m Member, joins bool) {
	known := x.members[m.ID]
	if known == nil {
		x.members[m.ID] = &m
		if !joins {
			// Published snapshots share the old array.
			x.unsynced = append(slices.Clip(x.unsynced), Source{Exports, m.ID})
			x.changed = true
		}
		return
	}
	x.exportsOf(m.ID, func(key ServiceKey, shard *Shard) {
		x.account(known, key, shard, -1)
		x.account(&m, key, shard, 1)
		x.touch(key)
	})
	*known = m
}

// Forget takes back all that a member has said.
func (x *Index) Forget(id topology.ClusterID) {
	x.exportsOf(id, func(key ServiceKey, _ *Shard) { x.Apply(id, key, nil) })
}

// RemoveMember ends a membership. What the cluster said is forgotten, and nobody waits for it any more. Work is
// proportional to the number of services.
func (x *Index) RemoveMember(id topology.ClusterID) {
	if x.members[id] == nil {
		return
	}
	x.Forget(id)
	delete(x.members, id)
	x.SetSynced(Source{Exports, id})
}

// exportsOf calls f for every service that a member exports.
func (x *Index) exportsOf(id topology.ClusterID, f func(ServiceKey, *Shard)) {
	for namespace, names := range x.facts {
		for name, e := range names {
			for i := range e.exports {
				if e.exports[i].member.ID == id {
					f(ServiceKey{namespace, name}, e.exports[i].shard)
					break
				}
			}
		}
	}
}
