package watch

import (
	"context"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// The ClusterProperties that we read.
const (
	// drainProperty takes a cluster out of everybody's answers: value "true".
	drainProperty = "drain.clusterset-dns.io"
	// idProperty is the id that a cluster has in its ClusterSet (KEP-2149, "Well known properties").
	idProperty = "cluster.clusterset.k8s.io"
)

// maxValue is how much of a property's value is kept, in octets: one more than any that means something has.
const maxValue = 254

// propertyFeed reads what a cluster says about itself by ClusterProperty objects (KEP-2149). Most clusters have none, and
// the others few, so one watch of all is the cheapest; of those that mean nothing here only the name is kept.
type propertyFeed struct {
	clients clients
	client  atomic.Pointer[dynamic.ResourceInterface]

	audience // its lock guards what follows
	drained  bool
	claimed  string // its id, as it says
}

func newPropertyFeed(w *Watcher, c clients) *propertyFeed {
	f := &propertyFeed{audience: audience{w: w}, clients: c}
	f.recall = f.remember
	f.retell = func(s Sink) {
		s.SetDrained(f.w.spec.Cluster, f.drained)
		s.SetClusterID(f.w.spec.Cluster, f.claimed)
	}
	return f
}

func (f *propertyFeed) connect(ctx context.Context) ([]stage, error) {
	version, err := servedVersion(ctx, f.clients, "about.k8s.io", "clusterproperties")
	if err != nil {
		return nil, err
	}
	f.w.life.proof()
	var client dynamic.ResourceInterface = f.clients.dynamic.Resource(
		schema.GroupVersionResource{Group: "about.k8s.io", Version: version, Resource: "clusterproperties"})
	f.client.Store(&client)
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
	s := &store{
		w: f.w, resource: "clusterproperties", complete: make(chan struct{}), begin: func() {},
		set: f.set, remove: f.remove, replace: f.replace,
		compact: compactProperty,
	}
	return []stage{{{name: "clusterproperties", lists: lists, store: s}}}, nil
}

func (f *propertyFeed) ask(ctx context.Context) error {
	client := f.client.Load()
	if client == nil {
		return errNotServed // as far as is known
	}
	_, err := (*client).List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"})
	return err
}

func (f *propertyFeed) tick(time.Time) {}

func (f *propertyFeed) size() (services, endpoints int) { return 0, 0 }

func (f *propertyFeed) clear() { f.replace(nil) }

func (f *propertyFeed) remember(facts mcs.Facts) { f.drained = facts.Drained }

// compactProperty makes an item whose fact is the value of a property that we read.
func compactProperty(obj any) any {
	if _, done := obj.(*item); done {
		return obj
	}
	out := identify(obj)
	property, ok := obj.(*unstructured.Unstructured)
	if !ok || out.name != drainProperty && out.name != idProperty {
		return out
	}
	if value, _, err := unstructured.NestedString(property.Object, "spec", "value"); err == nil {
		out.fact = value[:min(len(value), maxValue)]
	}
	return out
}

func (f *propertyFeed) set(obj any) {
	it := compactProperty(obj).(*item)
	value, _ := it.fact.(string)
	f.change(it.name, value)
}

func (f *propertyFeed) remove(obj any) { f.change(identify(obj).name, "") }

// change takes the new value of one property.
func (f *propertyFeed) change(name, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	drained, claimed := f.drained, f.claimed
	switch name {
	case drainProperty:
		drained = value == "true"
	case idProperty:
		claimed = value
	}
	f.tell(drained, claimed)
}

func (f *propertyFeed) replace(items []any) {
	values := map[string]string{}
	for _, obj := range items {
		it := compactProperty(obj).(*item)
		values[it.name], _ = it.fact.(string)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(values[drainProperty] == "true", values[idProperty])
	f.goLive()
}

// tell passes on what is news; the first time everything is.
func (f *propertyFeed) tell(drained bool, claimed string) {
	changed, renamed := drained != f.drained || !f.synced(), claimed != f.claimed || !f.synced()
	f.drained, f.claimed = drained, claimed
	for _, s := range f.sinks {
		if changed {
			s.SetDrained(f.w.spec.Cluster, drained)
		}
		if renamed {
			s.SetClusterID(f.w.spec.Cluster, claimed)
		}
	}
}
