package members

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a world that a test can look at in full.
var small = World{Members: 2, Services: 20, Endpoints: 3}

func start(t *testing.T, w World) *Server {
	t.Helper()
	s, err := Start(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// config returns a configuration that shares its connections with no other test.
func config(t *testing.T, m *Member, media string) *rest.Config {
	t.Helper()
	path := t.TempDir() + "/kubeconfig"
	if err := m.Kubeconfig(path, ClientName(1)); err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	c.ContentType, c.AcceptContentTypes, c.QPS = media, media, -1
	return c
}

func clientOf(t *testing.T, m *Member, media string) kubernetes.Interface {
	t.Helper()
	c := config(t, m, media)
	http, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.CloseIdleConnections)
	client, err := kubernetes.NewForConfigAndClient(c, http)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// informer follows the EndpointSlices of a member as every client of client-go does: when it is refused to have the list streamed,
// it asks for a full one.
type informer struct{ cache.SharedIndexInformer }

func follow(t *testing.T, client kubernetes.Interface, selector string) *informer {
	t.Helper()
	lists := cache.NewFilteredListWatchFromClient(client.DiscoveryV1().RESTClient(), "endpointslices", "", func(o *metav1.ListOptions) { o.LabelSelector = selector })
	i := &informer{cache.NewSharedIndexInformer(
		cache.ToListWatcherWithWatchListSemantics(lists, client.DiscoveryV1().RESTClient()), &discoveryv1.EndpointSlice{}, 0, nil)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { i.RunWithContext(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	eventually(t, "the first list", i.HasSynced)
	return i
}

// first returns the first address of a service, as the informer knows it.
func (i *informer) first(m *Member, service int) string {
	namespace, name := m.serviceName(service)
	o, there, err := i.GetStore().GetByKey(namespace + "/" + name + "-x7k2p")
	if err != nil || !there {
		return ""
	}
	return o.(*discoveryv1.EndpointSlice).Endpoints[0].Addresses[0]
}

func TestInformers(t *testing.T) {
	tests := []struct {
		name, media, selector string
		slices                int
	}{
		{"everything in protobuf", mediaProtobuf, "", 20},
		{"everything in JSON", mediaJSON, "", 20},
		{"a selector takes what it names", mediaProtobuf, discoveryv1.LabelServiceName + " in (svc-0,svc-4-1)", 2},
		{"a selector that nothing matches", mediaProtobuf, "a,!a", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := start(t, small).Members()[1]
			moved := m.Move(4) // before the list
			i := follow(t, clientOf(t, m, test.media), test.selector)
			if n := len(i.GetStore().List()); n != test.slices {
				t.Fatalf("%d EndpointSlices, want %d", n, test.slices)
			}
			if test.slices == 0 {
				return
			}
			if got := i.first(m, 4); got != moved.String() {
				t.Errorf("%s, want %s as it was moved before the list", got, moved)
			}
			if got, want := i.first(m, 0), small.Address(1, 0, 0).String(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			m.Move(7) // not selected everywhere
			moved = m.Move(4)
			eventually(t, "a change by the watch", func() bool { return i.first(m, 4) == moved.String() })
			if n := len(i.GetStore().List()); n != test.slices {
				t.Errorf("%d EndpointSlices after a change, want %d", n, test.slices)
			}
		})
	}
}

// TestRestart: after a restart a client learns what it has missed, which it can only by a new list, since the server has
// forgotten what happened before. What it asks is counted.
func TestRestart(t *testing.T) {
	s := start(t, small)
	m := s.Members()[0]
	i := follow(t, clientOf(t, m, mediaProtobuf), "")
	eventually(t, "a watch", func() bool { return m.Watches() == 1 })
	m.Down()
	moved := m.Move(3)
	eventually(t, "the end of the watch", func() bool { return m.Watches() == 0 })
	if c, err := net.Dial("tcp", m.door.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, %v: no refusal", c, err)
	}
	seen := len(s.Traffic())
	if got := i.first(m, 3); got == moved.String() {
		t.Error("a change got through to who is not connected")
	}
	up(t, m)
	eventually(t, "the change after the restart", func() bool { return i.first(m, 3) == moved.String() })
	kinds := map[Kind]int{}
	for _, traffic := range s.Traffic()[seen:] {
		kinds[traffic.Kind]++
	}
	if kinds[Connection] == 0 || kinds[Request] == 0 || kinds[Watch] == 0 {
		t.Errorf("%v was seen after the restart", kinds)
	}
}

func up(t *testing.T, m *Member) {
	t.Helper()
	if err := m.Up(); err != nil {
		t.Fatal(err)
	}
}

func TestWatches(t *testing.T) {
	m := start(t, small).Members()[0]
	moved := m.Move(5)
	tests := []struct {
		name    string
		version string
		forget  bool
		want    []watch.EventType
	}{
		{"from a version on it tells what has happened since", "1000", false, []watch.EventType{watch.Modified}},
		{"without a version it begins with what there is", "", false, []watch.EventType{watch.Added, watch.Added}},
		{"from a version that is forgotten it is an error", "1000", true, []watch.EventType{watch.Error}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.forget {
				m.Down()
				up(t, m)
			}
			w, err := clientOf(t, m, mediaProtobuf).DiscoveryV1().EndpointSlices("team5").Watch(t.Context(), metav1.ListOptions{ResourceVersion: test.version})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			for _, want := range test.want {
				got := <-w.ResultChan()
				if got.Type != want {
					t.Fatalf("%s, want %s: %v", got.Type, want, got.Object)
				}
				if want == watch.Error {
					if err := apierrors.FromObject(got.Object); !apierrors.IsResourceExpired(err) {
						t.Errorf("%v is no 410", err)
					}
				}
				if slice, ok := got.Object.(*discoveryv1.EndpointSlice); ok && want == watch.Modified && slice.Endpoints[0].Addresses[0] != moved.String() {
					t.Errorf("%v, want %s", slice.Endpoints[0].Addresses, moved)
				}
			}
		})
	}
}

// TestAWatchEndsInTime: a server ends watches after the time that the client has named.
func TestAWatchEndsInTime(t *testing.T) {
	m := start(t, small).Members()[0]
	second := int64(1)
	w, err := clientOf(t, m, mediaProtobuf).CoreV1().Services("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "1000", TimeoutSeconds: &second})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if event, open := <-w.ResultChan(); open {
		t.Errorf("an event %v", event)
	}
}

// TestLists asks for every resource in the ways of several clients.
func TestLists(t *testing.T) {
	m := start(t, small).Members()[1]
	ctx := t.Context()
	for _, media := range []string{mediaProtobuf, mediaJSON} {
		client := clientOf(t, m, media)
		count := func(list runtime.Object, err error) int {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			if err := eachItem(list, func() { n++ }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		all := metav1.ListOptions{}
		tests := []struct {
			name      string
			got, want int
		}{
			{"services", count(client.CoreV1().Services("").List(ctx, all)), 20},
			{"services of a namespace", count(client.CoreV1().Services("team3").List(ctx, all)), 2},
			{"services by name", count(client.CoreV1().Services("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "svc-3-1").String()})), 1},
			{"nothing, for a sign of life", count(client.CoreV1().Services("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=-"})), 0},
			{"endpointslices of a service", count(client.DiscoveryV1().EndpointSlices("team3").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=svc-3-1"})), 1},
			{"namespaces", count(client.CoreV1().Namespaces().List(ctx, all)), Namespaces},
			{"nodes", count(client.CoreV1().Nodes().List(ctx, all)), Nodes},
			{"service CIDRs", count(client.NetworkingV1().ServiceCIDRs().List(ctx, all)), 0},
		}
		for _, test := range tests {
			if test.got != test.want {
				t.Errorf("%s: %d %s, want %d", media, test.got, test.name, test.want)
			}
		}
		service, err := client.CoreV1().Services("team3").Get(ctx, "svc-3-1", metav1.GetOptions{})
		if err != nil || service.Spec.ClusterIP != small.ClusterIP(1, 3).String() {
			t.Errorf("%s: %v, %v", media, service, err)
		}
		if _, err := client.CoreV1().Services("team4").Get(ctx, "svc-3-1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v for a service that there is not", media, err)
		}
		if _, err := client.CoreV1().Secrets("").List(ctx, all); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v for a resource that there is not", media, err)
		}
	}
}

func eachItem(list runtime.Object, do func()) error {
	return meta.EachListItem(list, func(runtime.Object) error {
		do()
		return nil
	})
}

// TestPieces lists with a limit.
func TestPieces(t *testing.T) {
	m := start(t, small).Members()[0]
	client := clientOf(t, m, mediaProtobuf)
	seen := map[string]bool{}
	pieces := 0
	for o := (metav1.ListOptions{Limit: 7}); pieces == 0 || o.Continue != ""; pieces++ {
		list, err := client.CoreV1().Services("").List(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			seen[list.Items[i].Name] = true
		}
		o.Continue = list.Continue
	}
	if len(seen) != 20 || pieces != 3 {
		t.Errorf("%d services in %d pieces, want 20 in 3", len(seen), pieces)
	}
}

// TestExports reads what the members export, and metadata alone, as our server does.
func TestExports(t *testing.T) {
	m := start(t, small).Members()[0]
	c := config(t, m, mediaJSON)
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	exports, err := mcsclient.NewForConfigAndClient(c, client)
	if err != nil {
		t.Fatal(err)
	}
	list, err := exports.MulticlusterV1beta1().ServiceExports("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 20 || list.Items[3].Name != "svc-3-0" || list.Items[0].Name != "svc-0" {
		t.Fatalf("%v, %v", list, err)
	}
	partial, err := metadata.NewForConfigAndClient(metadata.ConfigFor(c), client)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := partial.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != Nodes || nodes.Items[0].Labels["topology.kubernetes.io/region"] != "eu" {
		t.Errorf("%v, %v", nodes, err)
	}
	w, err := partial.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if event := <-w.ResultChan(); event.Type != watch.Added {
		t.Errorf("%v", event)
	}
}

func TestDiscovery(t *testing.T) {
	m := start(t, small).Members()[0]
	client := clientOf(t, m, mediaProtobuf).Discovery()
	tests := []struct {
		name, version, has string
	}{
		{"the Multi-Cluster Services API", "multicluster.x-k8s.io/v1beta1", "serviceexports"},
		{"properties of clusters", "about.k8s.io/v1beta1", "clusterproperties"},
		{"ranges of services", "networking.k8s.io/v1", "servicecidrs"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			list, err := client.ServerResourcesForGroupVersion(test.version)
			if err != nil || len(list.APIResources) != 1 || list.APIResources[0].Name != test.has {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
	if err := client.RESTClient().Get().AbsPath("/apis/example.org").Do(t.Context()).Error(); !apierrors.IsNotFound(err) {
		t.Errorf("%v for a group that there is not", err)
	}
}

func TestUpdate(t *testing.T) {
	s := start(t, small)
	i := follow(t, clientOf(t, s.Members()[1], mediaProtobuf), "")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	n := 0
	running.Go(func() { n = s.Update(ctx, 500) })
	eventually(t, "a change of every service", func() bool {
		for service := range small.Services {
			if i.first(s.Members()[1], service) == small.Address(1, service, 0).String() {
				return false
			}
		}
		return true
	})
	cancel()
	running.Wait()
	if n < small.Services {
		t.Errorf("%d changes", n)
	}
}

func TestWorlds(t *testing.T) {
	for _, w := range []World{small, {Members: 100, Services: 1000, Endpoints: 10}, {Members: 3, Services: 8, Endpoints: 2, Same: true}} {
		addresses, names := map[netip.Addr]bool{}, map[string]bool{}
		for m := range w.Members {
			for s := range w.Services {
				names[w.FQDN(m, s, "clusterset.local.")] = true
				for e := range w.Endpoints {
					addresses[w.Address(m, s, e)] = true
				}
			}
		}
		if len(addresses) != w.Total() {
			t.Errorf("%+v: %d addresses for %d endpoints", w, len(addresses), w.Total())
		}
		want := w.Members*(w.Services-1) + 1
		if w.Same {
			want = w.Services
		}
		if len(names) != want {
			t.Errorf("%+v: %d names, want %d", w, len(names), want)
		}
	}
	bad := []World{{}, {Members: 1, Services: 1}, {Members: 1, Services: 1, Endpoints: 101}, {Members: 1 << 10, Services: 1 << 11, Endpoints: 1}}
	for _, w := range bad {
		if s, err := Start(w); err == nil {
			t.Errorf("%+v is a world: %v", w, s.Close())
		}
	}
	if name := small.EndpointFQDN(1, 3, small.Address(1, 3, 2), "clusterset.local."); !strings.HasPrefix(name, "10-0-0-71.m1.svc-3-1.team3.svc.") {
		t.Error(name)
	}
}

// TestWritingIsRefused: nobody is meant to write.
func TestWritingIsRefused(t *testing.T) {
	m := start(t, small).Members()[0]
	err := clientOf(t, m, mediaProtobuf).CoreV1().Services("team0").Delete(t.Context(), "svc-0", metav1.DeleteOptions{})
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusMethodNotAllowed {
		t.Errorf("%v", err)
	}
}
