package clusterhealth

import "time"

// grace is how long readiness waits for the first round of probes, counted from the start of the process.
const grace = 5 * time.Second

// Ready implements ready.Readiness. The *ready* plugin asks one instance for all server blocks, so it speaks for all.
func (c *Clusterhealth) Ready() bool { return process.ready(time.Now()) }

func (s *store) ready(now time.Time) bool {
	if s.wasReady.Load() {
		return true
	}
	if now.Sub(s.started) < grace && !s.settled() {
		return false
	}
	s.wasReady.Store(true)
	return true
}
