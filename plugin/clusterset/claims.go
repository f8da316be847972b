package clusterset

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// claims are the ids that clusters give themselves by the ClusterProperty cluster.clusterset.k8s.io. One that differs from
// the id in the Corefile means that a kubeconfig leads to another cluster than meant, or that names have been mixed up.
type claims struct {
	mu sync.Mutex // one writer at a time
	// last is immutable, so that who reads takes no lock.
	last atomic.Pointer[map[topology.ClusterID]string]
}

// known returns what is known of all clusters. It must not be changed.
func (c *claims) known() map[topology.ClusterID]string {
	if known := c.last.Load(); known != nil {
		return *known
	}
	return nil
}

// set takes what a cluster says, "" for nothing, and tells it once per change.
func (c *claims) set(id topology.ClusterID, claimed string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, known := c.known()[id]; known && was == claimed {
		return
	}
	next := maps.Clone(c.known())
	if next == nil {
		next = map[topology.ClusterID]string{}
	}
	next[id] = claimed
	c.last.Store(&next)
	if !disagrees(id, claimed) {
		idMismatch.WithLabelValues(string(id)).Set(0)
		return
	}
	idMismatch.WithLabelValues(string(id)).Set(1)
	log.Warningf("Cluster %s: it calls itself %q (ClusterProperty cluster.clusterset.k8s.io): does its kubeconfig lead to another cluster, or has it two names?", id, claimed)
}

// disagrees reports whether a cluster says that it is another one.
func disagrees(id topology.ClusterID, claimed string) bool {
	if claimed == "" {
		return false
	}
	parsed, err := topology.ParseClusterID(claimed)
	return err != nil || parsed != id
}

// disagree reports whether a cluster has said that it is another one.
func (c *claims) disagree(id topology.ClusterID) bool { return disagrees(id, c.known()[id]) }

// forget drops what a cluster said that is no member any more.
func (c *claims) forget(id topology.ClusterID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := maps.Clone(c.known())
	delete(next, id)
	c.last.Store(&next)
}
