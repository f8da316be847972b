package watch

import (
	"context"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// fetch is one request for the objects of a new export. Its answer may be older than what the watch says meanwhile.
type fetch struct {
	lists uint64 // how many full lists there had been when it was made
	// serviceGone is the resourceVersion of the Service's deletion, nil when there was none.
	serviceGone *uint64
	// passed are the resourceVersions of EndpointSlices of the namespace, by name, as the watch told them. Of any service:
	// a slice can change hands.
	passed map[string]uint64
}

// fetch asks for the objects of a new export, again and again until there is an answer or the export is gone.
func (f *exportFeed) fetch(key mcs.ServiceKey, h *held) {
	mine := &fetch{lists: f.lists, passed: map[string]uint64{}}
	h.fetch, f.fetching[key] = mine, mine
	f.w.background(func(ctx context.Context) {
		delay := retry()
		newest := false
		for {
			select {
			case f.requests <- struct{}{}:
			case <-ctx.Done():
				return
			}
			service, list, err := f.get(ctx, key, newest)
			<-f.requests
			if ctx.Err() != nil || f.gone(key, mine) {
				return
			}
			if err != nil {
				newest = true
				sleep(ctx, delay.Step())
			} else if f.fetchedAll(key, mine, service, list) {
				return
			}
		}
	})
}

// get asks for the Service and the EndpointSlices of an export. They need only be as new as what the watches have told, and
// may have dropped, before the export was known: what is newer comes by the watch, or by the list that is made when the
// watch does not cover the name. An API server has them in its cache then, while for the newest it first asks etcd: for a
// list how new that is, which takes up to 100 ms.
func (f *exportFeed) get(ctx context.Context, key mcs.ServiceKey, newest bool) (*corev1.Service, []discoveryv1.EndpointSlice, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var one metav1.GetOptions // a version in it means "not older than"
	options := metav1.ListOptions{LabelSelector: labelServiceName + "=" + key.Name}
	if !newest {
		one.ResourceVersion = versionText(f.servicesReached.Load())
		f.notOlder(&options)
	}
	var list *discoveryv1.EndpointSliceList
	var listErr error
	var listing sync.WaitGroup // both at once: an answer waits for them
	listing.Go(func() {
		list, listErr = f.clients.core.DiscoveryV1().EndpointSlices(key.Namespace).List(ctx, options)
	})
	service, err := f.clients.core.CoreV1().Services(key.Namespace).Get(ctx, key.Name, one)
	listing.Wait()
	switch {
	case apierrors.IsNotFound(err):
		service = nil
	case err != nil:
		return nil, nil, err
	}
	if listErr != nil {
		return nil, nil, listErr
	}
	return service, list.Items, nil
}

// notOlder has a list of EndpointSlices made from an API server's cache that is as new as what the watch has told.
func (f *exportFeed) notOlder(o *metav1.ListOptions) {
	if reached := versionText(f.slicesReached.Load()); reached != "" {
		o.ResourceVersion = reached
		o.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
	}
}

// versionText returns "" for 0, which is no version but any.
func versionText(version uint64) string {
	if version == 0 {
		return ""
	}
	return strconv.FormatUint(version, 10)
}

func (f *exportFeed) gone(key mcs.ServiceKey, mine *fetch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.held[key]
	return h == nil || h.fetch != mine
}

// fetchedAll takes the answer of a fetch. It returns false when a full list has come meanwhile: ask again.
func (f *exportFeed) fetchedAll(key mcs.ServiceKey, mine *fetch, service *corev1.Service, list []discoveryv1.EndpointSlice) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.held[key]
	if h == nil || h.fetch != mine {
		return true
	}
	if mine.lists != f.lists {
		*mine = fetch{lists: f.lists, passed: map[string]uint64{}}
		return false
	}
	h.fetch = nil
	delete(f.fetching, key)
	f.fetches++
	h.fetched = f.fetches
	if service != nil {
		it := f.serviceItem(service)
		h.doubtful = h.doubtful || it.doubtful
		deleted := mine.serviceGone != nil && it.version <= *mine.serviceGone
		if !deleted && it.version >= h.service.version() {
			h.service = fetched[*mcs.ServiceSpec]{it.fact.(*mcs.ServiceSpec), watched(it.version) | byFetch}
		}
	}
	for i := range list {
		f.fetchedSlice(key, h, mine, &list[i])
	}
	f.tell(key, h, time.Time{})
	f.mind(key)
	return true
}

func (f *exportFeed) fetchedSlice(key mcs.ServiceKey, h *held, mine *fetch, s *discoveryv1.EndpointSlice) {
	it := f.sliceItem(s)
	h.doubtful = h.doubtful || it.key == key && it.doubtful
	if it.key != key || it.fact == nil {
		return
	}
	if seen, ok := mine.passed[it.name]; ok && it.version <= seen {
		return
	}
	if at, there := h.find(it.name); there && h.slices[at].version() >= it.version {
		return
	}
	if owner, there := f.ownerOf(it.id()); there && owner != key && !f.takeSlice(owner, it) {
		return
	}
	f.putSlice(h, it, watched(it.version)|byFetch, nil)
}
