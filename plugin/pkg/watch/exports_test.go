package watch

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

var (
	a = mcs.ServiceKey{Namespace: "shop", Name: "a"}
	b = mcs.ServiceKey{Namespace: "shop", Name: "b"}
	s = mcs.ServiceKey{Namespace: "shop", Name: "s"} // a slice
)

// sees compares what the sink was told of shop/a and shop/b so far.
func (m *model) sees(when, wantA, wantB string) {
	m.t.Helper()
	synctest.Wait()
	m.sink.look(func() {
		for key, want := range map[mcs.ServiceKey]string{a: wantA, b: wantB} {
			if got := sketch(m.sink.shards[key]); got != want {
				m.t.Errorf("%s: %s is %q, want %q", when, key, got, want)
			}
		}
	})
}

const (
	nothing   = "nothing"
	noService = "no service"
	oneIP     = "[10.0.0.1 invalid IP]"
	otherIP   = "[10.0.0.2 invalid IP]"
)

func TestExportFeed(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(m *model)
	}{
		{"nothing is told before all three lists are there", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			for _, k := range []kind{theExports, theServices} {
				m.listAll(k)
				if m.sink.calls != 0 || m.feed.synced() {
					m.t.Errorf("After list %d something was told", k)
				}
			}
			m.listAll(theSlices)
			m.sees("after the last list", oneIP+" s 10.8.0.1", nothing)
			if len(m.sink.synced) != 1 || m.sink.synced[0] != (mcs.Source{Cluster: "east"}) || !m.feed.synced() {
				m.t.Errorf("Synced: %v", m.sink.synced)
			}
		}},
		{"slices may be listed before services", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.listAll(theExports)
			m.listAll(theSlices)
			if m.sink.calls != 0 {
				m.t.Error("Something was told before the services were listed")
			}
			m.listAll(theServices)
			m.sees("at last", noService+" s 10.8.0.1", nothing)
		}},
		{"events between the lists are not told one by one", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.listAll(theExports)
			m.listAll(theServices)
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.events()
			if m.sink.calls != 0 {
				m.t.Error("An event was told before the slices were listed")
			}
			m.listAll(theSlices)
			m.sees("at last", oneIP, nothing)
		}},
		{"of what is not exported nothing is kept", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.sync()
			for i := range 50 {
				name := fmt.Sprint("n", i)
				m.set(theServices, service("shop", name, "10.0.0.9"))
				m.set(theSlices, slice("shop", name, name, "10.8.0.9"))
			}
			m.events()
			m.listAll(theServices)
			m.listAll(theSlices)
			if len(m.feed.held) != 1 || m.owners() != 0 || len(m.feed.held[a].slices) != 0 {
				m.t.Errorf("The feed holds %d services and %d slices", len(m.feed.held), m.owners())
			}
			if fact := m.feed.compactService(service("shop", "n0", "10.0.0.9")).(*item).fact; fact != nil {
				m.t.Errorf("Of a full list it would keep %v", fact)
			}
		}},
		{"an export with a bad name is none", func(m *model) {
			m.set(theExports, export("shop", "a.b"))
			m.sync()
			m.set(theExports, export("sh.op", "a"))
		}},
		{"a new export is fetched at once and told when it is whole", func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			calls := m.pending()
			if len(calls) != 2 || calls[0].what != "service shop/a" || calls[1].what != "slices shop kubernetes.io/service-name=a" {
				m.t.Fatalf("The requests are %v", calls)
			}
			m.answer(calls[0])
			m.sees("with half an answer", nothing, nothing)
			m.answer(calls[1])
			m.sees("with the answer", oneIP+" s 10.8.0.1", nothing)
		}},
		{"a new export without a Service is told too", func(m *model) {
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.fetch()
			m.sees("after the fetch", noService, nothing)
		}},
		{"an export that goes while it is fetched is never told", func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			m.pending()
			m.del(theExports, a)
			m.events()
			before := m.sink.calls
			m.fetch()
			if m.sink.calls != before {
				m.t.Error("It was told")
			}
		}},
		{"an export that goes and comes while it is fetched is fetched anew", func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			old := m.pending()[0]
			old.evaluate()
			m.del(theExports, a)
			m.set(theServices, service("shop", "a", "10.0.0.2"))
			m.set(theExports, export("shop", "a"))
			m.events()
			m.answer(old)
			m.sees("after the old answer", nothing, nothing)
			m.fetch()
			m.sees("after the new one", otherIP, nothing)
		}},
		{"a fetch that fails is made again", func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			first := m.pending()[0]
			first.err, first.asked = errModel, true
			m.answer(first)
			m.sees("after the failure", nothing, nothing)
			m.settle()
			m.sees("after another try", oneIP, nothing)
		}},
		{"a fetch that brings an older Service than the watch changes nothing", func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			call := m.pending()[0]
			call.evaluate()
			m.set(theServices, service("shop", "a", "10.0.0.2"))
			m.events()
			m.answer(call)
			m.fetch()
			m.sees("after the fetch", otherIP, nothing)
		}},
		{"a fetch that brings a newer Service than the watch is not undone by the events in between", func(m *model) {
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theServices, service("shop", "a", "10.0.0.2"))
			m.fetch()
			m.sees("after the fetch", otherIP, nothing)
			m.event(theServices)
			m.sees("after the older event", otherIP, nothing)
		}},
		{"a Service deleted while it is fetched does not come back", func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			call := m.pending()[0]
			call.evaluate()
			m.del(theServices, a)
			m.events()
			m.answer(call)
			m.fetch()
			m.sees("after the fetch", noService, nothing)
		}},
		{"a Service deleted and created anew before the fetch is not undone by the old deletion", func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.del(theServices, a)
			m.set(theServices, service("shop", "a", "10.0.0.2"))
			m.fetch()
			m.event(theServices)
			m.sees("after the old deletion", otherIP, nothing)
		}},
		{"a slice deleted while it is fetched does not come back", func(m *model) {
			m.set(theExports, export("other", "a")) // the watch covers the name
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.answer(m.pending()[0])
			call := m.pending()[0]
			call.evaluate()
			m.del(theSlices, s)
			m.events()
			m.answer(call)
			m.sees("after the fetch", noService, nothing)
		}},
		{"a slice that changes hands while it is fetched does not stay with the old service", func(m *model) {
			m.set(theExports, export("other", "a")) // the watch covers the name
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.answer(m.pending()[0])
			call := m.pending()[0]
			call.evaluate()
			m.set(theSlices, slice("shop", "s", "b", "10.8.0.1")) // b is not exported
			m.events()
			m.answer(call)
			m.sees("after the fetch", noService, nothing)
		}},
		{"what happens to slices that the watch does not cover yet is known once it does", func(m *model) {
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.fetch()
			m.sees("after the fetch", noService+" s 10.8.0.1", nothing)
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.2"))
			m.events()
			m.sees("after a change", noService+" s 10.8.0.1", nothing)
			if !m.feed.lacks() {
				m.t.Fatal("The feed does not want another selection")
			}
			m.listAll(theSlices)
			m.set(theSlices, slice("shop", "t", "a", "10.8.0.3"))
			m.events()
			m.fetch()
			m.sees("with another selection", noService+" s 10.8.0.2 t 10.8.0.3", nothing)
			if m.feed.lacks() {
				m.t.Error("The feed wants another selection still")
			}
		}},
		{"a slice that a fetch finds in other hands leaves the old service", func(m *model) {
			m.set(theExports, export("shop", "b"))
			m.set(theSlices, slice("shop", "s", "b", "10.8.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.fetch()
			m.sees("after the fetch", noService+" s 10.8.0.1", noService)
		}},
		{"a slice moves between services when its label changes", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theExports, export("shop", "b"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.sees("at first", noService+" s 10.8.0.1", noService)
			m.set(theSlices, slice("shop", "s", "b", "10.8.0.1"))
			m.events()
			m.sees("after the change", noService, noService+" s 10.8.0.1")
			m.set(theSlices, slice("shop", "s", "c", "10.8.0.1"))
			m.events()
			m.sees("in the hands of nobody", noService, noService)
		}},
		{"a slice that moved between two full lists can still be deleted", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theExports, export("shop", "b"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			for i := range 8 { // a map has no order, so once proves nothing
				from, to := "a", "b"
				if i%2 != 0 {
					from, to = to, from
				}
				m.set(theSlices, slice("shop", "s", from, "10.8.0.1"))
				m.events()
				m.set(theSlices, slice("shop", "s", to, "10.8.0.1"))
				m.listAll(theSlices)
				m.del(theSlices, s)
				m.events()
				m.sees("after the deletion", noService, noService)
			}
		}},
		{"a slice that becomes an imported copy goes", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			imported := slice("shop", "s", "a", "10.8.0.1")
			imported.Labels[labelImportName] = "a"
			m.set(theSlices, imported)
			m.events()
			m.sees("after the change", noService, nothing)
		}},
		{"imported copies are skipped in lists and fetches", func(m *model) {
			imported := slice("shop", "s", "a", "10.8.0.1")
			imported.Labels[labelImportName] = "a"
			m.set(theSlices, imported)
			m.set(theExports, export("shop", "a"))
			m.sync()
			m.sees("after the lists", noService, nothing)
			m.del(theExports, a)
			m.set(theExports, export("shop", "a"))
			m.events()
			m.fetch()
			m.sees("after the fetch", noService, nothing)
		}},
		{"a slice that loses its IP addresses goes, by an event or by a full list", func(m *model) {
			names := slice("shop", "s", "a", "example.org")
			names.AddressType = discoveryv1.AddressTypeFQDN
			m.set(theExports, export("shop", "a"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.set(theSlices, names)
			m.events()
			m.sees("after the event", noService, nothing)
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.events()
			m.sees("in between", noService+" s 10.8.0.1", nothing)
			m.set(theSlices, names.DeepCopy())
			m.listAll(theSlices)
			m.sees("after the list", noService, nothing)
		}},
		{"a full list drops what it lacks and keeps the rest", func(m *model) {
			for _, name := range []string{"a", "b"} {
				m.set(theExports, export("shop", name))
				m.set(theServices, service("shop", name, "10.0.0.1"))
				m.set(theSlices, slice("shop", "s-"+name, name, "10.8.0.1"))
			}
			m.sync()
			before := m.sink.calls
			m.listAll(theServices)
			m.listAll(theSlices)
			m.listAll(theExports)
			if m.sink.calls != before {
				m.t.Error("Lists that say the same were told again")
			}
			m.del(theServices, a)
			m.del(theSlices, mcs.ServiceKey{Namespace: "shop", Name: "s-b"})
			m.listAll(theServices)
			m.listAll(theSlices)
			m.sees("after the lists", noService+" s-a 10.8.0.1", oneIP)
			m.del(theExports, b)
			m.listAll(theExports)
			m.sees("after the list of exports", noService+" s-a 10.8.0.1", nothing)
		}},
		{"an export that a full list brings is fetched", func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.listAll(theExports)
			m.sees("after the list", nothing, nothing)
			m.fetch()
			m.sees("after the fetch", oneIP, nothing)
		}},
		{"a full list that began before a fetch finished does not undo it", func(m *model) {
			m.sync()
			m.relist(theServices, 0) // begun
			m.relist(theServices, 0) // evaluated: no Service yet
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			m.events()
			m.fetch()
			m.sees("after the fetch", oneIP, nothing)
			m.relist(theServices, 0)
			m.relist(theServices, 0)
			m.sees("after the list", oneIP, nothing)
			m.fetch()
			m.sees("after asking again", oneIP, nothing)
		}},
		{"a fetch that was answered before a full list, and arrives after it, is made again", func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.events()
			call := m.pending()[0]
			call.evaluate()
			m.del(theServices, a)
			m.del(theSlices, s)
			m.listAll(theServices) // the deletion is in the list, no event tells it
			m.listAll(theSlices)
			m.answer(call)
			m.fetch()
			m.sees("after the fetch", noService, nothing)
		}},
		{"etcd is restored: older resourceVersions in a full list are the truth, and so are the events after it", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theServices, service("shop", "a", "10.0.0.9"))
			m.sync()
			rv, old := m.snapshot()
			for range 5 {
				m.set(theServices, service("shop", "a", "10.0.0.2"))
				m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			}
			m.events()
			m.sees("before", otherIP+" s 10.8.0.1", nothing)
			m.restore(rv, old)
			m.settle()
			m.sees("after", "[10.0.0.9 invalid IP]", nothing)
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.events()
			m.sees("after an event", oneIP, nothing)
		}},
		{"etcd is restored after a fetch had brought the newest", func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theExports, export("shop", "a"))
			rv, old := m.snapshot()
			m.del(theExports, a)
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.set(theServices, service("shop", "a", "10.0.0.2"))
			for m.event(theExports) {
			}
			m.fetch()
			m.sees("before", otherIP, nothing)
			m.restore(rv, old)
			m.settle()
			m.set(theServices, service("shop", "a", "10.0.0.3"))
			m.events()
			m.sees("after", "[10.0.0.3 invalid IP]", nothing)
		}},
		{"a slice without a version, as no server sends, follows the order of events", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.sync()
			for _, version := range []string{"", "x", ""} {
				o := slice("shop", "s", "a", "10.8.0.1")
				o.ResourceVersion = version
				m.feed.setSlice(o)
				m.sees("set", noService+" s 10.8.0.1", nothing)
				m.feed.removeSlice(o)
				m.sees("removed", noService, nothing)
			}
		}},
		{"objects that do not belong here are ignored", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			pod := &corev1.Pod{ObjectMeta: meta("shop", "x")}
			for _, set := range []func(any){m.feed.setExport, m.feed.setService, m.feed.setSlice, m.feed.removeExport, m.feed.removeService, m.feed.removeSlice} {
				set(pod)
				set("no object at all")
			}
			for _, compact := range []func(any) any{m.feed.compactExport, m.feed.compactService, m.feed.compactSlice} {
				for _, o := range []any{pod, "no object at all", &item{}} {
					if _, ok := compact(o).(*item); !ok {
						m.t.Errorf("%T is no item afterwards", o)
					}
				}
			}
		}},
		{"the CRDs go: everything is forgotten, and told so", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.feed.clear()
			m.sees("after", nothing, nothing)
			if m.owners() != 0 {
				m.t.Error("A slice has an owner")
			}
			m.del(theExports, a)
			m.listAll(theExports)
		}},
		{"the CRDs come back: nothing is told before all three lists are there again", func(m *model) {
			m.set(theExports, export("shop", "a"))
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.feed.clear()
			m.listAll(theExports)
			m.fetch()
			m.sees("after the exports", nothing, nothing)
			m.listAll(theServices)
			m.sees("after the services", nothing, nothing)
			m.listAll(theSlices)
			m.fetch()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t)
				tc.play(m)
				m.settle()
				m.check()
			})
		})
	}
}

func TestFetchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.sync()
		for i := range 100 {
			m.set(theExports, export("shop", fmt.Sprint("n", i)))
		}
		m.events()
		if n := len(m.pending()); n != 2*cap(m.feed.requests) {
			t.Errorf("%d requests at once, want %d", n, 2*cap(m.feed.requests))
		}
		m.settle()
		m.check()
	})
}

func TestSubscribersOfAnExportFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		early, late := newTold(), newTold()
		m.feed.subscribe(early)
		if early.calls != 0 {
			t.Error("Before the first sync there is nothing to tell")
		}
		m.set(theExports, export("shop", "a"))
		m.sync()
		m.feed.subscribe(late)
		for _, sink := range []*told{early, late} {
			if len(sink.shards) != 1 || len(sink.synced) != 1 {
				t.Errorf("A subscriber was told %d services and synced %v", len(sink.shards), sink.synced)
			}
		}
		m.feed.unsubscribe(early)
		m.feed.unsubscribe(early) // twice is no harm
		before := early.calls
		m.del(theExports, a)
		m.events()
		if early.calls != before {
			t.Error("It was told something after Unsubscribe")
		}
		if len(late.shards) != 0 {
			t.Error("The other was not told")
		}
	})
}

// FuzzExportFeed lets events, full lists, fetches and their replies arrive in any order and expects the feed to end in
// the shards that the objects at the server say.
func FuzzExportFeed(f *testing.F) {
	f.Add([]byte{})
	random := rand.NewChaCha8([32]byte{1})
	for n := 16; n <= 256; n *= 2 {
		data := make([]byte, n)
		random.Read(data) //nolint:errcheck // never fails
		f.Add(data)
	}
	f.Fuzz(playAtRandom)
}

// TestExportFeedAtRandom plays long sequences, the same ones each time.
func TestExportFeedAtRandom(t *testing.T) {
	random := rand.NewChaCha8([32]byte{})
	for range 4000 {
		data := make([]byte, 398+random.Uint64()%2)
		random.Read(data) //nolint:errcheck // never fails
		playAtRandom(t, data)
		if t.Failed() {
			t.Fatalf("The sequence is %x", data)
		}
	}
}

// playAtRandom takes two octets for each step.
func playAtRandom(t *testing.T, data []byte) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		if len(data) >= 2 && data[0]&1 == 0 {
			m.limit(int(data[1] & 7))
		}
		if len(data)&1 == 0 {
			m.sync()
		}
		rv, saved := m.snapshot()
		for data = data[:min(len(data), 400)]; len(data) >= 2; data = data[2:] {
			switch what, how := data[0], data[1]; {
			case what < 90:
				fuzzChange(m, what, how)
			case what < 170:
				m.event(kind(how) % kinds)
			case what < 200:
				m.relist(kind(how)%kinds, int(how>>4&3))
			case what < 252:
				fuzzFetch(m, what, how)
			case what == 252:
				rv, saved = m.snapshot()
			case what == 253:
				m.restore(rv, saved)
			case what == 254:
				m.feed.clear()
				m.feed.beginRound()
				for k := range kinds {
					m.at[k] = -1 // its CRDs were gone: everything is listed again
				}
			default:
				m.settle()
				m.check()
			}
		}
		m.settle()
		m.check()
	})
}

// fuzzChange changes an object at the server.
func fuzzChange(m *model, what, how byte) {
	names := []mcs.ServiceKey{a, b, {Namespace: "other", Name: "a"}}
	key := names[int(how)%len(names)]
	ip := fmt.Sprintf("10.0.0.%d", 1+how>>4)
	id := mcs.ServiceKey{Namespace: key.Namespace, Name: fmt.Sprint("s", how>>2&1)}
	switch what % 6 {
	case 0:
		m.set(theExports, export(key.Namespace, key.Name))
	case 1:
		m.del(theExports, key)
	case 2:
		m.set(theServices, service(key.Namespace, key.Name, ip))
	case 3:
		m.del(theServices, key)
	case 4:
		o := slice(id.Namespace, id.Name, key.Name, ip)
		switch how >> 4 {
		case 1:
			o.AddressType = discoveryv1.AddressTypeFQDN
		case 2:
			o.Labels[labelImportName] = key.Name
		}
		m.set(theSlices, o)
	default:
		m.del(theSlices, id)
	}
}

// fuzzFetch lets the server make the reply to a request of a fetch, or lets it arrive, or fail.
func fuzzFetch(m *model, what, how byte) {
	calls := m.pending()
	if len(calls) == 0 {
		return
	}
	c := calls[int(how)%len(calls)]
	switch {
	case what&1 == 0:
		c.evaluateFrom(what&2 == 0)
		return
	case !c.asked && how&0xe0 == 0:
		c.err, c.asked = errModel, true
	}
	m.answer(c)
}
