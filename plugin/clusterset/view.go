package clusterset

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// locator tells where a client is. The *locality* plugin is one.
type locator interface {
	Locate(*request.Request, *topology.Client)
}

// healther tells how well members serve. The *clusterhealth* plugin is one.
type healther interface {
	Health() *health.Snapshot
}

// findNeighbours finds the other plugins of the server block. One that stands in another block only would have no effect
// and nobody would notice, so it is an error. stands tells whether a plugin stands in any block.
func (c *Clusterset) findNeighbours(block *dnsserver.Config, stands func(string) bool) error {
	var ok bool
	switch h := block.Handler("locality"); {
	case h == nil && stands("locality"):
		return elsewhere("locality")
	case h != nil:
		if c.locator, ok = h.(locator); !ok {
			return plugin.Error(pluginName, fmt.Errorf("the plugin locality of this server is %T, which cannot locate clients", h))
		}
	}
	switch h := block.Handler("clusterhealth"); {
	case h == nil && stands("clusterhealth"):
		return elsewhere("clusterhealth")
	case h != nil:
		if c.healther, ok = h.(healther); !ok {
			return plugin.Error(pluginName, fmt.Errorf("the plugin clusterhealth of this server is %T, which knows no health", h))
		}
	}
	return nil
}

func elsewhere(name string) error {
	return plugin.Error(pluginName, fmt.Errorf("the plugin %s stands in another server block only and would have no effect here: write it in every block with clusterset, or in none", name))
}

// Local returns the cluster this server runs in, "" when the Corefile names none. The *clusterhealth* plugin asks, since
// its own cluster's data path tells it whether the prober itself is sick.
func (c *Clusterset) Local() topology.ClusterID { return c.local }

// locate finds out who asks. Without the *locality* plugin, whoever asks this server is in its cluster.
func (a *answer) locate() {
	if a.locator != nil {
		a.locator.Locate(&a.state, &a.client)
		return
	}
	a.client.Addr = remoteAddr(&a.state)
	a.client.Cluster, a.client.Source = a.local, topology.SourceCluster
}

// remoteAddr returns the client's address, the zero value where the transport has none.
func remoteAddr(state *request.Request) netip.Addr {
	switch a := state.W.RemoteAddr().(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	default:
		addr, _ := netip.ParseAddr(state.IP())
		return addr.Unmap()
	}
}

// condition is an immutable view of what the API servers tell about members besides what these export.
type condition struct {
	stale, drained map[topology.ClusterID]bool
	regions        map[topology.ClusterID]string
	// history are the last times that stale and drained changed.
	history health.History
}

// conditions publishes a condition after each change.
type conditions struct {
	now atomic.Pointer[condition]
	mu  sync.Mutex // one writer at a time
}

// What the history of a member says of its API server.
const (
	reasonStale    = "stale"
	reasonFresh    = "no longer stale"
	reasonDrained  = "drained by itself"
	reasonReturned = "no longer drained by itself"
)

func (c *conditions) setStale(id topology.ClusterID, stale bool) {
	c.change(func(next *condition) bool {
		return set(&next.stale, id, stale) && next.note(id, stale, health.Degraded, reasonStale, reasonFresh)
	})
}

func (c *conditions) setDrained(id topology.ClusterID, drained bool) {
	c.change(func(next *condition) bool {
		return set(&next.drained, id, drained) && next.note(id, drained, health.Excluded, reasonDrained, reasonReturned)
	})
}

// note adds to the history that something has become so, or is so no longer.
func (c *condition) note(id topology.ClusterID, is bool, state health.State, begins, ends string) bool {
	change := health.Change{At: time.Now(), State: state, Reason: begins}
	if !is {
		change.State, change.Reason = health.Healthy, ends
	}
	c.history = c.history.With(id, change)
	return true
}

func (c *conditions) setRegion(id topology.ClusterID, region string) {
	c.change(func(next *condition) bool { return set(&next.regions, id, region) })
}

// forget drops all that is known of a cluster.
func (c *conditions) forget(id topology.ClusterID) {
	c.setStale(id, false)
	c.setDrained(id, false)
	c.setRegion(id, "")
	c.change(func(next *condition) bool {
		next.history = next.history.Without(id)
		return true
	})
}

// set replaces a map by a copy with one more value; it reports whether that makes a difference.
func set[V comparable](m *map[topology.ClusterID]V, id topology.ClusterID, value V) bool {
	if (*m)[id] == value {
		return false
	}
	next := maps.Clone(*m)
	if next == nil {
		next = map[topology.ClusterID]V{}
	}
	next[id] = value
	*m = next
	return true
}

func (c *conditions) change(apply func(*condition) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := condition{}
	if now := c.now.Load(); now != nil {
		next = *now
	}
	if apply(&next) {
		c.now.Store(&next)
	}
}

// viewCache keeps the view of the members that queries choose by. It is made anew by the first query after something
// changed, so that there is nothing to run in the background and nothing to be late.
type viewCache struct{ now atomic.Pointer[viewOf] }

// viewOf is a view and what it was made of.
type viewOf struct {
	balance.View
	health    *health.Snapshot
	condition *condition
	dynamic   *[]member
}

func (v *viewCache) current(c *Clusterset) *balance.View {
	var h *health.Snapshot
	if c.healther != nil {
		h = c.healther.Health()
	}
	condition, dynamic := process.conditions.now.Load(), c.world.dynamic.Load()
	if now := v.now.Load(); now != nil && now.health == h && now.condition == condition && now.dynamic == dynamic {
		return &now.View
	}
	members := c.members
	if dynamic != nil {
		members = append(slices.Clip(members), *dynamic...)
	}
	made := &viewOf{View: c.makeView(members, h, condition), health: h, condition: condition, dynamic: dynamic}
	v.now.Store(made)
	return &made.View
}

// makeView combines what is configured, what probes say, and what the API servers' silence says. A member that is stale
// and not probed is degraded: others are preferred, and if there are none it still serves. Silence of the local API
// never degrades the local cluster (its data path is next door).
func (c *Clusterset) makeView(members []member, h *health.Snapshot, now *condition) balance.View {
	view := balance.View{Regions: map[topology.ClusterID]string{}, Weights: map[topology.ClusterID]int{}}
	states := map[topology.ClusterID]health.Status{}
	for i := range members {
		m := &members[i]
		view.Regions[m.ID] = m.region
		if m.region == "" && now != nil {
			view.Regions[m.ID] = now.regions[m.ID]
		}
		if m.weight != nil {
			view.Weights[m.ID] = *m.weight
		}
		status := h.Status(m.ID)
		if stale := now != nil && now.stale[m.ID]; stale && !status.Probed && status.State == health.Healthy && m.ID != c.local {
			status.State, status.Reason = health.Degraded, reasonStale
		}
		if now != nil && now.drained[m.ID] {
			status.State, status.Reason = health.Excluded, reasonDrained
		}
		states[m.ID] = status
	}
	view.Health = health.NewSnapshot(states)
	return view
}
