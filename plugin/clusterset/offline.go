package clusterset

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/coredns/caddy"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/corefile"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// ImportsFolder is the name of what an offline server reads ServiceImports from, if they are not those of the local cluster.
const ImportsFolder = "serviceimports"

// NewOffline makes a handler that answers no client, but explains answers: from a stanza, whose tokens the controller has, and
// from what each cluster says, by its id. It opens no file that the stanza names and asks nobody. Members that come and go have
// their settings in files beside their manifests, named as `clusters directory` wants; dir is where their folders are. l and h
// stand for the plugins *locality* and *clusterhealth*, nil for none.
func NewOffline(c *caddy.Controller, dir string, said map[string]*watch.Manifests, l locator, h healther) (*Clusterset, error) {
	corefile.SetOffline(c)
	config, err := parse(c)
	if err != nil {
		return nil, err
	}
	scope := mcs.Scope{Local: config.local, Imports: config.imports != nil}
	handler := &Clusterset{config: *config, locator: l, healther: h}
	if handler.members, err = offlineMembers(config, dir, said); err != nil {
		return nil, err
	}
	for i := range handler.members {
		scope.Members = append(scope.Members, handler.members[i].Member)
	}
	handler.world = newQuietWorld(scope)
	handler.world.quiet = true
	for i := range handler.members {
		m := &handler.members[i]
		handler.world.hear(m, said[string(m.ID)])
	}
	if config.imports != nil {
		from := said[ImportsFolder]
		if from == nil {
			from = said[string(config.local)]
		}
		if from == nil {
			return nil, fmt.Errorf("there is no folder %q with the ServiceImports, and no local cluster that could have them: add it", ImportsFolder)
		}
		for key, shard := range from.Facts.Imports {
			handler.world.ApplyImport(key, shard, time.Time{})
		}
		handler.world.SetSynced(mcs.Source{Kind: mcs.Imports})
	}
	handler.world.publish()
	return handler, nil
}

// offlineMembers are those of the stanza, and, where it has `clusters`, those for which there is anything else.
func offlineMembers(c *config, dir string, said map[string]*watch.Manifests) ([]member, error) {
	members := slices.Clone(c.members)
	known := map[string]bool{ImportsFolder: c.imports != nil}
	for i := range members {
		id := string(members[i].ID)
		if known[id] = true; said[id] == nil {
			return nil, fmt.Errorf("nothing is said of cluster %s: make a folder %q in %s, empty if it exports nothing", id, id, dir)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		switch {
		case known[name]:
			continue
		case c.dynamic == nil:
			return nil, fmt.Errorf("the folder %q is that of no cluster of the Corefile: add 'cluster %s', or remove it", name, name)
		}
		m, _, err := parseSettings(name, readFolder(filepath.Join(dir, name)))
		if err != nil {
			return nil, fmt.Errorf("the settings in the folder %q: %w", name, err)
		}
		m.origin = "directory " + name
		members = append(members, *m)
	}
	return members, nil
}

// hear takes all that a member says.
func (w *world) hear(m *member, said *watch.Manifests) {
	if said == nil {
		return
	}
	for key, shard := range said.Facts.Shards {
		w.ApplyShard(m.ID, key, shard, time.Time{})
	}
	w.SetSynced(mcs.Source{Kind: mcs.Exports, Cluster: m.ID})
	if m.region == "" {
		m.region = said.Region
	}
	process.conditions.setDrained(m.ID, said.Facts.Drained)
	if m.ID != w.scope.Local {
		return
	}
	for _, name := range said.Facts.Namespaces {
		w.ApplyNamespace(name, true)
	}
	w.ApplyServiceAddresses(said.Facts.Addresses, nil)
	w.ApplyServiceRanges(said.Facts.Ranges)
	w.SetSynced(mcs.Source{Kind: mcs.Namespaces, Cluster: m.ID})
}

// Holds reports whether a name is one that this handler answers, and the length of its zone.
func (c *Clusterset) Holds(name string) (zone int, ok bool) {
	at := zoneOf(c.zones, name)
	if at < 0 {
		return 0, false
	}
	return len(c.zones[at]), true
}
