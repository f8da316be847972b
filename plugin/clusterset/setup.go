package clusterset

import (
	"net"
	"net/netip"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

func init() {
	plugin.Register(pluginName, setup)
	for _, reason := range mcs.ConflictReasons() {
		conflicts.WithLabelValues(reason).Set(0)
	}
	prometheus.MustRegister(collector{})
}

// setup parses the stanza. It acquires nothing: a Corefile may yet fail, and its instance is then discarded without a
// word. What OnStartup acquires, OnShutdown releases; what a failed successor acquired, OnRestartFailed drops.
func setup(c *caddy.Controller) error {
	config, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	handler := &Clusterset{config: *config}
	mine := tenantOf(c)
	lease := ""
	c.OnStartup(func() error {
		process.keep(alive)
		world, key, err := process.acquire(mine, config)
		if err != nil {
			return plugin.Error(pluginName, err)
		}
		handler.world, lease = world, key
		handler.listen = listenAddresses(dnsserver.GetConfig(c).ListenHosts)
		return handler.findNeighbours(dnsserver.GetConfig(c))
	})
	c.OnShutdown(func() error {
		process.release(mine, lease)
		return nil
	})
	c.OnRestartFailed(func() error {
		process.keep(alive)
		return nil
	})
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		handler.Next = next
		return handler
	})
	return nil
}

// tenantKey is where the storage of a server instance keeps its tenant.
type tenantKey struct{}

func tenantOf(c *caddy.Controller) *tenant {
	if t, ok := c.Get(tenantKey{}).(*tenant); ok {
		return t
	}
	t := &tenant{}
	c.Set(tenantKey{}, t)
	return t
}

// alive reports whether the instance of a tenant is running or starting. Whether a restart failed cannot be told from
// being called back: the error of another plugin's OnShutdown makes a successful one look failed.
func alive(t *tenant) bool {
	return slices.ContainsFunc(caddy.Instances(), func(i *caddy.Instance) bool {
		i.StorageMu.RLock()
		defer i.StorageMu.RUnlock()
		return i.Storage[tenantKey{}] == t
	})
}

// listenAddresses are what ns.dns.ZONE resolves to: the addresses this server block listens on, those of all interfaces
// where it listens on any, without loopback if there is anything else.
func listenAddresses(hosts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, host := range hosts {
		if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
			addrs = append(addrs, a.Unmap().WithZone(""))
			continue
		}
		addrs = append(addrs, interfaceAddresses()...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func interfaceAddresses() []netip.Addr {
	var all, outer []netip.Addr
	nets, err := net.InterfaceAddrs()
	if err != nil {
		log.Warningf("No addresses for ns.dns: %v", err)
		return nil
	}
	for _, n := range nets {
		prefix, err := netip.ParsePrefix(n.String())
		if err != nil || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		all = append(all, prefix.Addr().Unmap())
		if !prefix.Addr().IsLoopback() {
			outer = append(outer, prefix.Addr().Unmap())
		}
	}
	if len(outer) > 0 {
		return outer
	}
	return all
}
