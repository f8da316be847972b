package watch

import (
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// factsOf makes facts of shop/a and shop/b as a feed would have told them.
func factsOf(t *testing.T) mcs.Facts {
	t.Helper()
	server := newAPIServer(t)
	for _, name := range []string{"a", "b"} {
		server.set("serviceexports", export("shop", name))
		server.set("services", service("shop", name, "10.0.0.1"))
		server.set("endpointslices", slice("shop", "s"+name, name, "10.8.0.1"))
	}
	w, sink := startWatcher(t, mcs.Exports, server.connection())
	sink.isSynced(t)
	w.Unsubscribe(sink)
	return mcs.Facts{Shards: sink.shards}
}

// pedant is a sink that remembers all it was told of shop/a.
type pedant struct {
	*told
	test    *testing.T
	history []string
}

func (p *pedant) ApplyShard(id topology.ClusterID, key mcs.ServiceKey, shard *mcs.Shard, changed time.Time) {
	if key == a {
		p.history = append(p.history, sketch(shard))
	}
	p.told.ApplyShard(id, key, shard, changed)
}

// start runs a watcher with a pedant.
func (p *pedant) start(t *testing.T, spec Spec) *Watcher {
	t.Helper()
	spec.Cluster, spec.Observer = "east", p
	w, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.Subscribe(p)
	return w
}

func (p *pedant) isIn(t *testing.T, w *Watcher, want State) {
	t.Helper()
	eventually(t, "the state is "+want.String(), func() bool { return w.Status().State == want })
}

func TestSeed(t *testing.T) {
	facts := factsOf(t)
	for _, row := range []struct {
		name   string
		synced bool
		state  State
	}{
		{"what was on disk is told as restored, and stale", false, Stale},
		{"what a watcher had told that had synced counts as synced", true, Synced},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := newAPIServer(t)
			server.fail["services"] = http.StatusServiceUnavailable
			server.set("serviceexports", export("shop", "a"))
			server.set("services", service("shop", "a", "10.0.0.2"))
			server.set("endpointslices", slice("shop", "s", "a", "10.8.0.1"))
			p := &pedant{told: newTold()}
			w := p.start(t, Spec{Connection: server.connection(), Seed: &Seed{Facts: facts, Proof: time.Now(), Synced: row.synced}})
			p.has(t, oneIP+" sa 10.8.0.1")
			if got := w.Status(); got.State != row.state {
				t.Errorf("Before the first list the state is %v, want %v", got.State, row.state)
			}
			p.look(func() {
				if len(p.synced) != len(p.restored)^1 || (len(p.synced) == 1) != row.synced {
					t.Errorf("Told synced %v, restored %v", p.synced, p.restored)
				}
			})
			eventually(t, "what is no longer exported is gone", func() (gone bool) {
				p.look(func() { gone = p.shards[b] == nil })
				return gone
			})
			server.change(func() { delete(server.fail, "services") })
			p.has(t, otherIP+" s 10.8.0.1")
			p.isIn(t, w, Synced)
			p.look(func() {
				if len(p.history) != 2 {
					t.Errorf("Something partial was told: %q", p.history)
				}
			})
			if got := w.Status(); got.Services != 1 || got.Endpoints != 1 {
				t.Errorf("Status is %+v", got)
			}
		})
	}
}

func TestSeedOfNamespaces(t *testing.T) {
	server := newAPIServer(t)
	server.fail["namespaces"] = http.StatusServiceUnavailable
	server.set("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}})
	p := &pedant{told: newTold()}
	p.start(t, Spec{Kind: mcs.Namespaces, Connection: server.connection(), Seed: &Seed{Facts: mcs.Facts{Namespaces: []string{"old"}}}})
	p.look(func() {
		if !p.namespaces["old"] || len(p.restored) != 1 {
			t.Errorf("Told %v, restored %v", p.namespaces, p.restored)
		}
	})
	server.change(func() { delete(server.fail, "namespaces") })
	p.isSynced(t)
	p.look(func() {
		if p.namespaces["old"] || !p.namespaces["new"] {
			t.Errorf("Told %v", p.namespaces)
		}
	})
}

func TestFactsOfAWatcher(t *testing.T) {
	server := newAPIServer(t)
	server.set("serviceexports", export("shop", "a"))
	w, sink := startWatcher(t, mcs.Exports, server.connection())
	if seed := w.Seed(); seed != nil {
		t.Errorf("Before it has synced, it knows %+v", seed)
	}
	sink.isSynced(t)
	if seed := w.Seed(); seed == nil || !seed.Synced || seed.Facts.Shards[a] == nil || seed.Proof.IsZero() {
		t.Errorf("It knows %+v", seed)
	}
	w.Unsubscribe(sink)
}

func TestExpiry(t *testing.T) {
	for _, row := range []struct {
		name string
		// before plays until the source is given up on.
		before func(p *pedant)
		seed   *Seed
		state  State
	}{
		{"a source that was known and is silent is forgotten", func(p *pedant) {
			p.has(p.test, oneIP)
		}, nil, Expired},
		{"one that was never read is given up on", nil, nil, TimedOut},
		{"one that is known from disk only is forgotten", nil, &Seed{}, Expired},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := newAPIServer(t)
			server.set("serviceexports", export("shop", "a"))
			server.set("services", service("shop", "a", "10.0.0.1"))
			connection, addr := server.connection(), ""
			if row.before == nil {
				addr = server.stop()
			}
			if row.seed != nil {
				row.seed.Facts, row.seed.Proof = factsOf(t), time.Now()
			}
			p := &pedant{told: newTold(), test: t}
			w := p.start(t, Spec{Connection: connection, ExpireAfter: time.Second, Seed: row.seed})
			if row.before != nil {
				row.before(p)
				addr = server.stop()
			}
			p.isIn(t, w, row.state)
			p.has(t, nothing)
			p.isSynced(t) // unknown names are denied from now on
			server.start(addr)
			p.has(t, oneIP)
			p.isIn(t, w, Synced)
		})
	}
}
