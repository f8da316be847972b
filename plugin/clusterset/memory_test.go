package clusterset

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// The world whose memory is measured, and what each of its services may take: what the cluster said and what that was merged
// to, and in addition the records of an answer.
const (
	memoryServices  = 2000
	memoryEndpoints = 5
	memoryFacts     = 1450 // bytes per service
	memoryPrepared  = 870  // bytes per service that was asked for
)

// TestMemoryPerService counts bytes of live heap. The API server stands in the same heap, and is counted before.
func TestMemoryPerService(t *testing.T) {
	api := watchtest.NewVirtual(1)
	put := func(resource string, o apiruntime.Object) {
		if _, err := api.Put(resource, o); err != nil {
			t.Fatal(err)
		}
	}
	put("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	for i := range memoryServices {
		meta := metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("service-%04d", i)}
		put("serviceexports", &mcsv1beta1.ServiceExport{ObjectMeta: meta})
		ip := corev1.ClusterIPNone
		if i%2 == 0 {
			ip = fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		}
		put("services", &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}})
		put("endpointslices", memorySlice(meta, i))
	}
	config := configOf(t, "east")
	connection, err := watch.NewConnection(&rest.Config{Host: "http://east", Transport: api})
	if err != nil {
		t.Fatal(err)
	}
	config.members[0].connection = connection
	s := newTestStore(t)
	before := liveHeap()
	w, _ := s.mustAcquire(t, &lease.Tenant{}, config)
	for deadline := time.Now().Add(time.Minute); w.snapshot.Load().Len() < memoryServices; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d services are known", w.snapshot.Load().Len())
		}
	}
	known := liveHeap()
	c := handlerOf(w)
	for i := range memoryServices {
		from(t, c, new(dns.Msg).SetQuestion(fmt.Sprintf("service-%04d.shop.svc.clusterset.local.", i), dns.TypeA), "10.0.0.1")
	}
	asked := liveHeap()
	for _, row := range []struct {
		what      string
		got, most int
	}{
		{"facts and the snapshot", (known - before) / memoryServices, memoryFacts},
		{"what is prepared", (asked - known) / memoryServices, memoryPrepared},
	} {
		t.Logf("%s: %d bytes per service", row.what, row.got)
		if row.got > row.most {
			t.Errorf("%s: %d bytes per service, want %d at most", row.what, row.got, row.most)
		}
	}
	runtime.KeepAlive(api)
}

func memorySlice(meta metav1.ObjectMeta, i int) *discoveryv1.EndpointSlice {
	port, name, node, zone, ready := int32(8080), "http", fmt.Sprint("node-", i%50), fmt.Sprint("eu-", i%3), true
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
	meta.Name += "-abcde"
	out := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	for e := range memoryEndpoints {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 100+e, i/250, i%250)}, NodeName: &node, Zone: &zone,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprint(meta.Name, e), UID: types.UID(fmt.Sprintf("6f9619ff-8b86-d011-b42d-%06d%06d", i, e))},
		})
	}
	return out
}

// liveHeap is how many bytes are needed now.
func liveHeap() int {
	var m runtime.MemStats
	for range 3 { // finalizers and pools take more than one
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc) //nolint:gosec // far below 2^63
}

// TestTheMemoryOfTheFirstListsIsGivenBackOnce looks at what a world has done after each change: nothing before all sources have
// told what they know, and nothing a second time.
func TestTheMemoryOfTheFirstListsIsGivenBackOnce(t *testing.T) {
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	for _, row := range []struct {
		name     string
		services int
		want     uint32
	}{
		{"a large world", muchToTidy, 1},
		{"a small world is not worth it", muchToTidy - 1, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newTestWorld(mcs.Scope{Members: membersOf("east")}, func(w *world) {
				for i := range row.services {
					w.shard("east", "shop", fmt.Sprint("web-", i), clusterIPShard("10.0.0.1"))
				}
			})
			before := forced()
			w.publish()
			w.done.Wait()
			if n := forced() - before; n != 0 {
				t.Errorf("%d collections before the cluster has told all", n)
			}
			w.allSynced()
			for i := range 3 {
				w.shard("east", "shop", "web-0", clusterIPShard(fmt.Sprint("10.0.1.", i)))
				w.publish()
			}
			w.done.Wait()
			if n := forced() - before; n != row.want {
				t.Errorf("%d collections, want %d", n, row.want)
			}
		})
	}
}
