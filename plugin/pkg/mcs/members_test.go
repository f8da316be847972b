package mcs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// TestMembersComeAndGo changes members and facts at random, and compares the result with an index that has begun with the
// members of the end and was told the facts of the end.
func TestMembersComeAndGo(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 9))
	ids := []topology.ClusterID{"a", "b", "c.eu", "d"}
	keys := []ServiceKey{{"shop", "web"}, {"shop", "db"}, {"other", "web"}}
	settings := func(id topology.ClusterID) Member {
		m := Member{ID: id, Address: AddressKind(random.IntN(3)), AnyPort: random.IntN(2) == 0, Refused: random.IntN(5) == 0, NoAddress: random.IntN(5) == 0}
		if random.IntN(4) == 0 {
			m.Address, m.Gateway = AddressFixed, addrs("192.0.2.1")
		}
		if random.IntN(4) == 0 {
			m.Namespaces = []string{"shop"}
		}
		return m
	}
	shard := func() *Shard {
		s := clusterIP(random.Int64N(3), fmt.Sprintf("10.0.0.%d", 1+random.IntN(5)), http80).over(sliceOf("s", []Port{http8080}, ready(fmt.Sprintf("10.8.0.%d", 1+random.IntN(5)))))
		if random.IntN(2) == 0 {
			s.Service.LoadBalancer = &LoadBalancer{Hosts: []string{fmt.Sprintf("lb%d.example.org", random.IntN(2))}}
		}
		return s
	}
	for range 300 {
		x := NewIndex(Scope{Local: "a", Members: []Member{{ID: "a"}}})
		members := map[topology.ClusterID]Member{"a": {ID: "a"}}
		facts := map[topology.ClusterID]map[ServiceKey]*Shard{}
		for range 40 {
			id := ids[random.IntN(len(ids))]
			switch random.IntN(6) {
			case 0:
				members[id] = settings(id)
				x.AddMember(members[id], true)
			case 1:
				if id != "a" {
					delete(members, id)
					delete(facts, id)
					x.RemoveMember(id)
				}
			default:
				key, s := keys[random.IntN(len(keys))], shard()
				if random.IntN(4) == 0 {
					s = nil
				}
				x.Apply(id, key, s)
				if _, is := members[id]; is {
					if facts[id] == nil {
						facts[id] = map[ServiceKey]*Shard{}
					}
					if facts[id][key] = s; s == nil {
						delete(facts[id], key)
					}
				}
			}
			if random.IntN(3) == 0 {
				x.Publish(1)
			}
		}
		fresh := NewIndex(Scope{Local: "a"})
		for _, m := range members {
			fresh.AddMember(m, true)
		}
		for id, shards := range facts {
			for key, s := range shards {
				fresh.Apply(id, key, s)
			}
		}
		x.SetSynced(Source{Exports, "a"})
		x.SetSynced(Source{Namespaces, "a"})
		fresh.SetSynced(Source{Namespaces, "a"})
		for _, namespace := range []string{"shop", "other"} {
			x.ApplyNamespace(namespace, true)
			fresh.ApplyNamespace(namespace, true)
		}
		got, want := publish(t, x), publish(t, fresh)
		for _, key := range keys {
			var reports [2]Report
			for i, index := range []*Index{x, fresh} {
				if e := index.facts[key.Namespace][key.Name]; e != nil {
					reports[i] = e.said()
				}
			}
			a, b := sketch(got.Service(key.Namespace, key.Name), reports[0]), sketch(want.Service(key.Namespace, key.Name), reports[1])
			if a != b {
				t.Fatalf("%s: got\n%s\nwant\n%s", key, a, b)
			}
		}
		if len(got.Unsynced()) != 0 || got.Len() != want.Len() || !slices.Equal(x.Hosts(), fresh.Hosts()) || len(x.claims) != len(fresh.claims) {
			t.Fatalf("%d services, unsynced %v, hosts %v, %d claims; want %d, none, %v, %d",
				got.Len(), got.Unsynced(), x.Hosts(), len(x.claims), want.Len(), fresh.Hosts(), len(fresh.claims))
		}
	}
}

func TestNewcomersMakeNothingUncertain(t *testing.T) {
	x := NewIndex(Scope{Members: []Member{{ID: "a"}}, Dynamic: true})
	expect := func(when string, want ...Source) {
		t.Helper()
		x.changed = true
		if got := publish(t, x).Unsynced(); !slices.Equal(got, want) {
			t.Errorf("%s: unsynced are %v, want %v", when, got, want)
		}
	}
	a, b, members := Source{Exports, "a"}, Source{Exports, "b"}, Source{Kind: Members}
	expect("at first nobody knows who the members are", a, members)
	x.AddMember(Member{ID: "b"}, false)
	x.SetSynced(members)
	expect("those of the first list are waited for", a, b)
	x.SetSynced(a)
	x.SetSynced(b)
	x.AddMember(Member{ID: "late"}, true)
	expect("one that comes later is not")
	x.AddMember(Member{ID: "c"}, false)
	x.RemoveMember("c")
	expect("nor is one that is gone")
	x.RemoveMember("nobody")
}
