package clusterhealth

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func init() {
	plugin.Register(pluginName, setup)
	prometheus.MustRegister(collector{process})
}

// localer is what the *clusterset* plugin of the same server block is asked: which cluster the server is in.
type localer interface {
	Local() topology.ClusterID
}

// setup parses the stanza. It acquires nothing: a Corefile may yet fail, and its instance is then discarded without a
// word. What OnStartup acquires, OnShutdown releases; what a failed successor acquired, OnRestartFailed drops.
func setup(c *caddy.Controller) error {
	lease.Announce(c, pluginName)
	config, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	handler := &Clusterhealth{config: config}
	block := dnsserver.GetConfig(c)
	mine, key := lease.TenantOf(c), ""
	c.OnStartup(func() error {
		if l, ok := block.Handler("clusterset").(localer); ok {
			config.local = l.Local()
		}
		process.sets.Keep(lease.Alive)
		key = config.key()
		set, err := process.sets.Acquire(mine, key, func() (*set, error) { return process.begin(config), nil })
		handler.set = set
		return err
	})
	c.OnShutdown(func() error {
		process.sets.Release(mine, key)
		return nil
	})
	c.OnRestartFailed(func() error {
		process.sets.Keep(lease.Alive)
		return nil
	})
	block.AddPlugin(func(next plugin.Handler) plugin.Handler {
		handler.Next = next
		return handler
	})
	return nil
}
