package watch

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// namespaceFeed reads which namespaces the local cluster has; of each only its name.
type namespaceFeed struct {
	clients clients
	hold    hold

	audience // its lock guards what follows
	held     map[string]struct{}
}

func newNamespaceFeed(w *Watcher, c clients) *namespaceFeed {
	f := &namespaceFeed{audience: audience{w: w}, clients: c, held: map[string]struct{}{}}
	f.recall = f.remember
	f.retell = f.retellTo
	return f
}

var namespaces = corev1.SchemeGroupVersion.WithResource("namespaces")

func (f *namespaceFeed) connect(context.Context) ([]stage, error) {
	client := f.clients.metadata.Resource(namespaces)
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
	s := &store{
		w: f.w, resource: "namespaces", complete: make(chan struct{}), begin: func() {},
		set: f.set, remove: f.remove, replace: f.replace, compact: func(obj any) any { return identify(obj) },
		remains: f.remains, hold: &f.hold,
	}
	return []stage{{{name: "namespaces", lists: lists, store: s}}}, nil
}

func (f *namespaceFeed) ask(ctx context.Context) error {
	_, err := f.clients.metadata.Resource(namespaces).List(ctx,
		metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"})
	return err
}

func (f *namespaceFeed) tick(time.Time) {}

func (f *namespaceFeed) size() (services, endpoints int) { return 0, 0 }

// clear has nothing to do: every API server has namespaces.
func (f *namespaceFeed) clear() {}

func (f *namespaceFeed) retellTo(s Sink) {
	for name := range f.held {
		s.ApplyNamespace(name, true)
	}
}

func (f *namespaceFeed) remember(facts mcs.Facts) {
	for _, name := range facts.Namespaces {
		f.held[name] = struct{}{}
	}
}

func (f *namespaceFeed) set(obj any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(identify(obj).name, true)
}

func (f *namespaceFeed) remove(obj any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(identify(obj).name, false)
}

func (f *namespaceFeed) tell(name string, exists bool) {
	if _, known := f.held[name]; known == exists {
		return
	}
	if exists {
		f.held[name] = struct{}{}
	} else {
		delete(f.held, name)
	}
	for _, s := range f.sinks {
		s.ApplyNamespace(name, exists)
	}
}

// remains tells how many namespaces there are, and how many of them are in a full list.
func (f *namespaceFeed) remains(items []any) (before, after int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, obj := range items {
		if _, known := f.held[obj.(*item).name]; known {
			after++
		}
	}
	return len(f.held), after
}

func (f *namespaceFeed) replace(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]struct{}, len(items))
	for _, obj := range items {
		there[obj.(*item).name] = struct{}{}
	}
	for name := range f.held {
		if _, ok := there[name]; !ok {
			f.tell(name, false)
		}
	}
	for name := range there {
		f.tell(name, true)
	}
	f.goLive()
}
