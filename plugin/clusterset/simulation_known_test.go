package clusterset

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/clusterset-dns/clusterset-dns/internal/model"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// simKnown is what a server may know of one cluster. It follows from what the cluster's API server has told it and when,
// not from anything the server says of itself.
type simKnown struct {
	cluster *simCluster
	token   string
	// stale and expire are what the operator wants; expire is 0 where nothing is ever forgotten.
	stale, expire time.Duration
	began         time.Time
	// low is, by resource, the index of the oldest state that may still be what is known; nothing where nothing was ever
	// known. The newest is the present.
	low map[string]int
	// synced is set once all exports were told for sure.
	synced bool
	// listed is set once they were by this very connection.
	listed bool
	// looked is when it was brought up to date last.
	looked time.Time
	// unsure is until when the source may or may not be stale; doubted until when what it said may or may not be forgotten,
	// which then is over with the next time that it is told.
	unsure, doubted time.Time
	forgotten       bool
	denied          int
	// before is when a predecessor was told something last.
	before time.Time
	told   watchtest.Client
	// live are the resources that were told to this process, and disk those that were restored from the state on disk.
	live map[string]bool
	disk map[string]certainty
	// heard are the resources that may have been told to a predecessor.
	heard map[string]bool
	// lows are those of the last minute.
	lows []simLow
}

// certainty says whether something is so.
type certainty int

const (
	no certainty = iota
	perhaps
	yes
)

// simLow is what low was from a time on.
type simLow struct {
	since time.Time
	low   map[string]int
}

// Times after which something is certain; all are longer than what is promised.
const (
	simRetried = 15 * time.Second // a fetch that failed is made again
	simNearly  = 2 * time.Second  // so long before it is time, it may be
	simNoticed = 5 * time.Second  // that something is stale, or is no longer
	simSettled = 20 * time.Second // a source that was forgotten is listed anew
	simWritten = 17 * time.Second // what is known is on disk
)

// newSimKnown begins with what the server knows of the cluster already by another connection, nil if nothing.
func newSimKnown(c *simCluster, token string, stale, expire time.Duration, before *simKnown) *simKnown {
	k := &simKnown{cluster: c, token: token, stale: stale, expire: expire, began: time.Now(), looked: time.Now(),
		low: map[string]int{}, live: map[string]bool{}, disk: map[string]certainty{}, heard: map[string]bool{}}
	if before != nil {
		k.low, k.synced, k.forgotten, k.doubted = maps.Clone(before.low), before.synced, before.forgotten, before.doubted
		k.live, k.disk, k.lows = maps.Clone(before.live), maps.Clone(before.disk), before.lows
		for resource := range before.told.Delivered {
			k.heard[resource] = true
		}
		maps.Copy(k.heard, before.heard)
		k.before = before.proof(before.told.Proved)
		k.unsure = time.Now().Add(simNoticed)
	}
	return k
}

// exportResources are what a source of exports reads.
var exportResources = []string{"serviceexports", "services", "endpointslices"}

// look brings it up to date. Everything in the bubble must be waiting.
func (k *simKnown) look() {
	now := time.Now()
	k.told = k.cluster.api.Client(k.token)
	for _, resource := range []string{"namespaces", "servicecidrs", "clusterproperties"} {
		if at, ok := k.told.Delivered[resource]; ok && k.told.Streams[resource] > 0 {
			k.low[resource], k.live[resource] = at, true
		}
		if oldest, ok := k.told.Oldest[resource]; ok && !k.live[resource] {
			k.low[resource] = min(k.low[resource], oldest)
		}
	}
	wasSynced := k.synced
	switch {
	case k.told.Denied != k.denied:
		k.denied = k.told.Denied
		k.exportsAre(k.denied)
	case k.undisturbed() && now.After(k.doubted):
		k.exportsAre(0)
		k.low["taken"], k.live["taken"], k.listed = k.low["services"], true, true
	case !k.listed:
		// What a predecessor knew can be newer than the first list of a server that is behind.
		for _, resource := range exportResources {
			if at, ok := k.told.Oldest[resource]; ok {
				k.low[resource] = min(k.low[resource], at)
			}
		}
	}
	silent, gap := now.Sub(k.proof(k.told.Proved)), now.Sub(k.looked)
	if max(silent, gap) > k.stale-simNearly {
		k.unsure = now.Add(simNoticed)
	}
	late := !k.synced && !k.undisturbed() && now.Sub(k.began) > k.expire-simNoticed
	if k.expire > 0 && (late || max(silent, gap) > k.expire-simNoticed) {
		k.forgotten, k.doubted = true, now.Add(simSettled)
	}
	if k.synced != wasSynced {
		k.unsure = now.Add(simNoticed)
	}
	k.looked = now
	if n := len(k.lows); n == 0 || !maps.Equal(k.lows[n-1].low, k.low) {
		k.lows = append(k.lows, simLow{now, maps.Clone(k.low)})
	}
	for len(k.lows) > 1 && now.Sub(k.lows[1].since) > 2*simWritten {
		k.lows = slices.Clone(k.lows[1:])
	}
}

// diskResources are those whose state is on disk, one for each file.
var diskResources = []string{"serviceexports", "clusterproperties", "namespaces", "servicecidrs"}

// restore is what another process knows at first that finds the state on disk. A process that was killed may not have
// written what it knew last.
func (k *simKnown) restore(before *simKnown, killed bool, damaged string) {
	from := before.low
	for _, l := range before.lows {
		if killed && time.Since(l.since) >= simWritten {
			from = l.low
		}
	}
	if killed && time.Since(before.lows[0].since) < simWritten {
		from = map[string]int{}
	}
	for _, resource := range diskResources {
		known := before.live[resource]
		if resource == "serviceexports" {
			known = before.synced
		}
		_, written := from[resource]
		switch {
		case resource == damaged:
			continue
		case known && written && (before.began.Add(simWritten).Before(time.Now()) || !killed):
			k.disk[resource] = yes
		default:
			k.disk[resource] = perhaps
		}
		group := []string{resource}
		if resource == "serviceexports" {
			group = append(slices.Clone(exportResources), "taken")
		}
		for _, r := range group {
			k.low[r] = from[r]
		}
	}
	if k.expire > 0 { // the last proof of life on disk may be old
		k.forgotten, k.doubted = true, time.Now().Add(simSettled)
	}
}

// exportsAre notes that all exports are known, as they were told or, if it was said that there are none, at that index.
func (k *simKnown) exportsAre(none int) {
	for _, resource := range exportResources {
		if k.low[resource] = none; none == 0 {
			k.low[resource] = k.told.Delivered[resource]
		}
	}
	k.synced, k.forgotten = true, false
}

// undisturbed tells whether all three resources are watched, the EndpointSlices those of all exports, and no fetch is under
// way: then what was delivered is known.
func (k *simKnown) undisturbed() bool {
	for _, resource := range exportResources {
		if k.told.Streams[resource] == 0 {
			return false
		}
	}
	for key := range k.cluster.now().Exports {
		if !k.told.Selectors["endpointslices"].Matches(labels.Set{"kubernetes.io/service-name": key.Name}) {
			return false
		}
	}
	return k.told.Waiting == 0 && time.Since(k.told.Failed) > simRetried
}

// mayKnow tells whether a resource was told, though not whether that has been taken in.
func (k *simKnown) mayKnow(resource string) bool {
	if resource == "taken" {
		resource = "services"
	}
	_, told := k.told.Delivered[resource]
	return told || k.heard[resource]
}

// proof is the last of these times at which the source of exports said anything.
func (k *simKnown) proof(times map[string]time.Time) time.Time {
	last := k.before
	for _, resource := range append([]string{"discovery"}, exportResources...) {
		if t := times[resource]; t.After(last) {
			last = t
		}
	}
	return last
}

// silent is how long the source of exports has surely said nothing.
func (k *simKnown) silent() time.Duration { return time.Since(k.proof(k.told.Answered)) }

// gone tells whether what the source said is surely forgotten.
func (k *simKnown) gone() bool {
	if k.expire == 0 || !k.forgotten {
		return false
	}
	return k.silent() > k.expire+simNoticed && (k.synced || time.Since(k.began) > k.expire+simNoticed)
}

// syncs are the possible answers to whether everything was told, or the source was given up on.
func (k *simKnown) syncs() []bool {
	switch told := 0; {
	case k.synced, k.gone():
		return []bool{true}
	default:
		for _, resource := range exportResources {
			if k.mayKnow(resource) {
				told++
			}
		}
		if k.forgotten || told == len(exportResources) {
			return []bool{true, false}
		}
		return []bool{false}
	}
}

// stales are the possible answers to whether the source of exports is stale.
func (k *simKnown) stales() []bool {
	switch {
	case k.gone():
		return []bool{false}
	case !slices.Contains(k.syncs(), true) && k.disk["serviceexports"] == yes && !k.forgotten:
		return []bool{true}
	case !slices.Contains(k.syncs(), true) && k.disk["serviceexports"] == no:
		return []bool{false}
	case time.Now().Before(k.unsure) && k.silent() < k.stale+simNoticed, k.forgotten, !k.synced:
		return []bool{true, false}
	default:
		return []bool{k.silent() > k.stale}
	}
}

// window calls f with each state that may be what is known by a resource.
func (k *simKnown) window(resource string, f func(*model.Cluster)) {
	history := k.cluster.history
	for i := len(history) - 1; i >= k.low[resource]; i-- {
		f(&history[i])
	}
}

// possible collects the different values that f can have.
func possible[T any](k *simKnown, resource string, f func(*model.Cluster) T) (out []T) {
	k.window(resource, func(c *model.Cluster) {
		v := f(c)
		if !slices.ContainsFunc(out, func(o T) bool { return reflect.DeepEqual(o, v) }) {
			out = append(out, v)
		}
	})
	return out
}

// simMostShards is how many possible shards are told apart. When more are possible nothing is asked but who holds what.
const simMostShards = 600

// shards are what may be known of one service: each of its objects by itself can be in any state. With vague there is one
// shard for each export and Service, with all states of all slices.
func (k *simKnown) shards(key model.Key) (out []model.Shard, vague bool) {
	if k.gone() || !slices.Contains(k.syncs(), true) && k.disk["serviceexports"] == no {
		return []model.Shard{{}}, false
	}
	exports := possible(k, "serviceexports", func(c *model.Cluster) *model.Export { return entry(c.Exports, key) })
	if len(exports) == 1 && exports[0] == nil {
		return []model.Shard{{}}, false
	}
	for _, s := range possible(k, "services", func(c *model.Cluster) *model.Service { return entry(c.Services, key) }) {
		for _, e := range exports {
			out = append(out, model.Shard{Export: e, Service: s})
		}
	}
	var all [][]*model.Slice
	count := len(out)
	for _, name := range k.slices(key) {
		versions := possible(k, "endpointslices", func(c *model.Cluster) *model.Slice {
			if s := entry(c.Slices, name); s != nil && s.Of == key {
				return s
			}
			return nil
		})
		all = append(all, versions)
		count *= len(versions)
	}
	vague = count > simMostShards
	for _, versions := range all {
		out = combine(out, versions, vague)
	}
	if k.forgotten || !k.synced && k.disk["serviceexports"] != yes {
		out = append(out, model.Shard{})
	}
	return out, vague
}

// combine gives each shard each of the versions of one more slice, or with together all.
func combine(shards []model.Shard, versions []*model.Slice, together bool) (out []model.Shard) {
	for _, shard := range shards {
		for _, version := range versions {
			more := shard
			if version != nil {
				more.Slices = append(slices.Clip(more.Slices), *version)
			}
			if together {
				shard = more
			} else {
				out = append(out, more)
			}
		}
		if together {
			out = append(out, shard)
		}
	}
	return out
}

func entry[V any](m map[model.Key]V, key model.Key) *V {
	if v, ok := m[key]; ok {
		return &v
	}
	return nil
}

// slices are the names of those that may belong to a service.
func (k *simKnown) slices(key model.Key) (names []model.Key) {
	k.window("endpointslices", func(c *model.Cluster) {
		for name, s := range c.Slices {
			if s.Of == key && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	})
	slices.SortFunc(names, compareKeys)
	return names
}

func compareKeys(a, b model.Key) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

// clusterIPs are those of all Services of a cluster, in order.
func clusterIPs(c *model.Cluster) (out []netip.Addr) {
	for _, s := range c.Services {
		for _, text := range s.ClusterIPs {
			if a, ok := model.Address(text); ok {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// possibleOf is all that a server may know when it is asked about a service.
func possibleOf(c *model.Config, known []*simKnown, key model.Key) *model.Possible {
	p := &model.Possible{
		Namespace: []bool{true}, Namespaces: []bool{false}, Restored: []bool{false}, Ranges: [][]netip.Prefix{nil}, Taken: [][]netip.Addr{nil},
	}
	p.Synced = []bool{true}
	for i, k := range known {
		shards, vague := k.shards(key)
		p.Shards = append(p.Shards, shards)
		p.Vague = p.Vague || vague
		p.Stale = append(p.Stale, k.stales())
		p.Drained = append(p.Drained, known1(k, "clusterproperties", "clusterproperties", false, func(c *model.Cluster) bool { return c.Drained }))
		if syncs := k.syncs(); !slices.Contains(syncs, true) || !slices.Contains(p.Synced, true) {
			p.Synced = []bool{false}
		} else if len(syncs) == 2 {
			p.Synced = syncs
		}
		if c.Members[i].ID == c.Local {
			k.possibleLocal(p, key)
		}
	}
	return p
}

// known1 is what may be known of one resource that stands in a file, or of what follows from it. otherwise is what counts
// while nothing is known.
func known1[T any](k *simKnown, file, resource string, otherwise T, f func(*model.Cluster) T) []T {
	told := k.mayKnow(resource)
	switch {
	case k.live[resource], k.disk[file] == yes:
		return possible(k, resource, f)
	case told, k.disk[file] == perhaps:
		return append(possible(k, resource, f), otherwise)
	default:
		return []T{otherwise}
	}
}

// possibleLocal adds what only the local cluster tells.
func (k *simKnown) possibleLocal(p *model.Possible, key model.Key) {
	told := k.mayKnow("namespaces")
	switch {
	case k.live["namespaces"]:
		p.Namespaces = []bool{true}
	case told:
		p.Namespaces = []bool{true, false}
	}
	if !k.live["namespaces"] {
		p.Restored = [][]bool{{false}, {true, false}, {true}}[k.disk["namespaces"]]
	}
	p.Namespace = known1(k, "namespaces", "namespaces", true, func(c *model.Cluster) bool { return c.Namespaces[key.Namespace] })
	p.Ranges = known1(k, "servicecidrs", "servicecidrs", nil, func(c *model.Cluster) []netip.Prefix { return c.Ranges })
	p.Taken = known1(k, "serviceexports", "taken", nil, clusterIPs)
}
