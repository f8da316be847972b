// Package locality implements the CoreDNS plugin that knows where clients are: it maps the address of whoever asks to
// node, zone, region and cluster.
//
// It owns the sources of that knowledge and refuses to decide anything by it: other plugins ask it (Locate), views and
// logs read its metadata. It answers no query itself.
package locality

import (
	"context"
	"net"
	"net/netip"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

const pluginName = "locality"

var log = clog.NewWithPlugin(pluginName)

// Locality is the handler of one server block. Its fields are set before the first query and never change.
type Locality struct {
	Next plugin.Handler

	*config
	// atlas is nil without `nodes`. It is set in OnStartup and goes on answering from its last table after OnShutdown.
	atlas *atlas
}

// Name implements plugin.Handler.
func (l *Locality) Name() string { return pluginName }

// ServeDNS implements plugin.Handler. It answers nothing; a reply to a query with a client subnet is told for whom it
// holds.
func (l *Locality) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if len(l.forwarders.values) > 0 {
		option, _, verdict := l.subnet(source(w), r)
		ecs[verdict].Inc()
		if verdict.echoed() {
			w = newScopeWriter(w, r, option, verdict)
		}
	}
	return plugin.NextOrFailure(pluginName, l.Next, ctx, w, r)
}

// Locate tells who asks, where that is, and how it is known. It takes no lock and allocates nothing.
func (l *Locality) Locate(state *request.Request) topology.Client {
	addr := source(state.W)
	if len(l.forwarders.values) > 0 {
		if _, subnet, verdict := l.subnet(addr, state.Req); verdict == ecsAccepted {
			c := l.locate(subnet.Addr(), subnet.Bits())
			c.Forwarded = true
			return c
		}
	}
	return l.locate(addr, addr.BitLen())
}

// source returns the address that a query came from, the zero Addr where the transport has none.
func source(w dns.ResponseWriter) netip.Addr {
	remote := w.RemoteAddr()
	// Some transports wrap the address; see request.Request.Proto.
	if wrapped, ok := remote.(interface{ Unwrap() net.Addr }); ok {
		if inner := wrapped.Unwrap(); inner != nil {
			remote = inner
		}
	}
	switch a := remote.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case nil:
		return netip.Addr{}
	default:
		port, _ := netip.ParseAddrPort(remote.String())
		return port.Addr().Unmap().WithZone("")
	}
}

// locate looks up a block of addresses, from the most specific source to the least. The block of one client is as long
// as its address.
func (l *Locality) locate(addr netip.Addr, bits int) topology.Client {
	t := noTable
	if l.atlas != nil {
		t = l.atlas.current.Load()
	}
	c := topology.Client{Addr: addr}
	said, written := l.cidrs.find(addr, bits)
	if bits == addr.BitLen() {
		if p := t.exact.find(addr); p != nil {
			c.Source, c.Locality = topology.SourceAddress, l.inside(p, t)
			if written {
				complete(&c.Locality, said)
			}
			return c
		}
	}
	if written {
		c.Source, c.Locality = topology.SourceCIDR, said
		if c.Region == "" && c.Cluster != "" && c.Cluster == l.cluster {
			c.Region = l.ownRegion(t)
		}
		return c
	}
	if t.podsTrusted() {
		if p, ok := t.pods.find(addr, bits); ok {
			c.Source, c.Locality = topology.SourcePodCIDR, l.inside(p, t)
			return c
		}
	}
	if c.Source = topology.SourceNone; l.cluster != "" {
		c.Source, c.Cluster, c.Region = topology.SourceCluster, l.cluster, l.ownRegion(t)
	}
	return c
}

// ownRegion is the region of the own cluster: what is written, else where most of its Nodes are.
func (l *Locality) ownRegion(t *table) string {
	if l.region != "" {
		return l.region
	}
	return t.region
}

// inside makes a locality of a place in the own cluster. A region that is written holds for all of it.
func (l *Locality) inside(p *place, t *table) topology.Locality {
	out := topology.Locality{Cluster: l.cluster, Region: p.region, Zone: p.zone, Node: p.node}
	if l.region != "" || out.Region == "" {
		out.Region = l.ownRegion(t)
	}
	return out
}

// complete fills in a zone that Nodes and EndpointSlices leave open from the operator's table, unless that speaks of
// another cluster or region.
func complete(at *topology.Locality, said topology.Locality) {
	if at.Zone == "" && said.Cluster == at.Cluster && (said.Region == "" || said.Region == at.Region) {
		at.Zone = said.Zone
	}
}
