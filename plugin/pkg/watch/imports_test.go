package watch

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

func serviceImport(name, kind string, ips ...string) *mcsv1beta1.ServiceImport {
	return &mcsv1beta1.ServiceImport{ObjectMeta: meta("shop", name),
		Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ServiceImportType(kind), IPs: ips}}
}

func importedSlice(name, of, from string, addrs ...string) *discoveryv1.EndpointSlice {
	s := slice("shop", name, "derived-1", addrs...)
	s.Labels[labelImportName], s.Labels[labelSourceCluster] = of, from
	return s
}

// sketchImport says what an import and its slices have.
func sketchImport(s *mcs.ImportShard) string {
	if s == nil {
		return nothing
	}
	text := s.Import.Type.String()
	for _, ip := range s.Import.IPs {
		if ip.IsValid() {
			text += " " + ip.String()
		}
	}
	for _, slice := range s.Slices {
		text += fmt.Sprintf(" %s@%s", slice.Name, slice.Source)
		for _, e := range slice.Endpoints.All() {
			text += " " + e.Addr.String()
		}
	}
	return text
}

func newImports(t *testing.T) (*importFeed, *told) {
	t.Helper()
	sink := newTold()
	sink.t = t
	f := testWatcher(t, mcs.Imports, sink, clients{}).feed.(*importFeed)
	f.subscribe(sink)
	return f, sink
}

// list passes on a full list as the store does.
func list[T any](compact func(any) any, replace func([]any), all ...T) {
	items := []any{}
	for _, o := range all {
		items = append(items, compact(o))
	}
	replace(items)
}

func (f *importFeed) list(imports []*mcsv1beta1.ServiceImport, all []*discoveryv1.EndpointSlice) {
	list(f.compactImport, f.replaceImports, imports...)
	list(f.compactSlice, f.replaceSlices, all...)
}

func TestImportFeed(t *testing.T) {
	headless := func(name string) *mcsv1beta1.ServiceImport { return serviceImport(name, "Headless") }
	for _, tc := range []struct {
		name string
		play func(f *importFeed, sink *told)
		a, b string
		left rejections
	}{
		{"a ClusterSetIP import", func(f *importFeed, _ *told) {
			f.setImport(serviceImport("a", "ClusterSetIP", "172.30.0.1"))
		}, "ClusterSetIP 172.30.0.1", nothing, nil},
		{"slices before their import wait for it", func(f *importFeed, sink *told) {
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			if len(sink.imports) != 0 {
				sink.t.Error("They were told")
			}
			f.setImport(headless("a"))
		}, "Headless s@west 10.9.0.1", nothing, nil},
		{"an import that goes leaves its slices for the next one", func(f *importFeed, sink *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.removeImport(headless("a"))
			if len(sink.imports) != 0 {
				sink.t.Error("It was not told to be gone")
			}
			f.setImport(headless("a"))
		}, "Headless s@west 10.9.0.1", nothing, nil},
		{"a slice that goes", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.removeSlice(importedSlice("s", "a", "west", "10.9.0.1"))
		}, "Headless", nothing, nil},
		{"a slice that changes", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.setSlice(importedSlice("s", "a", "east.eu", "10.9.0.2"))
		}, "Headless s@east.eu 10.9.0.2", nothing, nil},
		{"a slice that moves between services when its label changes", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setImport(headless("b"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.setSlice(importedSlice("s", "b", "west", "10.9.0.1"))
		}, "Headless", "Headless s@west 10.9.0.1", nil},
		{"a slice that loses its source cluster goes", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.setSlice(importedSlice("s", "a", "", "10.9.0.1"))
		}, "Headless", nothing, rejections{BadSource}},
		{"a slice from a cluster whose id is no id", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "we_st", "10.9.0.1"))
			f.setSlice(importedSlice("u", "a", "a.b.c", "10.9.0.1"))
		}, "Headless", nothing, rejections{BadSource, BadSource}},
		{"a slice of a service whose name is none", func(f *importFeed, _ *told) {
			f.setSlice(importedSlice("s", "", "west", "10.9.0.1"))
			f.setSlice(importedSlice("s", "A", "west", "10.9.0.1"))
		}, nothing, nothing, rejections{BadName, BadName}},
		{"a slice that has no IP addresses", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			o := importedSlice("s", "a", "west", "example.org")
			o.AddressType = discoveryv1.AddressTypeFQDN
			f.setSlice(o)
		}, "Headless", nothing, rejections{BadAddressType}},
		{"an import of unknown type is none", func(f *importFeed, _ *told) {
			f.setImport(serviceImport("a", "Nonsense"))
		}, nothing, nothing, rejections{BadType}},
		{"an import that becomes unknown goes", func(f *importFeed, _ *told) {
			f.setImport(serviceImport("a", "ClusterSetIP", "172.30.0.1"))
			f.setImport(serviceImport("a", "Nonsense"))
		}, nothing, nothing, rejections{BadType}},
		{"an import of another version", func(f *importFeed, _ *told) {
			o := &mcsv1alpha1.ServiceImport{ObjectMeta: meta("shop", "a")}
			o.Spec.Type, o.Spec.IPs = mcsv1alpha1.ClusterSetIP, []string{"172.30.0.1"}
			f.setImport(o)
		}, "ClusterSetIP 172.30.0.1", nothing, nil},
		{"a full list drops what it lacks", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.setImport(headless("b"))
			f.setSlice(importedSlice("u", "b", "west", "10.9.0.2"))
			f.list([]*mcsv1beta1.ServiceImport{headless("b")}, []*discoveryv1.EndpointSlice{importedSlice("s", "b", "west", "10.9.0.3")})
		}, nothing, "Headless s@west 10.9.0.3", nil},
		{"a full list that says the same is not told", func(f *importFeed, sink *told) {
			f.list([]*mcsv1beta1.ServiceImport{headless("a")}, []*discoveryv1.EndpointSlice{importedSlice("s", "a", "west", "10.9.0.1")})
			before := sink.calls
			f.list([]*mcsv1beta1.ServiceImport{headless("a")}, []*discoveryv1.EndpointSlice{importedSlice("s", "a", "west", "10.9.0.1")})
			if sink.calls != before {
				sink.t.Errorf("It was told %d times", sink.calls-before)
			}
		}, "Headless s@west 10.9.0.1", nothing, nil},
		{"objects that do not belong here are ignored", func(f *importFeed, _ *told) {
			pod := &corev1.Pod{ObjectMeta: meta("shop", "x")}
			for _, set := range []func(any){f.setImport, f.setSlice, f.removeImport, f.removeSlice} {
				set(pod)
				set("no object at all")
			}
			list(f.compactImport, f.replaceImports, metav1.Object(pod))
			list(f.compactSlice, f.replaceSlices, metav1.Object(pod))
		}, nothing, nothing, nil},
		{"the CRDs go", func(f *importFeed, _ *told) {
			f.setImport(headless("a"))
			f.setSlice(importedSlice("s", "a", "west", "10.9.0.1"))
			f.clear()
		}, nothing, nothing, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, sink := newImports(t)
			f.list(nil, nil)
			tc.play(f, sink)
			for name, want := range map[string]string{"a": tc.a, "b": tc.b} {
				if got := sketchImport(sink.imports[mcs.ServiceKey{Namespace: "shop", Name: name}]); got != want {
					t.Errorf("Import %s is %q, want %q", name, got, want)
				}
			}
			if !slices.Equal(sink.left, tc.left) {
				t.Errorf("Counted %v, want %v", sink.left, tc.left)
			}
			f.checkSize(t)
		})
	}
}

// checkSize compares the counts with what is held.
func (f *importFeed) checkSize(t *testing.T) {
	t.Helper()
	services, endpoints, owned := 0, 0, 0
	for key, h := range f.held {
		if h.imp == nil && len(h.slices) == 0 {
			t.Errorf("Nothing is held of %s, and yet there is an entry", key)
		}
		owned += len(h.slices)
		if h.imp == nil {
			continue
		}
		services++
		for _, s := range h.slices {
			endpoints += s.Endpoints.Len()
		}
	}
	if s, e := f.size(); s != services || e != endpoints {
		t.Errorf("Counted %d services and %d endpoints, want %d and %d", s, e, services, endpoints)
	}
	if len(f.owner) != owned {
		t.Errorf("%d slices have owners, want %d", len(f.owner), owned)
	}
}

func TestImportFeedSync(t *testing.T) {
	for _, order := range []string{"imports first", "slices first"} {
		t.Run(order, func(t *testing.T) {
			f, sink := newImports(t)
			f.setImport(serviceImport("a", "Headless")) // events before the lists are not told
			steps := []func(){
				func() { list(f.compactImport, f.replaceImports, serviceImport("a", "Headless")) },
				func() { list(f.compactSlice, f.replaceSlices, importedSlice("s", "a", "west", "10.9.0.1")) },
			}
			if order == "slices first" {
				slices.Reverse(steps)
			}
			steps[0]()
			if sink.calls != 0 || f.synced() {
				t.Error("Something was told before both lists were there")
			}
			steps[1]()
			if got := sketchImport(sink.imports[a]); got != "Headless s@west 10.9.0.1" {
				t.Errorf("Got %q", got)
			}
			if sink.calls != 2 || !f.synced() || sink.synced[0].Kind != mcs.Imports {
				t.Errorf("Told %d times, synced %v", sink.calls, sink.synced)
			}
			late := newTold()
			f.subscribe(late)
			if len(late.imports) != 1 || len(late.synced) != 1 {
				t.Errorf("A late subscriber was told %v, %v", late.imports, late.synced)
			}
			f.unsubscribe(late)
			f.removeImport(serviceImport("a", "Headless"))
			if len(late.imports) != 1 || len(sink.imports) != 0 {
				t.Error("The wrong one was told")
			}
		})
	}
}

// TestImportFeedAtRandom compares the feed with a plain picture of the objects after random events and lists.
func TestImportFeedAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		f, sink := newImports(t)
		imports, all := map[string]*mcsv1beta1.ServiceImport{}, map[string]*discoveryv1.EndpointSlice{}
		for step := range 60 {
			name := string(rune('a' + random.IntN(2)))
			switch random.IntN(6) {
			case 0:
				imports[name] = serviceImport(name, []string{"Headless", "ClusterSetIP", "Nonsense"}[random.IntN(3)])
				f.setImport(imports[name])
			case 1:
				delete(imports, name)
				f.removeImport(serviceImport(name, "Headless"))
			case 2, 3:
				id := fmt.Sprint("s", random.IntN(3))
				all[id] = importedSlice(id, name, []string{"east", "west", "?"}[random.IntN(3)], fmt.Sprint("10.0.0.", 1+step))
				f.setSlice(all[id])
			case 4:
				id := fmt.Sprint("s", random.IntN(3))
				delete(all, id)
				f.removeSlice(importedSlice(id, name, "east"))
			default:
				f.list(slices.Collect(maps.Values(imports)), slices.Collect(maps.Values(all)))
			}
		}
		f.list(slices.Collect(maps.Values(imports)), slices.Collect(maps.Values(all)))
		for _, name := range []string{"a", "b"} {
			want := nothing
			if o := imports[name]; o != nil && o.Spec.Type != "Nonsense" {
				want = string(o.Spec.Type)
				for _, id := range slices.Sorted(maps.Keys(all)) {
					if s := all[id]; s.Labels[labelImportName] == name && s.Labels[labelSourceCluster] != "?" {
						want += fmt.Sprintf(" %s@%s %s", id, s.Labels[labelSourceCluster], strings.Join(s.Endpoints[0].Addresses, " "))
					}
				}
			}
			if got := sketchImport(sink.imports[mcs.ServiceKey{Namespace: "shop", Name: name}]); got != want {
				t.Fatalf("Import %s is %q, want %q", name, got, want)
			}
		}
		f.checkSize(t)
	}
}

func TestNamespaceFeed(t *testing.T) {
	namespace := func(name string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	identity := func(o any) any { return identify(o) }
	sink := newTold()
	f := testWatcher(t, mcs.Namespaces, sink, clients{}).feed.(*namespaceFeed)
	f.subscribe(sink)
	has := func(when string, want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(sink.namespaces)); !slices.Equal(got, want) {
			t.Errorf("%s: namespaces %v, want %v", when, got, want)
		}
	}
	if f.synced() {
		t.Error("Synced before a list")
	}
	list(identity, f.replace, namespace("a"), namespace("b"))
	has("After the first list", "a", "b")
	if !f.synced() || len(sink.synced) != 1 || sink.synced[0] != (mcs.Source{Kind: mcs.Namespaces, Cluster: "east"}) {
		t.Errorf("Synced: %v", sink.synced)
	}
	before := sink.calls
	f.set(namespace("a"))
	f.remove(namespace("c"))
	list(identity, f.replace, namespace("b"), namespace("a"))
	if sink.calls != before {
		t.Error("What was known was told again")
	}
	f.set(namespace("c"))
	f.remove(namespace("a"))
	has("After events", "b", "c")
	f.clear()
	has("There is no API server without namespaces", "b", "c")
	late := newTold()
	f.subscribe(late)
	if len(late.namespaces) != 2 || len(late.synced) != 1 {
		t.Errorf("A late subscriber was told %v, %v", late.namespaces, late.synced)
	}
	f.unsubscribe(late)
	list(identity, f.replace, namespace("d"))
	has("After another list", "d")
	if len(late.namespaces) != 2 || len(sink.synced) != 1 {
		t.Error("The wrong one was told, or Synced twice")
	}
	if s, e := f.size(); s != 0 || e != 0 {
		t.Errorf("Size is %d, %d", s, e)
	}
}
