package clusterset

import "time"

// Ready implements ready.Readiness. The *ready* plugin asks one instance for all server blocks, so it speaks for all.
func (c *Clusterset) Ready() bool { return process.ready(time.Now()) }
