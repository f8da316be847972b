package watch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// TestFresh plays the life of one slice of an exported service and looks at which endpoints are fresh.
func TestFresh(t *testing.T) {
	id := mcs.ServiceKey{Namespace: "shop", Name: "web-a"}
	slice := func(endpoints ...mcs.Endpoint) *mcs.Slice {
		return &mcs.Slice{Name: "web-a", Endpoints: mcs.Pack(endpoints...)}
	}
	ready := mcs.Endpoint{Label: "a", Conditions: mcs.Ready}
	unready := mcs.Endpoint{Label: "a"}
	going := mcs.Endpoint{Label: "a", Conditions: mcs.Terminating}
	for _, tc := range []struct {
		name     string
		live     bool
		old, now *mcs.Slice
		want     bool
	}{
		{"a new endpoint that is not ready is fresh", true, slice(), slice(unready), true},
		{"so is one in a new slice", true, nil, slice(unready), true},
		{"a new endpoint that is ready is not", true, slice(), slice(ready), false},
		{"one that was ready before is not", true, slice(ready), slice(unready), false},
		{"one that was not fresh before does not become so", true, slice(unready), slice(unready), false},
		{"one that goes is not", true, slice(), slice(going), false},
		{"what the first list brings is not: nobody knows how old it is", false, nil, slice(unready), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &exportFeed{fresh: map[mcs.ServiceKey]map[mcs.Identity]time.Time{}}
			if tc.live {
				f.level.Store(levelSynced)
			}
			f.freshen(id, tc.old, tc.now)
			if got := tc.now.Endpoints.Conditions(0)&mcs.Fresh != 0; got != tc.want {
				t.Errorf("Fresh is %v, want %v", got, tc.want)
			}
			if got := len(f.fresh) == 1; got != tc.want {
				t.Errorf("Remembered is %v, want %v", got, tc.want)
			}
		})
	}
}

func TestFreshEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := mcs.ServiceKey{Namespace: "shop", Name: "web"}
		id := mcs.ServiceKey{Namespace: "shop", Name: "web-a"}
		f := &exportFeed{
			audience: audience{w: &Watcher{}},
			limits:   limits{services: maxServices, endpoints: maxEndpoints},
			held:     map[mcs.ServiceKey]*held{key: {exported: true}},
			strays:   map[mcs.ServiceKey]mcs.ServiceKey{},
			fresh:    map[mcs.ServiceKey]map[mcs.Identity]time.Time{},
		}
		f.level.Store(levelSynced)
		put := func(version uint64, endpoints ...mcs.Endpoint) {
			it := &item{namespace: "shop", name: "web-a", key: key, version: version,
				fact: sliceFact{slice: &mcs.Slice{Name: "web-a", Endpoints: mcs.Pack(endpoints...)}}}
			f.putSlice(f.held[key], it, watched(version), nil)
			f.tell(key, f.held[key], time.Time{})
		}
		conditions := func() (out []mcs.Conditions) {
			for _, e := range f.held[key].shard.Slices[0].Endpoints.All() {
				out = append(out, e.Conditions)
			}
			return out
		}
		expect := func(when string, want ...mcs.Conditions) {
			t.Helper()
			got := conditions()
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: endpoint %d has conditions %b, want %b", when, i, got[i], want[i])
				}
			}
		}
		put(1, mcs.Endpoint{Label: "a"})
		time.Sleep(3 * time.Minute)
		put(2, mcs.Endpoint{Label: "a"}, mcs.Endpoint{Label: "b"})
		expect("both are new", mcs.Fresh, mcs.Fresh)
		time.Sleep(2 * time.Minute)
		f.tick(time.Now())
		expect("the first is five minutes old", 0, mcs.Fresh)
		put(3, mcs.Endpoint{Label: "a"}, mcs.Endpoint{Label: "b"})
		expect("an update does not make it young again", 0, mcs.Fresh)
		put(4, mcs.Endpoint{Label: "a"}, mcs.Endpoint{Label: "b", Conditions: mcs.Ready})
		put(5, mcs.Endpoint{Label: "a"}, mcs.Endpoint{Label: "b"})
		expect("what was ready once is missed at once", 0, 0)
		if len(f.fresh[id]) != 0 {
			t.Errorf("Still remembered: %v", f.fresh)
		}
	})
}
