package clusterset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/state"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadEnd is a connection to a port where nobody listens; the user tells it from others.
func deadEnd(t *testing.T, user string) watch.Connection {
	t.Helper()
	c, err := watch.NewConnection(&rest.Config{Host: "https://127.0.0.1:1", BearerToken: user})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// configOf has the given clusters, of which the first is local.
func configOf(t *testing.T, ids ...topology.ClusterID) *config {
	t.Helper()
	c := &config{local: ids[0], ttl: defaultTTL}
	for _, id := range ids {
		c.members = append(c.members, member{Member: mcs.Member{ID: id}, connection: deadEnd(t, string(id)), region: "r"})
	}
	return c
}

// newTestStore ends with the test, and is empty then.
func newTestStore(t *testing.T) *store {
	t.Helper()
	s := newStore()
	t.Cleanup(func() {
		s.worlds.Keep(func(*lease.Tenant) bool { return false })
		s.holds(t, "at the end", 0, 0)
	})
	return s
}

// holds checks how many worlds a store has, and how many watchers of what worlds wait for: each member has one more, and
// the local one two, of what no name depends on.
func (s *store) holds(t *testing.T, when string, worlds, watchers int) {
	t.Helper()
	gotWorlds, gotWatchers := 0, 0
	for range s.worlds.Each {
		gotWorlds++
	}
	for key := range s.watchers {
		if key.kind == mcs.Exports || key.kind == mcs.Namespaces || key.kind == mcs.Imports {
			gotWatchers++
		}
	}
	if gotWorlds != worlds || gotWatchers != watchers || watchers == 0 && len(s.watchers) != 0 {
		t.Errorf("%s there are %d worlds and %d watchers (%d of all kinds), want %d and %d",
			when, gotWorlds, gotWatchers, len(s.watchers), worlds, watchers)
	}
}

func (s *store) acquire(who *lease.Tenant, c *config) (*leased, error) {
	return s.worlds.Acquire(who, worldKey(c), func() (*leased, error) { return s.newWorld(c) })
}

func (s *store) mustAcquire(t *testing.T, who *lease.Tenant, c *config) (*world, string) {
	t.Helper()
	l, err := s.acquire(who, c)
	if err != nil {
		t.Fatal(err)
	}
	return l.world, worldKey(c)
}

// put makes a store hold a world that nobody feeds.
func (s *store) put(t *testing.T, key string, w *world) {
	t.Helper()
	if _, err := s.worlds.Acquire(&lease.Tenant{}, key, func() (*leased, error) { return &leased{world: w}, nil }); err != nil {
		t.Fatal(err)
	}
}

func TestLeases(t *testing.T) {
	s := newTestStore(t)
	old, next := &lease.Tenant{}, &lease.Tenant{}
	c := configOf(t, "east", "west")
	began := time.Now()
	w, key := s.mustAcquire(t, old, c)
	if took := time.Since(began); took > time.Second {
		t.Errorf("It took %s, though no API server answers", took)
	}
	s.holds(t, "With one lease", 1, 3) // the exports of two clusters and the namespaces of one

	// Another server block that says the same, and one that differs in what is no matter of the world.
	same, _ := s.mustAcquire(t, old, configOf(t, "east", "west"))
	other := configOf(t, "east", "west")
	other.ttl, other.ignoreEmpty, other.zones = 60, true, []string{"example.org."}
	alike, _ := s.mustAcquire(t, old, other)
	if same != w || alike != w {
		t.Error("Equal views do not share a world")
	}
	s.holds(t, "With three leases", 1, 3)

	// A view that differs shares the watchers.
	remote := configOf(t, "east", "west")
	remote.members[1].Address = mcs.AddressEndpoints
	different, remoteKey := s.mustAcquire(t, old, remote)
	if different == w {
		t.Error("Views that differ share a world")
	}
	s.holds(t, "With another view", 2, 3)

	// A reload: the new instance acquires before the old one releases.
	reloaded, _ := s.mustAcquire(t, next, configOf(t, "east", "west"))
	if reloaded != w {
		t.Error("A reload begins anew")
	}
	for range 3 {
		s.worlds.Release(old, key)
	}
	s.worlds.Release(old, remoteKey)
	s.holds(t, "After the reload", 1, 3)
	s.worlds.Release(old, key) // what it does not hold
	s.worlds.Release(old, "nonsense")
	s.holds(t, "After a release of nothing", 1, 3)
	select {
	case <-w.stop:
		t.Error("The world has ended while it is held")
	default:
	}
	s.worlds.Release(next, key)
	s.holds(t, "After the last release", 0, 0)
	if w.snapshot.Load() == nil {
		t.Error("The last snapshot is gone: queries may still come")
	}
}

func TestAWorldFollowsItsConfiguration(t *testing.T) {
	base := func() *config { return configOf(t, "east", "west") }
	imports := deadEnd(t, "hub")
	for _, tc := range []struct {
		name     string
		change   func(*config)
		watchers int // of both views together
	}{
		{"another local cluster", func(c *config) { c.local = "west" }, 4},
		{"no local cluster", func(c *config) { c.local = "" }, 3},
		{"another address", func(c *config) { c.members[1].Address = mcs.AddressLoadBalancer }, 3},
		{"a gateway", func(c *config) {
			c.members[1].Address, c.members[1].Gateway = mcs.AddressFixed, []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		}, 3},
		{"other namespaces of a member", func(c *config) { c.members[1].Namespaces = []string{"shop"} }, 3},
		{"other addresses of a member", func(c *config) { c.members[1].Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, 3},
		{"stale sooner", func(c *config) { c.stale = time.Second }, 6},
		{"remote members forgotten", func(c *config) { c.expire = time.Hour }, 4},
		{"other credentials", func(c *config) { c.members[1].connection = deadEnd(t, "somebody") }, 4},
		{"one cluster less", func(c *config) { c.members = c.members[:1] }, 3},
		{"one cluster more", func(c *config) {
			c.members = append(c.members, member{Member: mcs.Member{ID: "north"}, connection: deadEnd(t, "north"), region: "r"})
		}, 4},
		{"ServiceImports", func(c *config) { c.imports = &imports }, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTestStore(t)
			one, other := base(), base()
			tc.change(other)
			a, _ := s.mustAcquire(t, &lease.Tenant{}, one)
			b, _ := s.mustAcquire(t, &lease.Tenant{}, other)
			if a == b {
				t.Error("They share a world")
			}
			s.holds(t, "With both", 2, tc.watchers)
		})
	}
}

func TestOldDataServeUntilTheNewWatchHasSynced(t *testing.T) {
	server := watchtest.Start(t)
	server.Put(t, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	connection, err := watch.NewConnection(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	s := newTestStore(t)
	before := configOf(t, "east")
	before.members[0].connection = connection
	old, oldKey := s.mustAcquire(t, &lease.Tenant{}, before)
	for deadline := time.Now().Add(20 * time.Second); !old.snapshot.Load().HasNamespace("shop"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("The namespace did not arrive")
		}
	}
	// The new credentials lead nowhere.
	next, _ := s.mustAcquire(t, &lease.Tenant{}, configOf(t, "east"))
	if oldKey == worldKey(configOf(t, "east")) {
		t.Fatal("The configurations are the same")
	}
	if now := next.snapshot.Load(); !now.HasNamespace("shop") || !now.NamespaceDenied("other") {
		t.Errorf("The new world knows namespace shop: %v; it denies another: %v", now.HasNamespace("shop"), now.NamespaceDenied("other"))
	}
}

func TestAStartWithoutAPIServersAnswersWhatWasKnown(t *testing.T) {
	dir := t.TempDir()
	key := mcs.ServiceKey{Namespace: "shop", Name: "web"}
	hidden := mcs.ServiceKey{Namespace: "gone", Name: "web"}
	for _, r := range []state.Record{
		{Source: mcs.Source{Kind: mcs.Namespaces, Cluster: "east"}, Facts: mcs.Facts{Namespaces: []string{"shop"}}},
		{Source: mcs.Source{Cluster: "east"}},
		{Source: mcs.Source{Cluster: "west"}, Proof: time.Now().Add(-time.Hour), Facts: mcs.Facts{Shards: map[mcs.ServiceKey]*mcs.Shard{
			key: clusterIPShard("10.1.0.1"), hidden: clusterIPShard("10.1.0.2"),
		}}},
	} {
		if err := state.Write(dir, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name   string
		expire time.Duration
		known  bool
	}{
		{"what a silent member said is answered", 0, true},
		{"also while it is not too old", 2 * time.Hour, true},
		{"but not longer than it may be", time.Minute, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newTestStore(t)
			c := configOf(t, "east", "west")
			c.state, c.expire = dir, row.expire
			w, _ := s.mustAcquire(t, &lease.Tenant{}, c)
			deadline := time.Now().Add(20 * time.Second)
			for (w.snapshot.Load().Service("shop", "web") != nil) != row.known && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
			}
			now := w.snapshot.Load()
			if known := now.Service("shop", "web") != nil; known != row.known {
				t.Fatalf("The service is known: %v, want %v", known, row.known)
			}
			if now.Service("gone", "web") != nil {
				t.Error("A service in a namespace that was not there is answered")
			}
			if now.NamespaceDenied("other") || len(now.Unsynced()) == 0 {
				t.Error("What was known before the start denies what may have come since")
			}
			if !w.knowsLocal() || !s.ready(s.started) {
				t.Error("It is not ready")
			}
		})
	}
}

func TestWhatIsKnownIsWritten(t *testing.T) {
	server := watchtest.Start(t)
	server.Put(t, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	connection, err := watch.NewConnection(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	s := newTestStore(t)
	c := configOf(t, "east")
	c.members[0].connection, c.state = connection, t.TempDir()
	mine := &lease.Tenant{}
	w, key := s.mustAcquire(t, mine, c)
	for deadline := time.Now().Add(20 * time.Second); !w.snapshot.Load().HasNamespace("shop"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("The namespace did not arrive")
		}
	}
	s.worlds.Release(mine, key)
	r, err := state.Read(c.state, mcs.Source{Kind: mcs.Namespaces, Cluster: "east"})
	if err != nil || !slices.Equal(r.Facts.Namespaces, []string{"shop"}) || time.Since(r.Proof) > time.Minute {
		t.Errorf("Written is %+v, %v", r, err)
	}
	if _, err := state.Read(c.state, mcs.Source{Cluster: "east"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Of a source that was never read there is %v", err)
	}
}

func TestKeepDropsTheDead(t *testing.T) {
	s := newTestStore(t)
	living, dead := &lease.Tenant{}, &lease.Tenant{}
	w, _ := s.mustAcquire(t, living, configOf(t, "east"))
	s.mustAcquire(t, dead, configOf(t, "east"))
	s.mustAcquire(t, dead, configOf(t, "east", "west"))
	s.holds(t, "Before", 2, 3)
	s.worlds.Keep(func(x *lease.Tenant) bool { return x == living })
	s.holds(t, "After", 1, 2)
	if again, _ := s.mustAcquire(t, living, configOf(t, "east")); again != w {
		t.Error("The living one lost its world")
	}
}

func TestFailingInstancesLeaveNothing(t *testing.T) {
	s := newTestStore(t)
	before := runtime.NumGoroutine()
	living := &lease.Tenant{}
	_, key := s.mustAcquire(t, living, configOf(t, "east"))
	for i := range 100 {
		failed := &lease.Tenant{}
		s.mustAcquire(t, failed, configOf(t, "east", "west"))
		if i%2 == 0 { // a failed one is told nothing: the next one to start, or the old one, finds it
			s.worlds.Keep(func(x *lease.Tenant) bool { return x == living })
		}
	}
	s.worlds.Keep(func(x *lease.Tenant) bool { return x == living })
	s.holds(t, "After 100 failures", 1, 2)
	s.worlds.Release(living, key)
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("There were %d goroutines, now there are %d", before, runtime.NumGoroutine())
		}
	}
}

func TestAcquireThatFailsLeavesNothing(t *testing.T) {
	broken, err := watch.NewConnection(&rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{CAFile: "/nonexistent"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*config)
		says   string
	}{
		{"a member", func(c *config) { c.members[1].connection = broken }, "cluster west"},
		{"the local member", func(c *config) { c.members[0].connection = broken }, "cluster east"},
		{"ServiceImports", func(c *config) { c.imports = &broken }, "serviceimports"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTestStore(t)
			c := configOf(t, "east", "west")
			tc.change(c)
			_, err := s.acquire(&lease.Tenant{}, c)
			if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "nonexistent") {
				t.Errorf("The error is %v, want one that names %s and the file", err, tc.says)
			}
			s.holds(t, "After the failure", 0, 0)
		})
	}
}

func TestReady(t *testing.T) {
	tell := func(sources ...mcs.Source) func(*world) {
		return func(w *world) {
			for _, source := range sources {
				w.SetSynced(source)
			}
		}
	}
	local := []mcs.Source{{Cluster: "east"}, {Kind: mcs.Namespaces, Cluster: "east"}}
	all := append(slices.Clone(local), mcs.Source{Cluster: "west.eu"}, mcs.Source{Kind: mcs.Imports})
	noLocal := mcs.Scope{Members: membersOf("west.eu")}
	for _, tc := range []struct {
		name   string
		worlds []*world
		early  bool // 4.9 s after the start
		late   bool // 5 s after the start
	}{
		{"no server block has the plugin", nil, true, true},
		{"everything is known", []*world{newTestWorld(shopScope, tell(all...))}, true, true},
		{"the local cluster is known: the others are given 5 s", []*world{newTestWorld(shopScope, tell(local...))}, false, true},
		{"the namespaces of the local cluster are not known", []*world{newTestWorld(shopScope, tell(local[0]))}, false, false},
		{"the exports of the local cluster are not known", []*world{newTestWorld(shopScope, tell(all[1:]...))}, false, false},
		{"nothing is known", []*world{newTestWorld(shopScope, tell())}, false, false},
		{"there is no local cluster: 5 s", []*world{newTestWorld(noLocal, tell())}, false, true},
		{"one of two views is not known", []*world{newTestWorld(shopScope, tell(all...)), newTestWorld(shopScope, tell())}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore()
			for i, w := range tc.worlds {
				s.put(t, fmt.Sprint(i), w)
			}
			if got := s.ready(s.started.Add(4900 * time.Millisecond)); got != tc.early {
				t.Errorf("Early: %v, want %v", got, tc.early)
			}
			s.wasReady.Store(false) // as if nobody had asked
			if got := s.ready(s.started.Add(5 * time.Second)); got != tc.late {
				t.Errorf("Late: %v, want %v", got, tc.late)
			}
		})
	}
	t.Run("never again not ready, whatever a reload brings", func(t *testing.T) {
		s := newStore()
		s.put(t, "a", newTestWorld(shopScope, tell(all...)))
		if !s.ready(s.started) {
			t.Fatal("Not ready at first")
		}
		s.put(t, "b", newTestWorld(shopScope, tell()))
		if !s.ready(s.started) {
			t.Error("Not ready after a reload")
		}
	})
	t.Run("a process whose plugin comes by a reload still waits for the local cluster", func(t *testing.T) {
		s := newStore()
		s.ready(s.started)
		s.put(t, "a", newTestWorld(shopScope, tell()))
		if s.ready(s.started.Add(time.Hour)) {
			t.Error("Ready without knowing anything")
		}
	})
}

// TestAWorldPublishesWhatItIsTold runs a world as the store does.
func TestAWorldPublishesWhatItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(shopScope)
		shopWorld(w)
		if w.snapshot.Load().Len() != 0 {
			t.Error("Something was published before the start")
		}
		w.start()
		first := w.snapshot.Load()
		if first.Service("shop", "web") == nil {
			t.Error("What was told before the start is not in the first snapshot")
		}
		for range 100 {
			w.shard("east", "shop", "new", clusterIPShard("10.0.0.7"))
			w.shard("east", "shop", "new", nil)
		}
		w.shard("east", "shop", "new", clusterIPShard("10.0.0.8"))
		synctest.Wait()
		last := w.snapshot.Load()
		if s := last.Service("shop", "new"); s == nil || s.Members[0].Addrs[0] != netip.MustParseAddr("10.0.0.8") {
			t.Errorf("The last word is not in the snapshot: %+v", s)
		}
		w.close()
		w.shard("east", "shop", "late", clusterIPShard("10.0.0.9"))
		synctest.Wait()
		if w.snapshot.Load() != last {
			t.Error("Something was published after the end")
		}
	})
}

func TestMetricsOfAWorld(t *testing.T) {
	value := func(reason string) float64 { return testutil.ToFloat64(conflicts.WithLabelValues(reason)) }
	invalid := func() float64 { return testutil.ToFloat64(invalidExports.WithLabelValues("east", "NoService")) }
	before, orphans := value("TypeConflict"), invalid()
	w := newTestWorld(shopScope, func(w *world) {
		w.shard("east", "shop", "web", clusterIPShard("10.0.0.1"))
		w.shard("west.eu", "shop", "web", headlessShard())
		w.shard("east", "shop", "orphan", &mcs.Shard{})
	})
	if got := value("TypeConflict") - before; got != 1 {
		t.Errorf("%v conflicts more, want 1", got)
	}
	if got := invalid() - orphans; got != 1 {
		t.Errorf("%v invalid exports more, want 1", got)
	}
	w.shard("west.eu", "shop", "web", headlessShard(sliceOf(nil, host("10.9.0.1", "x")))) // the same conflict
	w.publish()
	if got := value("TypeConflict") - before; got != 1 {
		t.Errorf("%v conflicts more after a change of endpoints, want 1", got)
	}
	w.start()
	w.close()
	if value("TypeConflict") != before || invalid() != orphans {
		t.Errorf("%v conflicts and %v invalid exports are left of a world that has ended", value("TypeConflict")-before, invalid()-orphans)
	}
}

func TestMetricsOfASource(t *testing.T) {
	process.mustAcquire(t, &lease.Tenant{}, configOf(t, "metrics-east", "metrics-west"))
	defer process.worlds.Keep(func(*lease.Tenant) bool { return false })
	o := observer{}
	o.Event("metrics-west", "services", "add", 3)
	o.Reject("metrics-west", watch.BadPort)
	o.Problem("metrics-west", "services", watch.Forbidden, context.Canceled)
	o.State("metrics-west", mcs.Exports, watch.Stale)
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "cluster" && strings.HasPrefix(l.GetValue(), "metrics-") {
					found[f.GetName()] = true
				}
			}
		}
	}
	for _, want := range []string{"events_total", "rejections_total", "watch_problem", "member_state", "member_services", "member_endpoints"} {
		if !found["coredns_clusterset_"+want] {
			t.Errorf("There is no %s", want)
		}
	}
	if got := testutil.ToFloat64(watchProblem.WithLabelValues("metrics-west", "services", "forbidden")); got != 1 {
		t.Errorf("The problem counts %v", got)
	}
	o.Problem("metrics-west", "services", watch.NoProblem, nil)
	if got := testutil.ToFloat64(watchProblem.WithLabelValues("metrics-west", "services", "forbidden")); got != 0 {
		t.Errorf("The problem counts %v after it ended", got)
	}
	o.Event("metrics-west", "services", "list", 3)
	for i, held := range []bool{false, true, false, true} {
		if i > 0 {
			o.Hold("metrics-west", "services", held, 20, 1)
		}
		now := map[bool]float64{true: 1}[held]
		if got := testutil.ToFloat64(collapseHeld.WithLabelValues("metrics-west", "services")); got != now {
			t.Errorf("After step %d, %v collapses are held, want %v", i, got, now)
		}
	}
	if got := testutil.ToFloat64(collapsesTotal.WithLabelValues("metrics-west", "services")); got != 2 {
		t.Errorf("%v collapses are counted, want 2", got)
	}
	problems, err := testutil.GatherAndLint(prometheus.DefaultGatherer)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "coredns_clusterset_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
	process.worlds.Keep(func(*lease.Tenant) bool { return false })
	families, err = prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.Contains(f.String(), "metrics-west") {
			t.Errorf("%s still speaks of a cluster that is gone", f.GetName())
		}
	}
}

func TestSetup(t *testing.T) {
	path := kubeconfigFile(t)
	c := caddy.NewTestController("dns", strings.ReplaceAll("clusterset {\n local east\n cluster east KC\n}", "KC", path))
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	process.holds(t, "After setup", 0, 0)
	plugins := dnsserver.GetConfig(c).Plugin
	if len(plugins) != 1 {
		t.Fatalf("%d plugins were added", len(plugins))
	}
	if h, ok := plugins[0](nil).(*Clusterset); !ok || h.Name() != "clusterset" || h.local != "east" || h.Next != nil {
		t.Errorf("The handler is %+v", h)
	}
	if first := lease.TenantOf(c); first != lease.TenantOf(c) {
		t.Error("One instance is two tenants")
	}
	if lease.TenantOf(c) == lease.TenantOf(caddy.NewTestController("dns", "")) {
		t.Error("Two instances are one tenant")
	}
	if lease.Alive(lease.TenantOf(c)) {
		t.Error("An instance that never started is alive")
	}
	err := setup(caddy.NewTestController("dns", "clusterset {\n ttl x\n}"))
	if err == nil || !strings.HasPrefix(err.Error(), "plugin/clusterset: Testfile:2") {
		t.Errorf("The error is %v", err)
	}
}

func TestListenAddresses(t *testing.T) {
	for _, tc := range []struct {
		hosts []string
		want  []string
	}{
		{[]string{"192.0.2.2", "192.0.2.1", "192.0.2.2"}, []string{"192.0.2.1", "192.0.2.2"}},
		{[]string{"127.0.0.1"}, []string{"127.0.0.1"}},
		{[]string{"::ffff:192.0.2.1", "2001:db8::1"}, []string{"192.0.2.1", "2001:db8::1"}},
		{[]string{"fe80::1%lo"}, []string{"fe80::1"}},
		{nil, nil},
	} {
		var got []string
		for _, a := range listenAddresses(tc.hosts) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("Listening on %v: got %v, want %v", tc.hosts, got, tc.want)
		}
	}
	for _, hosts := range [][]string{{""}, {"0.0.0.0"}, {"::"}} {
		if got, want := listenAddresses(hosts), interfaceAddresses(); len(got) == 0 || len(got) > len(want) {
			t.Errorf("Listening on %q: got %v of %v", hosts, got, want)
		}
	}
	for _, a := range interfaceAddresses() {
		if a.IsLinkLocalUnicast() || a.Is4In6() || a.Zone() != "" {
			t.Errorf("An interface has %v", a)
		}
	}
}

func TestSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		stop := slowly(func(context.Context) time.Duration {
			at = append(at, time.Since(began))
			return slowlyRetry * time.Duration(len(at))
		})
		time.Sleep(4 * time.Minute)
		stop()
		time.Sleep(time.Hour)
		if want := []time.Duration{0, time.Minute, 3 * time.Minute}; !slices.Equal(at, want) {
			t.Errorf("Read after %v, want %v", at, want)
		}
	})
}

func TestReadyAsksTheProcess(t *testing.T) {
	if !(&Clusterset{}).Ready() {
		t.Error("Without any world there is nothing to wait for")
	}
}

func TestPolicyHash(t *testing.T) {
	s, first, second := newTestStore(t), &lease.Tenant{}, &lease.Tenant{}
	hold := func(who *lease.Tenant, hashes ...uint64) {
		for _, hash := range hashes {
			h := &Clusterset{config: config{hash: hash}}
			if _, err := s.handlers.Acquire(who, fmt.Sprintf("%p", h), func() (*Clusterset, error) { return h, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep := func(who *lease.Tenant) { s.handlers.Keep(func(t *lease.Tenant) bool { return t == who }) }
	defer keep(nil)
	const large, other = uint64(1)<<63 + 5, uint64(1)<<40 + 1
	if got := s.policyHash(); got != 0 {
		t.Errorf("It is %v without a stanza", got)
	}
	hold(first, large, other)
	was := s.policyHash()
	hold(second, other, large)
	keep(second)
	if got := s.policyHash(); got != was {
		t.Errorf("It is %v after a reload of the same stanzas in another order, and was %v", got, was)
	}
	hold(first, large, other+1)
	keep(first)
	if got := s.policyHash(); got == was {
		t.Errorf("It is still %v after a reload with another stanza", got)
	}
}
