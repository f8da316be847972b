package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// A service as large as any: so many slices of a hundred endpoints each.
const (
	largeSlices = 200
	largeGap    = 250 * time.Millisecond // between two answers to a client that asks again at once
)

// TestLargeEventsNeverStopAnswers lets 20,000 endpoints of one service come, change and go, while somebody asks for another
// name without a pause.
func TestLargeEventsNeverStopAnswers(t *testing.T) {
	plain, err := server.Build(t.Context(), os.Stderr)
	must(t, err)
	export(t, east, "beside", "10.1.0.1")
	s, err := server.Start(t.Context(), plain, corefile(stanza([]cluster{east})), server.Options{})
	must(t, err)
	t.Cleanup(func() { stopped(t, s) })
	ready(t, s)
	within(t, limit, "the other name", answers(s, name("beside"), 1))

	_, err = east.Service(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "large"},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}})
	must(t, err)
	must(t, east.Export(t.Context(), namespace, "large"))
	ctx, stop := context.WithCancel(t.Context())
	var (
		client   sync.WaitGroup
		asked    int
		longest  time.Duration
		failures []string
	)
	client.Go(func() {
		conn, err := dns.Dial("udp", s.Addr())
		if err != nil {
			failures = append(failures, err.Error())
			return
		}
		defer conn.Close()
		for ctx.Err() == nil {
			began := time.Now()
			if m, err := exchange(conn, name("beside")); err != nil || len(m.Answer) != 1 {
				failures = append(failures, fmt.Sprint(m, err))
			}
			asked++
			longest = max(longest, time.Since(began))
		}
	})
	all := func(do func(i int)) {
		var workers sync.WaitGroup
		for w := range 8 {
			workers.Go(func() {
				for i := w; i < largeSlices; i += 8 {
					do(i)
				}
			})
		}
		workers.Wait()
	}
	slices := east.Core.DiscoveryV1().EndpointSlices(namespace)
	sliceOf := func(i int, ready bool) *discoveryv1.EndpointSlice {
		out := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("large-%d", i), Labels: map[string]string{"kubernetes.io/service-name": "large"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: new(int32(80))}},
		}
		for n := range 100 {
			out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.77.%d.%d", i, n+1)}, Conditions: discoveryv1.EndpointConditions{Ready: new(ready)},
			})
		}
		return out
	}
	endpoints := []string{"cluster", "east", "source", "exports"}
	all(func(i int) {
		if _, err := slices.Create(t.Context(), sliceOf(i, true), metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	})
	within(t, limit, "all endpoints are known", func(ctx context.Context) error {
		n, err := metric(ctx, s, "coredns_clusterset_member_endpoints", endpoints...)
		if err == nil && n < 100*largeSlices {
			err = fmt.Errorf("%.0f endpoints", n)
		}
		return err
	})
	all(func(i int) { must(t, east.UpdateSlice(t.Context(), sliceOf(i, i%2 == 0))) })
	all(func(i int) {
		if err := slices.Delete(t.Context(), fmt.Sprintf("large-%d", i), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	within(t, limit, "they have gone", func(ctx context.Context) error {
		n, err := metric(ctx, s, "coredns_clusterset_member_endpoints", endpoints...)
		if err == nil && n >= 100 {
			err = fmt.Errorf("%.0f endpoints", n)
		}
		return err
	})
	stop()
	client.Wait()
	t.Logf("%d endpoints came, changed and went; %d queries beside, the longest took %s", 100*largeSlices, asked, longest.Round(time.Microsecond))
	if len(failures) > 0 {
		t.Errorf("%d of %d queries were not answered: %q", len(failures), asked, failures[0])
	}
	if longest > largeGap {
		t.Errorf("the longest took %s, want %s at most", longest, largeGap)
	}
}
