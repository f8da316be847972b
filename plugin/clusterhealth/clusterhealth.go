// Package clusterhealth implements the CoreDNS plugin that probes the data paths of member clusters and turns the results
// into a damped state of health for each.
//
// It owns probes, their timing and the Corefile's word on draining. It refuses to decide what a state means for an answer,
// and to look at API servers: whether a cluster can be watched is the fact of another plugin.
package clusterhealth

import (
	"context"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/chain"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
)

const pluginName = "clusterhealth"

var log = clog.NewWithPlugin(pluginName)

// Clusterhealth is the handler of one server block. Its fields are set before the first query and never change.
type Clusterhealth struct {
	Next plugin.Handler

	config *config
	// set is set in OnStartup. After OnShutdown it no longer probes, and its last snapshot stays.
	set *set
}

// Name implements plugin.Handler.
func (c *Clusterhealth) Name() string { return pluginName }

// ServeDNS implements plugin.Handler. It answers nothing.
func (c *Clusterhealth) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return chain.Next(pluginName, c.Next, ctx, w, r)
}

// Health returns what is known now of all members that are probed or drained, the same pointer as long as nothing
// changes. It takes no lock. Before OnStartup it is nil, which is neutral.
func (c *Clusterhealth) Health() *health.Snapshot {
	if c.set == nil {
		return nil
	}
	return c.set.snapshot.Load()
}

// History returns the last changes of all members that are probed or drained. It takes no lock; the result must not be changed.
func (c *Clusterhealth) History() health.History {
	if c.set == nil {
		return nil
	}
	return c.set.changes()
}
