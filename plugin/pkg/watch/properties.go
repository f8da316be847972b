package watch

import (
	"context"
	"slices"
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

// drainProperty is the ClusterProperty by which a cluster takes itself out of everybody's answers: value "true".
const drainProperty = "drain.clusterset-dns.io"

// propertyFeed reads what a cluster says about itself by ClusterProperty objects (KEP-2149). Most clusters have none.
type propertyFeed struct {
	clients clients
	client  atomic.Pointer[dynamic.ResourceInterface]

	audience // its lock guards what follows
	drained  bool
}

func newPropertyFeed(w *Watcher, c clients) *propertyFeed {
	f := &propertyFeed{audience: audience{w: w}, clients: c}
	f.recall = f.remember
	f.retell = func(s Sink) { s.SetDrained(f.w.spec.Cluster, f.drained) }
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
	only := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = "metadata.name=" + drainProperty
		return o
	}
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, only(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, only(o))
		},
	}
	s := &store{
		w: f.w, resource: "clusterproperties", complete: make(chan struct{}), begin: func() {},
		set: f.set, remove: f.remove, replace: f.replace,
		compact: func(obj any) any { return obj },
	}
	return []stage{{{"clusterproperties", lists, f.clients.dynamic, s}}}, nil
}

func (f *propertyFeed) ask(ctx context.Context) error {
	_, err := (*f.client.Load()).List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"})
	return err
}

func (f *propertyFeed) tick(time.Time) {}

func (f *propertyFeed) size() (services, endpoints int) { return 0, 0 }

func (f *propertyFeed) clear() { f.replace(nil) }

func (f *propertyFeed) remember(facts mcs.Facts) { f.drained = facts.Drained }

func (f *propertyFeed) set(obj any) { f.tell(drains(obj)) }

// remove is called for the one property that is watched.
func (f *propertyFeed) remove(any) { f.tell(false) }

func (f *propertyFeed) replace(items []any) { f.tell(slices.ContainsFunc(items, drains)) }

// drains reports whether an object is the drain property with the value "true".
func drains(obj any) bool {
	property, ok := obj.(*unstructured.Unstructured)
	if !ok || property.GetName() != drainProperty {
		return false
	}
	value, _, err := unstructured.NestedString(property.Object, "spec", "value")
	return err == nil && value == "true"
}

func (f *propertyFeed) tell(drained bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if drained != f.drained || !f.synced() {
		f.drained = drained
		for _, s := range f.sinks {
			s.SetDrained(f.w.spec.Cluster, drained)
		}
	}
	f.goLive()
}
