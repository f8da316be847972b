package watch

import (
	"context"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// serviceRangeFeed reads which addresses the local cluster gives to its Services (ServiceCIDR objects, Kubernetes 1.33
// and later; older clusters say nothing).
type serviceRangeFeed struct {
	clients clients

	audience                           // its lock guards what follows
	held     map[string][]netip.Prefix // by the name of the object
	told     []netip.Prefix
}

func newServiceRangeFeed(w *Watcher, c clients) *serviceRangeFeed {
	f := &serviceRangeFeed{audience: audience{w: w}, clients: c, held: map[string][]netip.Prefix{}}
	f.recall = f.remember
	f.retell = func(s Sink) { s.ApplyServiceRanges(f.told) }
	return f
}

func (f *serviceRangeFeed) connect(ctx context.Context) ([]stage, error) {
	has, err := hasResource(ctx, f.clients, "networking.k8s.io", "v1", "servicecidrs")
	switch {
	case err != nil:
		return nil, err
	case !has:
		return nil, errNotServed
	}
	f.w.life.proof()
	s := &store{
		w: f.w, resource: "servicecidrs", complete: make(chan struct{}), begin: func() {},
		set: f.set, remove: f.remove, replace: f.replace, compact: func(obj any) any { return obj },
	}
	ranges := &listing{
		client: f.clients.core.NetworkingV1().RESTClient(), plural: "servicecidrs",
		objects: newObjects[networkingv1.ServiceCIDR],
	}
	return []stage{{ranges.resource(s)}}, nil
}

func (f *serviceRangeFeed) ask(ctx context.Context) error {
	return f.clients.core.NetworkingV1().RESTClient().Get().Resource("servicecidrs").
		VersionedParams(&metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"}, metav1.ParameterCodec).
		Do(ctx).Error()
}

func (f *serviceRangeFeed) tick(time.Time) {}

func (f *serviceRangeFeed) size() (services, endpoints int) { return 0, 0 }

func (f *serviceRangeFeed) clear() { f.replace(nil) }

func (f *serviceRangeFeed) remember(facts mcs.Facts) { f.told = facts.Ranges }

func (f *serviceRangeFeed) set(obj any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(obj)
	f.tell()
}

func (f *serviceRangeFeed) remove(obj any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, identify(obj).name)
	f.tell()
}

func (f *serviceRangeFeed) replace(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.held)
	for _, obj := range items {
		f.put(obj)
	}
	f.tell()
}

func (f *serviceRangeFeed) put(obj any) {
	o, ok := obj.(*networkingv1.ServiceCIDR)
	if !ok {
		return
	}
	var ranges []netip.Prefix
	for _, text := range o.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, p.Masked())
		}
	}
	f.held[o.Name] = ranges
}

func (f *serviceRangeFeed) tell() {
	var ranges []netip.Prefix
	for _, r := range f.held {
		ranges = append(ranges, r...)
	}
	slices.SortFunc(ranges, netip.Prefix.Compare)
	ranges = slices.Compact(ranges)
	if !slices.Equal(ranges, f.told) || !f.synced() {
		f.told = ranges
		for _, s := range f.sinks {
			s.ApplyServiceRanges(ranges)
		}
	}
	f.goLive()
}
