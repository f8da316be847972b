package locality

import "time"

// grace is how long readiness waits for the Nodes, counted from the start of the process: a DNS server that knows less
// about its clients is better than none.
const grace = 5 * time.Second

// Ready implements ready.Readiness. The *ready* plugin asks one instance for all server blocks, so it speaks for all.
func (l *Locality) Ready() bool { return process.ready(time.Now()) }

func (s *store) ready(now time.Time) bool {
	if s.wasReady.Load() {
		return true
	}
	ready := true
	if now.Sub(s.started) < grace {
		s.sources.Each(func(n *nodeSource) bool {
			ready = n.nodesListed.Load()
			return ready
		})
	}
	if ready {
		s.wasReady.Store(true)
	}
	return ready
}
