package state

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// How often a file is written. Jitter is added, so that those of a hundred members are not written at once.
const (
	firstAfter = time.Second      // after the source has synced
	writeEvery = 10 * time.Second // at most
	proofEvery = 10 * time.Minute // without a change, so that the proof of life on disk is not much too old
)

// Keeper keeps the file of one source up to date. It is told what a watch tells (it is a watch.Sink), and returns at once.
// Nothing is written before the source has synced: a restart during an outage must not replace what was known by less.
type Keeper struct {
	dir    string
	source mcs.Source
	proof  func() time.Time
	report func(error)
	wake   chan struct{}
	stop   chan struct{}
	done   sync.WaitGroup

	mu         sync.Mutex // guards what follows; never held while writing
	shards     map[mcs.ServiceKey]*mcs.Shard
	imports    map[mcs.ServiceKey]*mcs.ImportShard
	namespaces map[string]struct{}
	addresses  map[netip.Addr]struct{}
	ranges     []netip.Prefix
	drained    bool
	synced     bool
	changed    bool
}

// NewKeeper begins. proof returns the last proof of life of the source; report is told the result of every write, nil for
// success.
func NewKeeper(dir string, source mcs.Source, proof func() time.Time, report func(error)) *Keeper {
	k := &Keeper{
		dir: dir, source: source, proof: proof, report: report,
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
		shards: map[mcs.ServiceKey]*mcs.Shard{}, imports: map[mcs.ServiceKey]*mcs.ImportShard{},
		namespaces: map[string]struct{}{}, addresses: map[netip.Addr]struct{}{},
	}
	k.done.Go(k.run)
	return k
}

// Close writes what has changed and ends. Nothing may be told to the Keeper afterwards.
func (k *Keeper) Close() {
	close(k.stop)
	k.done.Wait()
}

func (k *Keeper) run() {
	timer := time.NewTimer(proofEvery)
	defer timer.Stop()
	wait := firstAfter
	due := false // a change waits for the timer
	for {
		select {
		case <-k.stop:
			k.write(false)
			return
		case <-k.wake:
			if !due {
				due = true
				timer.Reset(wait + rand.N(wait/2))
			}
		case <-timer.C:
			k.write(!due)
			due, wait = false, writeEvery
			timer.Reset(proofEvery)
		}
	}
}

// write writes what is known. always does so when nothing but the proof of life has changed.
func (k *Keeper) write(always bool) {
	k.mu.Lock()
	if !k.synced || !k.changed && !always {
		k.mu.Unlock()
		return
	}
	k.changed = false
	r := Record{Source: k.source, Written: time.Now(), Facts: mcs.Facts{
		Shards: maps.Clone(k.shards), Imports: maps.Clone(k.imports),
		Namespaces: slices.Collect(maps.Keys(k.namespaces)), Addresses: slices.Collect(maps.Keys(k.addresses)),
		Ranges: k.ranges, Drained: k.drained,
	}}
	k.mu.Unlock()
	r.Proof = k.proof()
	err := Write(k.dir, r)
	if err != nil {
		k.mu.Lock()
		k.changed = true
		k.mu.Unlock()
		k.ring()
	}
	k.report(err)
}

func (k *Keeper) change(f func()) {
	k.mu.Lock()
	f()
	k.changed = true
	due := k.synced
	k.mu.Unlock()
	if due {
		k.ring()
	}
}

func (k *Keeper) ring() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// ApplyShard implements watch.Sink.
func (k *Keeper) ApplyShard(_ topology.ClusterID, key mcs.ServiceKey, shard *mcs.Shard, _ time.Time) {
	k.change(func() { put(k.shards, key, shard) })
}

// ApplyImport implements watch.Sink.
func (k *Keeper) ApplyImport(key mcs.ServiceKey, shard *mcs.ImportShard, _ time.Time) {
	k.change(func() { put(k.imports, key, shard) })
}

func put[V any](m map[mcs.ServiceKey]*V, key mcs.ServiceKey, value *V) {
	if m[key] = value; value == nil {
		delete(m, key)
	}
}

// ApplyNamespace implements watch.Sink.
func (k *Keeper) ApplyNamespace(name string, exists bool) {
	k.change(func() {
		if k.namespaces[name] = struct{}{}; !exists {
			delete(k.namespaces, name)
		}
	})
}

// ApplyServiceAddresses implements watch.Sink.
func (k *Keeper) ApplyServiceAddresses(taken, free []netip.Addr) {
	k.change(func() {
		for _, a := range taken {
			k.addresses[a] = struct{}{}
		}
		for _, a := range free {
			delete(k.addresses, a)
		}
	})
}

// ApplyServiceRanges implements watch.Sink.
func (k *Keeper) ApplyServiceRanges(ranges []netip.Prefix) { k.change(func() { k.ranges = ranges }) }

// SetDrained implements watch.Sink.
func (k *Keeper) SetDrained(_ topology.ClusterID, drained bool) {
	k.change(func() { k.drained = drained })
}

// SetClusterID implements watch.Sink. What a cluster calls itself is asked again after a restart.
func (k *Keeper) SetClusterID(topology.ClusterID, string) {}

// SetSynced implements watch.Sink.
func (k *Keeper) SetSynced(mcs.Source) { k.change(func() { k.synced = true }) }

// SetRestored implements watch.Sink. What was restored is on disk already.
func (k *Keeper) SetRestored(mcs.Source) {}
