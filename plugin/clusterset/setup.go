package clusterset

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
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
	handler := &Clusterset{config: *config, tenant: lease.TenantOf(c), number: process.numbered.Add(1)}
	begin := func() (*leased, error) {
		l, err := process.newWorld(config)
		if err != nil {
			return nil, plugin.Error(pluginName, err)
		}
		return l, nil
	}
	process.worlds.Hold(c, worldKey(config), begin, func(l *leased) error {
		handler.world = l.world
		warnInsecure(config)
		handler.listen = listenAddresses(dnsserver.GetConfig(c).ListenHosts)
		if handler.shadow && handler.Next == nil {
			return plugin.Error(pluginName, errors.New("'shadow' lets the next plugin answer, and no plugin stands after clusterset in this server block: add one, such as kubernetes or forward, or remove 'shadow'"))
		}
		return handler.findNeighbours(dnsserver.GetConfig(c), func(name string) bool { return lease.Announced(c, name) })
	})
	itself := func() (*Clusterset, error) { return handler, nil }
	process.handlers.Hold(c, fmt.Sprintf("%p", handler), itself, func(*Clusterset) error { return nil })
	if err := process.holdStatus(c, handler); err != nil {
		return plugin.Error(pluginName, err)
	}
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		handler.Next = next
		return handler
	})
	return nil
}

// warnInsecure names the clusters whose API servers could be anybody.
func warnInsecure(c *config) {
	for i := range c.members {
		if m := &c.members[i]; m.connection.Insecure() {
			log.Warningf("Cluster %s: %s", m.ID, insecureWarning)
		}
	}
	if c.imports != nil && c.imports.Insecure() {
		log.Warningf("Cluster serviceimports: %s", insecureWarning)
	}
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
