package watch

import (
	"testing"
	"testing/synctest"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// fetches is how many requests of fetches wait for the server.
func (m *model) fetches(want int, when string) {
	m.t.Helper()
	if calls := m.pending(); len(calls) != want {
		m.t.Errorf("%s: %d requests of fetches, want %d", when, len(calls), want)
	}
}

// TestStandby plays with a member of which everything is watched: shop/b is exported, and another service stands by.
func TestStandby(t *testing.T) {
	fqdn := func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		s.AddressType = discoveryv1.AddressTypeFQDN
		return s
	}
	const asked = 2 // requests of a fetch
	for _, tc := range []struct {
		name string
		room int
		play func(m *model)
	}{
		{"an export of what is known is told at once", 1, func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.sees("before", nothing, noService)
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.sees("after", oneIP+" s 10.8.0.1", noService)
			m.fetches(0, "after")
		}},
		{"what came and changed since the lists is told", 1, func(m *model) {
			m.sync()
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.events()
			m.set(theServices, service("shop", "a", "10.0.0.2"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.2"))
			m.events()
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.sees("after", otherIP+" s 10.8.0.2", noService)
			m.fetches(0, "after")
		}},
		{"an export of what does not exist is told too", 1, func(m *model) {
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.sees("after", noService, noService)
			m.fetches(0, "after")
		}},
		{"what has gone is forgotten", 1, func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.sync()
			m.del(theServices, a)
			m.del(theSlices, s)
			m.events()
			if n := len(m.feed.standby.held); n != 0 || m.feed.standby.endpoints != 0 {
				m.t.Errorf("%d services and %d endpoints stand by", n, m.feed.standby.endpoints)
			}
		}},
		{"an export that is taken back stands by, with what happens to it", 1, func(m *model) {
			m.set(theServices, service("shop", "b", "10.0.0.1"))
			m.set(theSlices, slice("shop", "s", "b", "10.8.0.1"))
			m.sync()
			m.set(theExports, export("shop", "a")) // so that everything is watched still
			m.del(theExports, b)
			m.events()
			m.sees("in between", noService, nothing)
			m.set(theServices, service("shop", "b", "10.0.0.2"))
			m.events()
			m.set(theExports, export("shop", "b"))
			m.events()
			m.sees("again", noService, otherIP+" s 10.8.0.1")
			m.fetches(0, "again")
		}},
		{"without room nothing stands by, and an export is fetched", 1, func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.sync()
			m.set(theServices, service("shop", "c", "10.0.0.2"))
			m.events()
			if m.feed.standby.held != nil || len(m.feed.strays) != 0 {
				m.t.Error("Something stands by")
			}
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.fetches(asked, "after")
			m.fetch()
			m.sees("at last", oneIP, noService)
		}},
		{"without room for endpoints neither", 1, func(m *model) {
			m.sync()
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1", "10.8.0.2", "10.8.0.3", "10.8.0.4", "10.8.0.5", "10.8.0.6",
				"10.8.0.7", "10.8.0.8", "10.8.0.9", "10.8.0.10", "10.8.0.11"))
			m.events()
			if m.feed.standby.held != nil || len(m.feed.strays) != 0 {
				m.t.Error("Something stands by")
			}
		}},
		{"with the next round it stands by again", 1, func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theServices, service("shop", "c", "10.0.0.2"))
			m.sync()
			m.del(theServices, mcs.ServiceKey{Namespace: "shop", Name: "c"})
			m.events()
			if m.feed.standby.held != nil {
				m.t.Error("Something stands by that is not all")
			}
			m.feed.beginRound()
			m.sync()
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.sees("after", oneIP, noService)
			m.fetches(0, "after")
		}},
		{"between the lists an export is fetched", 1, func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.listAll(theExports)
			m.listAll(theServices)
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.fetches(asked, "after")
		}},
		{"of what something was left out an export is fetched, and it is counted then", 1, func(m *model) {
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.set(theSlices, fqdn(slice("shop", "s", "a", "10.8.0.1")))
			m.sync()
			if len(m.sink.left) != 0 {
				m.t.Errorf("%v of what nobody exports", m.sink.left)
			}
			m.set(theExports, export("shop", "a"))
			m.event(theExports)
			m.fetches(asked, "after")
			m.fetch()
			if len(m.sink.left) != 1 || m.sink.left[0] != BadAddressType {
				m.t.Errorf("Counted is %v", m.sink.left)
			}
		}},
		{"a slice that moves to what nobody exports, and on, is told where it is", 2, func(m *model) {
			m.set(theSlices, slice("shop", "s", "b", "10.8.0.1"))
			m.sync()
			m.set(theSlices, slice("shop", "s", "a", "10.8.0.1"))
			m.events()
			m.sees("in between", nothing, noService)
			m.set(theExports, export("shop", "a"))
			m.events()
			m.sees("exported", noService+" s 10.8.0.1", noService)
			m.fetches(0, "exported")
		}},
		{"what stands by is not left where all that is exported has vanished", 1, func(m *model) {
			m.set(theSlices, slice("shop", "s", "b", "10.8.0.1", "10.8.0.2"))
			m.set(theSlices, slice("shop", "t", "a", "10.8.0.3", "10.8.0.4", "10.8.0.5"))
			m.sync()
			list := []any{m.feed.compactSlice(slice("shop", "t", "a", "10.8.0.3", "10.8.0.4", "10.8.0.5"))}
			if before, after := m.feed.remainsOfSlices(list); before != 2 || after != 0 {
				m.t.Errorf("%d endpoints before, %d after, want 2 and 0", before, after)
			}
		}},
		{"a member of which little is watched keeps nothing", 1, func(m *model) {
			m.feed.limits.selector = selectAtMost
			m.set(theServices, service("shop", "a", "10.0.0.1"))
			m.sync()
			if m.feed.standby.held != nil {
				m.t.Error("Something stands by")
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t)
				m.limit(tc.room)
				m.set(theExports, export("shop", "b"))
				tc.play(m)
				m.settle()
				m.check()
			})
		})
	}
}
