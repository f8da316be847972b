package watch

import (
	"net/netip"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Seed is what is known of a source before the first contact: from disk, or from a Watcher that this one replaces.
type Seed struct {
	Facts mcs.Facts
	// Proof is the time of the last proof of life of the source.
	Proof time.Time
	// Synced is true when the facts were all that the source said. Else nobody knows what it said since.
	Synced bool
}

// Seed returns what the Watcher knows, for the one that takes its place; nil if it has told nothing yet.
func (w *Watcher) Seed() *Seed {
	c := collector{facts: mcs.Facts{Shards: map[mcs.ServiceKey]*mcs.Shard{}, Imports: map[mcs.ServiceKey]*mcs.ImportShard{}}}
	w.Subscribe(&c)
	w.Unsubscribe(&c)
	if !c.told {
		return nil
	}
	return &Seed{Facts: c.facts, Proof: w.Status().LastProof, Synced: c.synced}
}

// collector is a Sink that keeps what it is told.
type collector struct {
	facts        mcs.Facts
	told, synced bool
}

func (c *collector) ApplyShard(_ topology.ClusterID, key mcs.ServiceKey, shard *mcs.Shard, _ time.Time) {
	if shard != nil {
		c.facts.Shards[key] = shard
	} else {
		delete(c.facts.Shards, key)
	}
}

func (c *collector) ApplyImport(key mcs.ServiceKey, shard *mcs.ImportShard, _ time.Time) {
	if shard != nil {
		c.facts.Imports[key] = shard
	} else {
		delete(c.facts.Imports, key)
	}
}

func (c *collector) ApplyNamespace(name string, exists bool) {
	if exists {
		c.facts.Namespaces = append(c.facts.Namespaces, name)
	} else {
		c.facts.Namespaces = slices.DeleteFunc(c.facts.Namespaces, func(n string) bool { return n == name })
	}
}

func (c *collector) ApplyServiceAddresses(taken, free []netip.Addr) {
	c.facts.Addresses = slices.DeleteFunc(append(c.facts.Addresses, taken...), func(a netip.Addr) bool { return slices.Contains(free, a) })
}

func (c *collector) ApplyServiceRanges(ranges []netip.Prefix) { c.facts.Ranges = ranges }

func (c *collector) SetDrained(_ topology.ClusterID, drained bool) { c.facts.Drained = drained }

// SetClusterID keeps nothing: what a cluster calls itself is asked anew.
func (c *collector) SetClusterID(topology.ClusterID, string) {}

func (c *collector) SetSynced(mcs.Source) { c.told, c.synced = true, true }

func (c *collector) SetRestored(mcs.Source) { c.told = true }
