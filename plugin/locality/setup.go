package locality

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

func init() {
	plugin.Register(pluginName, setup)
	prometheus.MustRegister(collector{process})
}

// setup parses the stanza. It acquires nothing: a Corefile may yet fail, and its instance is then discarded without a
// word.
func setup(c *caddy.Controller) error {
	lease.Announce(c, pluginName)
	config, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	handler := &Locality{config: config}
	process.hold(c, handler)
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		handler.Next = next
		return handler
	})
	return nil
}

// store holds what all server blocks and both instances of a reload share. It is the only state at package level.
type store struct {
	started time.Time
	// wasReady is set once ready has been true: readiness is never taken back.
	wasReady atomic.Bool
	// sources are shared by all who watch the same cluster in the same way.
	sources *lease.Pool[*nodeSource]
	// handlers are those in use, each held by itself: for metrics only.
	handlers *lease.Pool[*Locality]

	mu    sync.Mutex     // guards names; taken under the lock of the sources
	names map[string]int // how many sources there are of a cluster: two while one replaces the other
}

// nodeSource is an atlas and the watcher that feeds it.
type nodeSource struct {
	*atlas
	watcher *watch.Watcher
}

// process is the store of this process.
var process = newStore()

func newStore() *store {
	s := &store{started: time.Now(), handlers: lease.NewPool(func(*Locality) {}), names: map[string]int{}}
	s.sources = lease.NewPool(s.end)
	return s
}

// hold lets a handler have what its stanza asks for while its instance runs.
func (s *store) hold(c *caddy.Controller, l *Locality) {
	itself := func() (*Locality, error) { return l, nil }
	s.handlers.Hold(c, fmt.Sprintf("%p", l), itself, func(*Locality) error { return nil })
	if l.nodes == nil {
		return
	}
	begin := func() (*nodeSource, error) { return s.begin(l.config) }
	s.sources.Hold(c, string(l.cluster)+" "+l.nodes.Key, begin, func(n *nodeSource) error {
		l.atlas, l.watcher = n.atlas, n.watcher
		if l.nodes.Insecure() {
			log.Warningf("Cluster %s: %s", n.name, insecureWarning)
		}
		return nil
	})
}

// begin starts to watch. It waits for no API server.
func (s *store) begin(c *config) (*nodeSource, error) {
	a := newAtlas(string(c.cluster))
	w, err := watch.Start(watch.Spec{Kind: mcs.Nodes, Cluster: c.cluster, Connection: *c.nodes, Observer: observer{}, Places: a})
	if err != nil {
		a.close()
		return nil, plugin.Error(pluginName, fmt.Errorf("nodes: %w", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[a.name]++
	return &nodeSource{a, w}, nil
}

// end stops watching. Handlers of an instance that is stopping go on with the last table.
func (s *store) end(n *nodeSource) {
	n.watcher.Close()
	n.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[n.name]--; s.names[n.name] == 0 {
		delete(s.names, n.name)
		forgetSource(n.name)
	}
}
