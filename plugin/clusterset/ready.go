package clusterset

import "time"

// Ready implements ready.Readiness. The *ready* plugin asks one instance for all server blocks, so it speaks for all. Nobody has
// to wait for what only answers in the shadow.
func (c *Clusterset) Ready() bool { return process.onlyShadows() || process.ready(time.Now()) }

func (s *store) onlyShadows() bool {
	only := true
	s.handlers.Each(func(c *Clusterset) bool {
		only = only && c.shadow
		return only
	})
	return only
}
