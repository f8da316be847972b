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

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/chain"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

const pluginName = "locality"

var log = clog.NewWithPlugin(pluginName)

// Locality is the handler of one server block. Its fields are set before the first query and never change.
type Locality struct {
	Next plugin.Handler

	*config
	// atlas is nil without `nodes`. It is set in OnStartup and goes on answering from its last table after OnShutdown.
	atlas *atlas
	// watcher feeds the atlas, nil where nobody does. For status only.
	watcher *watch.Watcher
}

// Nodes tells how the watch of the Nodes of the local cluster is; false without `nodes`.
func (l *Locality) Nodes() (watch.Status, bool) {
	if l.watcher == nil {
		return watch.Status{}, false
	}
	return l.watcher.Status(), true
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
	return chain.Next(pluginName, l.Next, ctx, w, r)
}

// Locate tells who asks, where that is, and how it is known: it sets c, which must be the zero value. It takes no lock and
// allocates nothing.
func (l *Locality) Locate(state *request.Request, c *topology.Client) {
	c.Addr = source(state.W)
	if len(l.forwarders.values) > 0 {
		if _, subnet, verdict := l.subnet(c.Addr, state.Req); verdict == ecsAccepted {
			c.Addr, c.Forwarded = subnet.Addr(), true
			l.locate(c, subnet.Bits())
			return
		}
	}
	l.locate(c, c.Addr.BitLen())
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

// locate looks up where a block of addresses is, from the most specific source to the least. The block of one client is as
// long as its address. It writes to c, since localities are large and queries have little stack.
func (l *Locality) locate(c *topology.Client, bits int) {
	t := noTable
	if l.atlas != nil {
		t = l.atlas.current.Load()
	}
	said, written := l.cidrs.find(c.Addr, bits)
	if bits == c.Addr.BitLen() {
		if p := t.exact.find(c.Addr); p != nil {
			c.Source = topology.SourceAddress
			l.inside(&c.Locality, p, t)
			if written {
				complete(&c.Locality, said)
			}
			return
		}
	}
	if written {
		c.Source, c.Locality = topology.SourceCIDR, *said
		if c.Region == "" && c.Cluster != "" && c.Cluster == l.cluster {
			c.Region = l.ownRegion(t)
		}
		return
	}
	if t.podsTrusted() {
		if p, ok := t.pods.find(c.Addr, bits); ok {
			c.Source = topology.SourcePodCIDR
			l.inside(&c.Locality, p, t)
			return
		}
	}
	if c.Source = topology.SourceNone; l.cluster != "" {
		c.Source, c.Cluster, c.Region = topology.SourceCluster, l.cluster, l.ownRegion(t)
	}
}

// ownRegion is the region of the own cluster: what is written, else where most of its Nodes are.
func (l *Locality) ownRegion(t *table) string {
	if l.region != "" {
		return l.region
	}
	return t.region
}

// inside tells of a place in the own cluster. A region that is written holds for all of it.
func (l *Locality) inside(at *topology.Locality, p *place, t *table) {
	at.Cluster, at.Region, at.Zone, at.Node = l.cluster, p.region, p.zone, p.node
	if l.region != "" || at.Region == "" {
		at.Region = l.ownRegion(t)
	}
}

// complete fills in a zone that Nodes and EndpointSlices leave open from the operator's table, unless that speaks of
// another cluster or region.
func complete(at, said *topology.Locality) {
	if at.Zone == "" && said.Cluster == at.Cluster && (said.Region == "" || said.Region == at.Region) {
		at.Zone = said.Zone
	}
}
