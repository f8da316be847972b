package mcs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func members(ids ...topology.ClusterID) []Member {
	var out []Member
	for _, id := range ids {
		out = append(out, Member{ID: id})
	}
	return out
}

// publish expects news.
func publish(t *testing.T, x *Index) *Snapshot {
	t.Helper()
	s, _ := x.Publish(1)
	if s == nil {
		t.Fatal("Publish says that nothing has changed")
	}
	return s
}

func TestNothingNewIsNotPublished(t *testing.T) {
	shard := func() *Shard { return headless(1, sliceOf("a", []Port{http80}, ready("10.8.0.1"))) }
	imp := func() *ImportShard { return &ImportShard{Import: Import{Ports: []Port{http80}}} }
	x := NewIndex(Scope{Members: members("east", "west"), Local: "east", Imports: true})
	if s := publish(t, x); s.Generation() != 1 || s.Len() != 0 {
		t.Errorf("The first snapshot has generation %d and %d services", s.Generation(), s.Len())
	}
	x.Apply("east", web, shard())
	x.ApplyImport(ServiceKey{"shop", "imported"}, imp())
	x.ApplyNamespace("shop", true)
	x.SetSynced(Source{Exports, "east"})
	publish(t, x)

	for _, tc := range []struct {
		name  string
		event func()
	}{
		{"nothing at all", func() {}},
		{"an equal shard", func() { x.Apply("east", web, shard()) }},
		{"an equal import", func() { x.ApplyImport(ServiceKey{"shop", "imported"}, imp()) }},
		{"a namespace that is known", func() { x.ApplyNamespace("shop", true) }},
		{"the end of a namespace that is not there", func() { x.ApplyNamespace("other", false) }},
		{"the end of an export that is not there", func() { x.Apply("west", web, nil) }},
		{"the end of an export of an unknown service", func() { x.Apply("east", ServiceKey{"a", "b"}, nil) }},
		{"the end of an import that is not there", func() { x.ApplyImport(ServiceKey{"a", "b"}, nil) }},
		{"an export of a cluster that is not of the scope", func() { x.Apply("south", web, shard()) }},
		{"a source that has synced already", func() { x.SetSynced(Source{Exports, "east"}) }},
		{"a source that is not of the scope", func() { x.SetSynced(Source{Exports, "south"}) }},
		{"namespaces of a cluster that is not local", func() { x.SetSynced(Source{Namespaces, "west"}) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.event()
			if s, changes := x.Publish(9); s != nil || changes != nil {
				t.Errorf("Generation %d was published with changes %v", s.Generation(), changes)
			}
		})
	}
	x.ApplyNamespace("more", true)
	if s, _ := x.Publish(7); s.Generation() != 3 || s.Serial() != 7 {
		t.Errorf("Generation %d with serial %d, want 3 with 7", s.Generation(), s.Serial())
	}
}

func TestOldSnapshotsStayAsTheyWere(t *testing.T) {
	x := NewIndex(Scope{Members: members("east"), Local: "east"})
	empty := publish(t, x)
	x.ApplyNamespace("shop", true)
	x.SetSynced(Source{Namespaces, "east"})
	x.Apply("east", web, clusterIP(1, "10.0.0.1", http80))
	one := publish(t, x)
	x.Apply("east", web, clusterIP(1, "10.0.0.2", http80))
	x.ApplyNamespace("shop", false)
	x.SetSynced(Source{Exports, "east"})
	gone := publish(t, x)

	if empty.Len() != 0 || empty.HasNamespace("shop") || len(empty.Unsynced()) != 2 {
		t.Errorf("The first snapshot has changed: %d services, unsynced %v", empty.Len(), empty.Unsynced())
	}
	if s := one.Service("shop", "web"); s == nil || s.Members[0].Addrs[0] != addr("10.0.0.1") || !one.HasNamespace("shop") || len(one.Unsynced()) != 1 {
		t.Errorf("The second snapshot has changed: %v, unsynced %v", s, one.Unsynced())
	}
	if gone.Service("shop", "web") != nil || gone.Len() != 0 || !gone.NamespaceDenied("shop") || len(gone.Unsynced()) != 0 {
		t.Errorf("The last snapshot still has the service: %v", gone.Service("shop", "web"))
	}
}

func TestNamespaceSameness(t *testing.T) {
	export := func(x *Index) { x.Apply("west", web, clusterIP(1, "10.1.0.1", http80)) }
	known := func(x *Index) { x.SetSynced(Source{Namespaces, "east"}) }
	exists := func(x *Index) { x.ApplyNamespace("shop", true) }
	ends := func(x *Index) { x.ApplyNamespace("shop", false) }
	unexport := func(x *Index) { x.Apply("west", web, nil) }
	now := func(x *Index) { x.Publish(1) }
	for _, tc := range []struct {
		name                 string
		local                topology.ClusterID
		events               []func(*Index)
		service, has, denied bool
	}{
		{"local, its namespaces not known yet: a service that is known is there", "east", []func(*Index){export}, true, false, false},
		{"local, its namespaces not known yet: no namespace is denied", "east", nil, false, false, false},
		{"local, without the namespace: no service, and denied", "east", []func(*Index){export, known}, false, false, true},
		{"local, without the namespace, found out after publishing", "east", []func(*Index){export, now, known}, false, false, true},
		{"local, with the namespace", "east", []func(*Index){export, exists, known}, true, true, false},
		{"local, the namespace comes after the service", "east", []func(*Index){export, known, now, exists}, true, true, false},
		{"local, the namespace goes", "east", []func(*Index){export, exists, known, now, ends}, false, false, true},
		{"local, the namespace goes and comes between two snapshots", "east", []func(*Index){export, exists, known, now, ends, exists}, true, true, false},
		{"local, a namespace nobody exports from exists as well", "east", []func(*Index){exists, known}, false, true, false},
		{"no local: the exporter's namespace exists", "", []func(*Index){export}, true, true, false},
		{"no local: it ends with the last export", "", []func(*Index){export, now, unexport}, false, false, false},
		{"no local: an export that comes and goes leaves nothing", "", []func(*Index){export, unexport}, false, false, false},
		{"no local: an export that goes and comes stays", "", []func(*Index){export, now, unexport, export}, true, true, false},
		{"no local: nothing is ever denied for its namespace", "", nil, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := NewIndex(Scope{Members: members("east", "west"), Local: tc.local})
			var last *Snapshot
			for _, event := range append([]func(*Index){func(*Index) {}}, tc.events...) {
				event(x)
			}
			// Something that always changes, so that there is a last snapshot to look at.
			x.SetSynced(Source{Exports, "east"})
			last = publish(t, x)
			if got := last.Service("shop", "web") != nil; got != tc.service {
				t.Errorf("The service is there: %v, want %v", got, tc.service)
			}
			if got := last.HasNamespace("shop"); got != tc.has {
				t.Errorf("HasNamespace is %v, want %v", got, tc.has)
			}
			if got := last.NamespaceDenied("shop"); got != tc.denied {
				t.Errorf("NamespaceDenied is %v, want %v", got, tc.denied)
			}
			if got, want := last.Len(), map[bool]int{true: 1}[tc.service]; got != want {
				t.Errorf("Len is %d, want %d", got, want)
			}
		})
	}
}

func TestMergeNeverCrossesNamespaces(t *testing.T) {
	x := NewIndex(Scope{Members: members("east", "west")})
	x.Apply("east", ServiceKey{"a", "web"}, clusterIP(1, "10.0.0.1", http80))
	x.Apply("west", ServiceKey{"b", "web"}, clusterIP(1, "10.1.0.1", http80))
	s := publish(t, x)
	a, b := s.Service("a", "web"), s.Service("b", "web")
	if a == nil || b == nil || len(a.Members) != 1 || len(b.Members) != 1 || a.Members[0].Cluster != "east" || b.Members[0].Cluster != "west" {
		t.Errorf("Got %+v and %+v", a, b)
	}
	seen := 0
	s.Services(func(*Service) bool {
		seen++
		return seen < 1
	})
	if seen != 1 {
		t.Errorf("Services went on after it was told to stop: %d", seen)
	}
}

func TestUnsyncedSources(t *testing.T) {
	x := NewIndex(Scope{Members: members("east", "west"), Local: "east", Imports: true})
	want := []Source{{Exports, "east"}, {Exports, "west"}, {Namespaces, "east"}, {Kind: Imports}}
	if got := publish(t, x).Unsynced(); !slices.Equal(got, want) {
		t.Errorf("At first unsynced is %v, want %v", got, want)
	}
	for len(want) > 0 {
		x.SetSynced(want[len(want)/2])
		want = slices.Delete(want, len(want)/2, len(want)/2+1)
		if got := publish(t, x).Unsynced(); !slices.Equal(got, want) {
			t.Errorf("Unsynced is %v, want %v", got, want)
		}
	}
	if got := publish(t, NewIndex(Scope{Members: members("east")})).Unsynced(); !slices.Equal(got, []Source{{Exports, "east"}}) {
		t.Errorf("Without a local cluster and imports unsynced is %v", got)
	}
}

func TestReports(t *testing.T) {
	x := NewIndex(Scope{Members: members("east", "west"), Local: "east"})
	x.SetSynced(Source{Namespaces, "east"}) // the namespace does not exist here; what is wrong is told all the same
	publish(t, x)
	none := []Unusable{{"west", NoAddress}}
	steps := []struct {
		name  string
		event func()
		want  []Change
	}{
		{"a clean export is no news", func() { x.Apply("east", web, clusterIP(1, "10.0.0.1", http80)) }, nil},
		{"a conflict, and no address to answer with", func() { x.Apply("west", web, headless(2)) }, []Change{
			{web, Report{}, Report{Conflicts: TypeConflict, Unusable: none}, []topology.ClusterID{"east", "west"}}}},
		{"the same conflict with other endpoints is no news", func() {
			x.Apply("west", web, headless(2, sliceOf("a", nil, ready("10.9.0.1"))))
		}, nil},
		{"another conflict", func() { x.Apply("west", web, clusterIP(2, "10.1.0.1", https443)) }, []Change{
			{web, Report{Conflicts: TypeConflict, Unusable: none}, Report{Conflicts: PortConflict}, []topology.ClusterID{"east", "west"}}}},
		{"an export that becomes invalid", func() { x.Apply("west", web, &Shard{}) }, []Change{
			{web, Report{Conflicts: PortConflict}, Report{NoService: []topology.ClusterID{"west"}}, []topology.ClusterID{"east", "west"}}}},
		{"invalid in another way", func() { x.Apply("west", web, &Shard{Service: &ServiceSpec{ExternalName: true}}) }, []Change{
			{web, Report{NoService: []topology.ClusterID{"west"}}, Report{InvalidType: []topology.ClusterID{"west"}}, []topology.ClusterID{"east", "west"}}}},
		{"the end of it", func() { x.Apply("west", web, nil) }, []Change{
			{web, Report{InvalidType: []topology.ClusterID{"west"}}, Report{}, []topology.ClusterID{"east"}}}},
		{"the last export goes", func() { x.Apply("east", web, &Shard{}); x.Publish(1); x.Apply("east", web, nil) }, []Change{
			{web, Report{NoService: []topology.ClusterID{"east"}}, Report{}, nil}}},
	}
	for _, step := range steps {
		step.event()
		snapshot, changes := x.Publish(1)
		if !reflect.DeepEqual(changes, step.want) {
			t.Errorf("%s: got %+v, want %+v", step.name, changes, step.want)
		}
		for _, c := range changes {
			listed := map[ServiceKey]*Report{}
			snapshot.Reports(func(key ServiceKey, r *Report) bool {
				listed[key] = r
				return true
			})
			got := snapshot.Report(web.Namespace, web.Name)
			if !reflect.DeepEqual(got, c.New) || (listed[web] == nil) != c.New.Clean() || listed[web] != nil && !reflect.DeepEqual(*listed[web], c.New) {
				t.Errorf("%s: the snapshot says %+v, and lists %v", step.name, got, listed)
			}
			if clean := c.New.Conflicts == 0 && c.New.NoService == nil && c.New.InvalidType == nil && c.New.Unusable == nil; c.New.Clean() != clean {
				t.Errorf("%s: Clean is %v of %+v", step.name, c.New.Clean(), c.New)
			}
		}
	}
}

// The world of FuzzMerge: few names, so that events meet.
var (
	fuzzMembers    = []topology.ClusterID{"east", "north.eu", "west"}
	fuzzNamespaces = []string{"a", "b"}
	fuzzServices   = []string{"db", "web"}
)

// fuzzSlot is a place of which the last event holds.
type fuzzSlot struct {
	what string // export, import, namespace, synced
	id   topology.ClusterID
	key  ServiceKey
	src  Source
}

// fuzzEvent is one event: a slot and what is said, made of one octet.
type fuzzEvent struct {
	fuzzSlot
	variant byte
}

func fuzzEvents(data []byte) (scope Scope, events []fuzzEvent, publishAfter []bool) {
	if len(data) == 0 {
		data = []byte{0}
	}
	scope = Scope{Imports: data[0]&1 != 0}
	if data[0]&2 != 0 {
		scope.Local = "east"
	}
	for i, id := range fuzzMembers {
		m := Member{ID: id, Address: AddressKind(data[0] >> (2 + i) & 3)}
		if m.Address == AddressFixed {
			m.Gateway = addrs("203.0.113.1")
		}
		scope.Members = append(scope.Members, m)
	}
	for data = data[1:]; len(data) >= 2; data = data[2:] {
		where, variant := data[0], data[1]
		e := fuzzEvent{variant: variant}
		e.key = ServiceKey{fuzzNamespaces[where>>2&1], fuzzServices[where>>3&1]}
		switch where & 3 {
		case 0, 1:
			e.what, e.id = "export", fuzzMembers[int(where>>4)%len(fuzzMembers)]
		case 2:
			e.what = "import"
		default:
			e.key.Name = ""
			if scope.Local == "" && where>>4&3 != 0 {
				continue // no local cluster, so nobody tells its namespaces
			}
			if e.what = "namespace"; where>>4&3 == 0 {
				e.what, e.key = "synced", ServiceKey{}
				e.src = Source{Exports, fuzzMembers[int(where>>6)%len(fuzzMembers)]}
				switch variant & 3 {
				case 0:
					e.src = Source{Namespaces, "east"}
				case 1:
					e.src = Source{Kind: Imports}
				}
				e.variant = 0
			}
		}
		events = append(events, e)
		publishAfter = append(publishAfter, where&0x80 != 0)
	}
	return scope, events, publishAfter
}

func (e fuzzEvent) apply(x *Index) {
	switch e.what {
	case "export":
		x.Apply(e.id, e.key, fuzzShard(e.variant))
	case "import":
		x.ApplyImport(e.key, fuzzImport(e.variant))
	case "namespace":
		x.ApplyNamespace(e.key.Namespace, e.variant&1 != 0)
	default:
		x.SetSynced(e.src)
	}
}

// fuzzSlices makes slices with shared host names, two families, hidden endpoints and ports of their own.
func fuzzSlices(v byte) []*Slice {
	var all []*Slice
	for i := range v & 3 {
		s := &Slice{Name: "s" + strconv.Itoa(int(i)), Source: fuzzMembers[int(v>>i)%len(fuzzMembers)]}
		if v&4 == 0 {
			s.Ports = []Port{http80, {"", UDP, uint16(53 + i)}}
		}
		for j := range v >> 3 & 3 {
			e := ready(fmt.Sprintf("10.%d.%d.%d", v, i&1, j))
			if v&8 != 0 {
				e = ready(fmt.Sprintf("fd00::%x:%d", v, j))
			}
			if (v>>j)&2 != 0 {
				e.Label, e.ID = "h"+strconv.Itoa(int(j&1)), uint64(j)+1
			}
			if (v>>j)&0x10 != 0 {
				e.Conditions = Terminating
			}
			s.Endpoints.Add(&e)
		}
		all = append(all, s)
	}
	return all
}

func fuzzShard(v byte) *Shard {
	if v%7 == 0 {
		return nil
	}
	s := &Shard{Export: Export{Created: int64(v >> 5)}, Slices: fuzzSlices(v)}
	if v%5 == 0 {
		return s
	}
	s.Service = &ServiceSpec{ExternalName: v%11 == 0, PublishNotReady: v&0x20 != 0, Ports: []Port{http80}}
	s.Service.Type = ServiceType(v & 1)
	s.Service.TrafficDistribution = string(rune('a' + v>>6))
	s.Service.IPv6 = v&2 != 0
	if v&1 == 0 {
		s.Service.ClusterIPs[0] = netip.AddrFrom4([4]byte{172, 16, 0, v})
		s.Service.LoadBalancer = &LoadBalancer{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, v})}}
	}
	if v&0x10 != 0 {
		s.Service.Ports = []Port{{"http", TCP, uint16(80 + v>>6)}, https443}
	}
	return s
}

func fuzzImport(v byte) *ImportShard {
	if v%3 == 0 {
		return nil
	}
	s := &ImportShard{Import: Import{NoSlices: v&4 != 0, Ports: []Port{http80}}, Slices: fuzzSlices(v)}
	if s.Import.Type = ServiceType(v & 1); v&1 == 0 {
		s.Import.IPs[0] = netip.AddrFrom4([4]byte{172, 30, 0, v})
	}
	return s
}

// view is all that a Snapshot shows through its accessors, but for its number.
type view struct {
	services map[ServiceKey]Service
	spaces   map[string][2]bool
	unsynced []Source
	size     int
}

func viewOf(s *Snapshot) view {
	v := view{services: map[ServiceKey]Service{}, spaces: map[string][2]bool{}, unsynced: s.Unsynced(), size: s.Len()}
	s.Services(func(service *Service) bool {
		v.services[service.Key()] = *service
		return true
	})
	for _, n := range fuzzNamespaces {
		v.spaces[n] = [2]bool{s.HasNamespace(n), s.NamespaceDenied(n)}
		for _, name := range fuzzServices {
			if _, there := v.services[ServiceKey{n, name}]; there != (s.Service(n, name) != nil) {
				panic("Service and Services disagree about " + name)
			}
		}
	}
	return v
}

// FuzzMerge plays events in any order and number, with snapshots in between, and expects the last one to be what the
// last event of each slot makes when told once, in order, and what one merge from scratch makes.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 0, 1, 16, 2, 7, 1, 3, 0, 2, 4, 0, 7})
	f.Add([]byte("\x03\x80\x11\x90\x12\xa0\x13\x83\x00\x87\x01\x82\x05\x82\x06"))
	f.Add([]byte("\x02\x00\x0a\x10\x0b\x20\x0c\x00\x07\x10\x07\x20\x07\x03\x00"))
	f.Add([]byte("\x00\x00\x32\x10\x52\x20\x72\x04\x21\x0c\x41\x80\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		scope, events, publishAfter := fuzzEvents(data)
		x := NewIndex(scope)
		var last *Snapshot
		snapshot := func() {
			if s, _ := x.Publish(1); s != nil {
				last = s
			}
		}
		final := map[fuzzSlot]fuzzEvent{}
		for i, e := range events {
			e.apply(x)
			if publishAfter[i] {
				snapshot()
			}
			final[e.fuzzSlot] = e
		}
		snapshot()
		got := viewOf(last)

		ordered := make([]fuzzEvent, 0, len(final))
		for _, e := range final {
			ordered = append(ordered, e)
		}
		slices.SortFunc(ordered, func(a, b fuzzEvent) int {
			return slices.Compare([]byte(fmt.Sprint(a.fuzzSlot)), []byte(fmt.Sprint(b.fuzzSlot)))
		})
		y := NewIndex(scope)
		for _, e := range ordered {
			e.apply(y)
			e.apply(y) // twice is once
		}
		once, _ := y.Publish(1)
		if want := viewOf(once); !reflect.DeepEqual(got, want) {
			t.Fatalf("Played as it came:\n%+v\nPlayed in order:\n%+v", got, want)
		}
		if want := mergeFromScratch(scope, final, got.unsynced); !reflect.DeepEqual(got.services, want) {
			t.Fatalf("Played as it came:\n%+v\nMerged at once:\n%+v", got.services, want)
		}
	})
}

// mergeFromScratch knows nothing of an Index.
func mergeFromScratch(scope Scope, final map[fuzzSlot]fuzzEvent, unsynced []Source) map[ServiceKey]Service {
	out := map[ServiceKey]Service{}
	for _, namespace := range fuzzNamespaces {
		exists := final[fuzzSlot{what: "namespace", key: ServiceKey{Namespace: namespace}}].variant&1 != 0
		if scope.Local != "" && !slices.Contains(unsynced, Source{Namespaces, scope.Local}) && !exists {
			continue
		}
		for _, name := range fuzzServices {
			key := ServiceKey{namespace, name}
			var all []exported
			for i := range scope.Members {
				if e, ok := final[fuzzSlot{what: "export", id: scope.Members[i].ID, key: key}]; ok && fuzzShard(e.variant) != nil {
					all = append(all, exported{&scope.Members[i], fuzzShard(e.variant)})
				}
			}
			var imp *ImportShard
			if e, ok := final[fuzzSlot{what: "import", key: key}]; ok {
				imp = fuzzImport(e.variant)
			}
			if s, _ := merge(key, all, imp, around{}); s != nil {
				out[key] = *s
			}
		}
	}
	return out
}

// worldOf has n services in n/50 namespaces.
func worldOf(n int) *Index {
	x := NewIndex(Scope{Members: members("east", "west")})
	for i := range n {
		x.Apply("east", serviceKey(i), clusterIP(1, "10.0.0.1", http80).over(sliceOf("a", []Port{http80}, ready("10.8.0.1"))))
		x.Apply("west", serviceKey(i), clusterIP(1, "10.1.0.1", http80).over(sliceOf("a", []Port{http80}, ready("10.9.0.1"))))
	}
	x.Publish(1)
	return x
}

func serviceKey(i int) ServiceKey {
	return ServiceKey{"ns" + strconv.Itoa(i/50), "service" + strconv.Itoa(i)}
}

// update returns a function that changes one service of n and publishes, another one each time, of a hundred in turn.
func update(x *Index, n int) func() {
	one := clusterIP(1, "10.0.0.1", http80).over(sliceOf("a", []Port{http80}, ready("10.8.0.1")))
	two := clusterIP(1, "10.0.0.1", http80).over(sliceOf("a", []Port{http80}, ready("10.8.0.1"), ready("10.8.0.2")))
	keys := make([]ServiceKey, 100)
	for i := range keys {
		keys[i] = serviceKey(i * n / len(keys))
	}
	i := 0
	return func() {
		s := one
		if i/len(keys)%2 == 0 {
			s = two
		}
		x.Apply("east", keys[i%len(keys)], s)
		i++
		if published, _ := x.Publish(1); published == nil {
			panic("nothing was published")
		}
	}
}

// TestUpdateCostDoesNotGrow compares the work of one change in a small and in a hundred times larger world: by its
// allocations, since the larger trie is only one or two levels deeper, and by its time with a wide margin.
func TestUpdateCostDoesNotGrow(t *testing.T) {
	type cost struct {
		allocs float64
		time   time.Duration
	}
	measure := func(n int) cost {
		f := update(worldOf(n), n)
		c := cost{allocs: testing.AllocsPerRun(500, f), time: time.Hour}
		for range 20 { // the fastest of many is what no other load has disturbed
			began := time.Now()
			for range 100 {
				f()
			}
			c.time = min(c.time, time.Since(began)/100)
		}
		return c
	}
	small, large := measure(100), measure(10_000)
	t.Logf("One change: %.0f allocations and %s in a world of 100 services, %.0f and %s in one of 10,000", small.allocs, small.time, large.allocs, large.time)
	if large.allocs > small.allocs+6 || large.time > 4*small.time {
		t.Errorf("One change costs %.0f allocations and %s in a world of 10,000 services, but %.0f and %s in one of 100",
			large.allocs, large.time, small.allocs, small.time)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	x := worldOf(1_000)
	x.SetSynced(Source{Exports, "east"})
	s := publish(t, x)
	found := 0
	if n := testing.AllocsPerRun(100, func() {
		if s.Service("ns3", "service170") != nil {
			found++
		}
		if s.Service("ns3", "none") == nil && s.HasNamespace("ns3") && !s.NamespaceDenied("other") {
			found++
		}
	}); n != 0 || found == 0 {
		t.Errorf("Looking up allocates %v times, found %d", n, found)
	}
}

func BenchmarkIndexUpdate(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n)+"services", func(b *testing.B) {
			f := update(worldOf(n), n)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

func BenchmarkSnapshotService(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n)+"services", func(b *testing.B) {
			x := worldOf(n)
			x.SetSynced(Source{Exports, "east"})
			s, _ := x.Publish(1)
			keys := make([]ServiceKey, 64)
			for i := range keys {
				keys[i] = serviceKey(i * n / 64)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				k := &keys[i%64]
				if s.Service(k.Namespace, k.Name) == nil {
					b.Fatal("Not found")
				}
				i++
			}
		})
	}
}

func TestSurroundings(t *testing.T) {
	x := NewIndex(Scope{Members: []Member{{ID: "east"}, {ID: "north", Address: AddressLoadBalancer}, {ID: "west"}}, Local: "east"})
	x.SetSynced(Source{Namespaces, "east"})
	x.ApplyNamespace("shop", true)
	x.Apply("east", web, clusterIP(1, "10.96.0.1", http80))
	x.Apply("west", web, clusterIP(2, "10.96.0.2", http80))
	balanced := clusterIP(3, "10.98.0.3", http80)
	balanced.Service.LoadBalancer = &LoadBalancer{Hosts: []string{"lb.example.org"}}
	x.Apply("north", web, balanced)
	publish(t, x)
	address := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	if got := x.Hosts(); !slices.Equal(got, []string{"lb.example.org"}) {
		t.Errorf("Hosts are %v", got)
	}
	for _, step := range []struct {
		name              string
		event             func()
		east, north, west []netip.Addr
		unusable          []Unusable
	}{
		{"a host name without a known address leaves its cluster out", func() { x.ApplyNamespace("other", true) },
			address("10.96.0.1"), nil, address("10.96.0.2"), []Unusable{{"north", NoAddress}}},
		{"a host name that has an address answers with it", func() { x.ApplyHost("lb.example.org", address("192.0.2.7")) },
			address("10.96.0.1"), address("192.0.2.7"), address("10.96.0.2"), nil},
		{"a remote address inside the local service network is never answered, a local one is", func() {
			x.ApplyServiceRanges([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
		}, address("10.96.0.1"), address("192.0.2.7"), nil, []Unusable{{"west", Overlap}}},
		{"another range lets it through again", func() {
			x.ApplyServiceRanges([]netip.Prefix{netip.MustParsePrefix("10.97.0.0/16")})
		}, address("10.96.0.1"), address("192.0.2.7"), address("10.96.0.2"), nil},
		{"nor is one that a Service of the local cluster has, whatever its range", func() {
			x.ApplyServiceAddresses(address("10.96.0.1", "10.96.0.2"), nil)
		}, address("10.96.0.1"), address("192.0.2.7"), nil, []Unusable{{"west", Overlap}}},
		{"one that it has given back is", func() {
			x.ApplyServiceAddresses(nil, address("10.96.0.2"))
		}, address("10.96.0.1"), address("192.0.2.7"), address("10.96.0.2"), nil},
	} {
		step.event()
		s := publish(t, x).Service("shop", "web")
		for i, want := range [][]netip.Addr{step.east, step.north, step.west} {
			if got := s.Members[i].Addrs; !slices.Equal(got, want) {
				t.Errorf("%s: %s has %v, want %v", step.name, s.Members[i].Cluster, got, want)
			}
		}
		if got := x.facts["shop"]["web"].said().Unusable; !slices.Equal(got, step.unusable) {
			t.Errorf("%s: unusable are %v, want %v", step.name, got, step.unusable)
		}
	}
	x.Apply("north", web, nil)
	if got := x.Hosts(); len(got) != 0 || len(x.balanced) != 0 {
		t.Errorf("Nobody needs %v any more (%v)", got, x.balanced)
	}
	if x.Apply("west", web, nil); len(x.claims) != 0 {
		t.Errorf("Nobody has %v any more", x.claims)
	}
}

// TestAllWhoClaimAnAddressAreToldThatItIsTaken lets three services of a remote cluster have one address.
func TestAllWhoClaimAnAddressAreToldThatItIsTaken(t *testing.T) {
	x := NewIndex(Scope{Local: "east", Members: []Member{{ID: "east"}, {ID: "west"}}})
	x.SetSynced(Source{Namespaces, "east"})
	x.ApplyNamespace("shop", true)
	names, shared := []string{"web", "api", "db"}, netip.MustParseAddr("10.96.0.2")
	for _, name := range names {
		x.Apply("west", ServiceKey{"shop", name}, clusterIP(1, shared.String(), http80))
	}
	for _, taken := range []bool{false, true, false} {
		if x.ApplyServiceAddresses(nil, []netip.Addr{shared}); taken {
			x.ApplyServiceAddresses([]netip.Addr{shared}, nil)
		}
		s := publish(t, x)
		for _, name := range names {
			if got := len(s.Service("shop", name).Members[0].Addrs) == 0; got != taken {
				t.Errorf("%s: the address is answered: %t, want %t", name, !got, !taken)
			}
		}
	}
}

// TestClaimantsOfAnAddress counts services in and out in a random order, and compares with a map that does the same.
func TestClaimantsOfAnAddress(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var c claimants
		want := map[ServiceKey]int{}
		for range 60 {
			key, sign := ServiceKey{"shop", string(rune('a' + random.IntN(4)))}, 1
			if random.IntN(2) == 0 && want[key] > 0 {
				sign = -1
			}
			if want[key] += sign; want[key] == 0 {
				delete(want, key)
			}
			c = c.with(key, sign)
			got := maps.Clone(c.others)
			if c.n > 0 {
				if got == nil {
					got = map[ServiceKey]int{}
				}
				got[c.one] += c.n
			}
			if !maps.Equal(got, want) || (c.n > 0) != (len(want) > 0) {
				t.Fatalf("%v instead of %v", c, want)
			}
		}
	}
}

func TestNothingThatWasMergedIsKeptBesideTheSnapshot(t *testing.T) {
	x := NewIndex(Scope{Members: []Member{{ID: "east"}}})
	x.Apply("east", ServiceKey{"shop", "web"}, &Shard{Service: &ServiceSpec{}})
	if s, _ := x.Publish(1); s.Service("shop", "web") == nil {
		t.Fatal("The service is not there")
	}
	for _, c := range x.merged[:cap(x.merged)] {
		if c.value != nil {
			t.Errorf("%s is kept", c.key)
		}
	}
}
