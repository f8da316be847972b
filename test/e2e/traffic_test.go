package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// A hundredth of the services is exported. Endpoints of the others change.
const (
	traffic         = "traffic" // a namespace
	trafficServices = 1000
	trafficExported = trafficServices / 100
	trafficChanges  = 2000
	// trafficShare is how much of what a watch of all EndpointSlices costs may be sent to us.
	trafficShare = 0.05
)

// TestEndpointsThatAreNotExportedAreNotSent counts the bytes of EndpointSlices that an API server sends to the server while
// those of services change which the cluster does not export, and those that it sends to somebody who watches all. The count
// is the API server's own.
func TestEndpointsThatAreNotExportedAreNotSent(t *testing.T) {
	must(t, north.Namespace(t.Context(), traffic))
	must(t, east.Namespace(t.Context(), traffic))
	t.Cleanup(func() {
		slices := north.Core.DiscoveryV1().EndpointSlices(traffic)
		must(t, slices.DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{}))
		for i := range trafficExported {
			must(t, north.Unexport(context.Background(), traffic, service(i)))
			must(t, north.Core.CoreV1().Services(traffic).Delete(context.Background(), service(i), metav1.DeleteOptions{}))
		}
	})
	side(trafficServices, func(i int) {
		must(t, north.Slice(t.Context(), endpoints(i, 0).Slice()))
		if i < trafficExported {
			_, err := north.Service(t.Context(), endpoints(i, 0).Service())
			must(t, err)
			must(t, north.Export(t.Context(), traffic, service(i)))
		}
	})

	change := 0
	churn := func() {
		change++
		side(trafficChanges, func(i int) {
			must(t, north.UpdateSlice(t.Context(), endpoints(trafficExported+i%(trafficServices-trafficExported), change+i).Slice()))
		})
		must(t, north.UpdateSlice(t.Context(), endpoints(0, change).Slice()))
	}
	// The API server watches its own EndpointSlices too.
	begin := sliceBytes(t)
	churn()
	itself := sliceBytes(t) - begin

	begin = sliceBytes(t)
	s := run(t, corefile(stanza([]cluster{east, north})))
	ready(t, s)
	last := func(ctx context.Context) error {
		m, err := s.Query(ctx, fmt.Sprintf("%s.%s.svc.%s", service(0), traffic, zone), dns.TypeA)
		if err != nil {
			return err
		}
		if want := endpoints(0, change).Addresses[0]; !strings.Contains(m.String(), want) {
			return fmt.Errorf("%v, want %s", m.Answer, want)
		}
		return nil
	}
	within(t, limit, "what was there before", last)
	churn()
	within(t, limit, "the last change of an export", last)
	ours := sliceBytes(t) - begin - itself

	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	config := north.Admin()
	config.ContentType = runtime.ContentTypeProtobuf // as we do
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	all := cache.NewListWatchFromClient(client.DiscoveryV1().RESTClient(), "endpointslices", corev1.NamespaceAll, fields.Everything())
	begin = sliceBytes(t)
	watching.Go(func() { cache.NewReflector(all, nil, store, 0).RunWithContext(ctx) })
	t.Cleanup(func() {
		stop()
		watching.Wait()
	})
	within(t, limit, "all slices are listed", func(context.Context) error {
		if n := len(store.List()); n < trafficServices {
			return fmt.Errorf("%d of them", n)
		}
		return nil
	})
	churn()
	within(t, limit, "the last change, by a watch of all", func(context.Context) error {
		o, _, err := store.GetByKey(traffic + "/" + service(0))
		if err != nil {
			return err
		}
		if got, want := o.(*discoveryv1.EndpointSlice).Endpoints[0].Addresses[0], endpoints(0, change).Addresses[0]; got != want {
			return fmt.Errorf("%s, want %s", got, want)
		}
		return nil
	})
	whole := sliceBytes(t) - begin - itself // and what we were sent of the second half
	share := ours / (whole - ours)
	t.Logf("EndpointSlices: %.0f kB sent to us, %.0f kB to who watches all: %.3f", ours/1000, (whole-ours)/1000, share)
	if share > trafficShare {
		t.Errorf("The share is %.3f, want %.2f at most", share, trafficShare)
	}
}

func service(i int) string { return fmt.Sprintf("traffic-%04d", i) }

// endpoints are those of a service after so many changes.
func endpoints(i, change int) kube.Simple {
	s := kube.Simple{Namespace: traffic, Name: service(i), Headless: true}
	for n := range 5 {
		s.Addresses = append(s.Addresses, fmt.Sprintf("10.%d.%d.%d", 100+n, change%250, i%250))
	}
	return s
}

// side does something n times, some of them side by side.
func side(n int, do func(i int)) {
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := w; i < n; i += 8 {
				do(i)
			}
		})
	}
	workers.Wait()
}

// sliceBytes is how much of EndpointSlices north's API server has sent in lists and watches so far.
func sliceBytes(t *testing.T) (sum float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	text, err := north.Core.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	must(t, err)
	lines := bufio.NewReader(bytes.NewReader(text))
	for {
		line, err := lines.ReadString('\n')
		watched := strings.HasPrefix(line, "apiserver_watch_events_sizes_sum{") && strings.Contains(line, `resource="endpointslices"`)
		listed := strings.HasPrefix(line, "apiserver_response_sizes_sum{") && strings.Contains(line, `resource="endpointslices"`) && strings.Contains(line, `verb="LIST"`)
		if watched || listed {
			var value float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum += value
		}
		if err == io.EOF {
			return sum
		}
	}
}
