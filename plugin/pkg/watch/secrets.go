package watch

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// MemberKeys are the keys of a Secret about a member that are read, or the names of the files that say the same.
var MemberKeys = []string{"cluster", "kubeconfig", "address", "region", "weight", "allow", "namespaces"}

// MemberSecret is what a Secret says about a member. It holds credentials: it must not be shown. Immutable.
type MemberSecret struct {
	// Created is the creationTimestamp of the Secret in Unix seconds.
	Created int64
	// Data are the values of those MemberKeys that are there.
	Data map[string]string
}

// SecretSink receives what a source of kind Members says, in order. Calls never overlap. It must return at once and must
// not call back into the Watcher.
type SecretSink interface {
	// ApplySecret replaces what a Secret says; nil means that it is gone.
	ApplySecret(name string, s *MemberSecret)
	// SetSecretsListed says that every Secret has been told.
	SetSecretsListed()
}

// secretFeed reads the Secrets of one namespace, each of which is about one member.
type secretFeed struct {
	w       *Watcher
	clients clients
	sink    SecretSink
	listed  atomic.Bool
	hold    hold

	mu    sync.Mutex // guards what follows; held while the sink is called
	names map[string]struct{}
}

func newSecretFeed(w *Watcher, c clients) *secretFeed {
	return &secretFeed{w: w, clients: c, sink: w.spec.Secrets, names: map[string]struct{}{}}
}

func (f *secretFeed) connect(context.Context) ([]stage, error) {
	s := &store{
		w: f.w, resource: "secrets", complete: make(chan struct{}), begin: func() {},
		set: f.set, remove: f.remove, replace: f.replace, compact: f.compact, remains: f.remains, hold: &f.hold,
	}
	only := func(o *metav1.ListOptions) { o.LabelSelector = f.w.spec.Selector }
	secrets := &listing{
		client: f.clients.core.CoreV1().RESTClient(), plural: "secrets", namespace: f.w.spec.Namespace, narrow: only,
		objects: newObjects[corev1.Secret],
	}
	return []stage{{secrets.resource(s)}}, nil
}

func (f *secretFeed) ask(ctx context.Context) error {
	_, err := f.clients.core.CoreV1().Secrets(f.w.spec.Namespace).List(ctx, metav1.ListOptions{
		ResourceVersion: "0", Limit: 1, FieldSelector: fields.OneTermEqualSelector("metadata.name", "-").String(),
	})
	return err
}

func (f *secretFeed) tick(time.Time) {}

func (f *secretFeed) synced() bool { return f.listed.Load() }

func (f *secretFeed) size() (services, endpoints int) { return 0, 0 }

// clear has nothing to do: every API server has Secrets.
func (f *secretFeed) clear() {}

// restore has nothing to do: credentials are nowhere kept.
func (f *secretFeed) restore(mcs.Facts, bool) {}
func (f *secretFeed) wasRestored() bool       { return false }

// subscribe has nothing to do, nor unsubscribe: what is told goes to Spec.Secrets.
func (f *secretFeed) subscribe(Sink)   {}
func (f *secretFeed) unsubscribe(Sink) {}

// compact makes an item whose fact is a *MemberSecret.
func (f *secretFeed) compact(obj any) any {
	s, ok := obj.(*corev1.Secret)
	if !ok {
		return identify(obj)
	}
	out := identify(s)
	fact := &MemberSecret{Created: s.CreationTimestamp.Unix(), Data: map[string]string{}}
	for key, value := range s.Data {
		if slices.Contains(MemberKeys, key) {
			fact.Data[key] = string(value)
		}
	}
	out.fact = fact
	return out
}

func (f *secretFeed) set(obj any) {
	it := f.compact(obj).(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(it)
}

func (f *secretFeed) tell(it *item) {
	if fact, ok := it.fact.(*MemberSecret); ok {
		f.names[it.name] = struct{}{}
		f.sink.ApplySecret(it.name, fact)
	}
}

func (f *secretFeed) remove(obj any) {
	it := identify(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(it.name)
}

func (f *secretFeed) drop(name string) {
	delete(f.names, name)
	f.sink.ApplySecret(name, nil)
}

// remains tells how many Secrets there are, and how many of them are in a full list.
func (f *secretFeed) remains(items []any) (before, after int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, obj := range items {
		if _, known := f.names[obj.(*item).name]; known {
			after++
		}
	}
	return len(f.names), after
}

func (f *secretFeed) replace(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]bool, len(items))
	for _, obj := range items {
		there[obj.(*item).name] = true
	}
	for name := range f.names {
		if !there[name] {
			f.drop(name)
		}
	}
	for _, obj := range items {
		f.tell(obj.(*item))
	}
	f.sink.SetSecretsListed()
	f.listed.Store(true)
}

// CheckSelector reports what is wrong with a label selector.
func CheckSelector(selector string) error {
	_, err := labels.Parse(selector)
	return err
}
