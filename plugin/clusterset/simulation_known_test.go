package clusterset

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/internal/model"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// simKnown is what a server may know of one cluster. It follows from what the cluster's API server has told it and not
// from anything the server says of itself.
type simKnown struct {
	cluster *simCluster
	token   string
	// low is, by resource, the index of the oldest state that may still be what is known. The newest is the present.
	low map[string]int
	// looked is when it was brought up to date last. The state "stale" may or may not have been noticed until unsure.
	looked, unsure time.Time
	told           watchtest.Client
}

// Times after which something is certain; all are longer than what is promised.
const (
	simRetried = 15 * time.Second // a fetch that failed is made again
	simSilent  = 58 * time.Second // the source may be stale
	simStale   = 85 * time.Second // it is
)

func newSimKnown(c *simCluster, token string) *simKnown {
	return &simKnown{cluster: c, token: token, low: map[string]int{}, looked: time.Now()}
}

// exportResources are what a source of exports reads.
var exportResources = []string{"serviceexports", "services", "endpointslices"}

// look brings it up to date. Everything in the bubble must be waiting.
func (k *simKnown) look() {
	now := time.Now()
	told := k.cluster.api.Client(k.token)
	k.told = told
	for _, resource := range []string{"namespaces", "servicecidrs", "clusterproperties"} {
		if at, ok := told.Delivered[resource]; ok {
			k.low[resource] = at
		}
	}
	if k.undisturbed() {
		for _, resource := range exportResources {
			k.low[resource] = told.Delivered[resource]
		}
	}
	for _, resource := range exportResources {
		k.low[resource] = max(k.low[resource], told.Denied)
	}
	if k.silence(told.Proved) > simSilent || now.Sub(k.looked) > simSilent {
		k.unsure = now.Add(5 * time.Second)
	}
	k.looked = now
}

// undisturbed tells whether all three resources are streamed and no fetch is under way: then what was delivered is known.
func (k *simKnown) undisturbed() bool {
	for _, resource := range exportResources {
		if k.told.Streams[resource] == 0 {
			return false
		}
	}
	return k.told.Waiting == 0 && time.Since(k.told.Failed) > simRetried
}

// silence is how long the source of exports has said nothing.
func (k *simKnown) silence(times map[string]time.Time) time.Duration {
	var last time.Time
	for _, resource := range append([]string{"discovery"}, exportResources...) {
		if t := times[resource]; t.After(last) {
			last = t
		}
	}
	return time.Since(last)
}

// synced tells whether all of the source's exports have been told once.
func (k *simKnown) synced() bool {
	for _, resource := range exportResources {
		if _, ok := k.told.Delivered[resource]; !ok {
			return k.told.Denied > 0
		}
	}
	return true
}

// stale are the possible answers to whether the source of exports is stale.
func (k *simKnown) stale() []bool {
	switch {
	case !k.synced():
		return []bool{false}
	case k.silence(k.told.Answered) > simStale:
		return []bool{true}
	case time.Now().Before(k.unsure):
		return []bool{true, false}
	default:
		return []bool{false}
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
	if !k.synced() {
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
	slices.SortFunc(names, func(a, b model.Key) int {
		if a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name {
			return -1
		}
		return 1
	})
	return names
}

// possibleOf is all that a server may know when it is asked about a service.
func possibleOf(c *model.Config, known []*simKnown, key model.Key) *model.Possible {
	p := &model.Possible{Namespace: []bool{true}, Namespaces: []bool{false}, Ranges: [][]netip.Prefix{nil}}
	synced := true
	for i, k := range known {
		shards, vague := k.shards(key)
		p.Shards = append(p.Shards, shards)
		p.Vague = p.Vague || vague
		p.Stale = append(p.Stale, k.stale())
		drained := []bool{false}
		if _, ok := k.low["clusterproperties"]; ok {
			drained = possible(k, "clusterproperties", func(c *model.Cluster) bool { return c.Drained })
		}
		p.Drained = append(p.Drained, drained)
		synced = synced && k.synced()
		if c.Members[i].ID != c.Local {
			continue
		}
		if _, ok := k.told.Delivered["namespaces"]; ok {
			p.Namespaces = []bool{true}
			p.Namespace = possible(k, "namespaces", func(c *model.Cluster) bool { return c.Namespaces[key.Namespace] })
		}
		if _, ok := k.told.Delivered["servicecidrs"]; ok {
			p.Ranges = possible(k, "servicecidrs", func(c *model.Cluster) []netip.Prefix { return c.Ranges })
		}
	}
	p.Synced = []bool{synced}
	return p
}
