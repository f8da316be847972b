// Package floor has the two CoreDNS plugins that a comparison measures against. Neither knows a cluster: "fixed"
// answers everything with one record, which is what a query costs before a plugin does anything, and "prebuilt" has the
// records of a whole world ready in a map, which is what it costs to know the answer beforehand.
package floor

import (
	"context"
	"strconv"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
)

// Directives is the order of the plugins in a server that has nothing else.
var Directives = []string{"bind", "pprof", "prebuilt", "fixed"}

// ttl is that of all records, in seconds.
const ttl = 5

// Register adds both plugins to CoreDNS. They are called
//
//	fixed
//	prebuilt ZONE SERVICES
func Register() {
	plugin.Register("fixed", func(c *caddy.Controller) error {
		h := fixed{&dns.A{Hdr: header("fixed.", dns.TypeA), A: world.Service(0).ClusterIP().AsSlice()}}
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return h })
		return nil
	})
	plugin.Register("prebuilt", func(c *caddy.Controller) error {
		c.Next()
		args := c.RemainingArgs()
		if len(args) != 2 {
			return plugin.Error("prebuilt", c.ArgErr())
		}
		services, err := strconv.Atoi(args[1])
		if err != nil {
			return plugin.Error("prebuilt", c.Err("the number of services is no number"))
		}
		h := build(dns.Fqdn(args[0]), services)
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return h })
		return nil
	})
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// fixed answers every query with the same record.
type fixed struct{ record dns.RR }

// Name implements plugin.Handler.
func (fixed) Name() string { return "fixed" }

// ServeDNS implements plugin.Handler.
func (f fixed) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	m.Answer = []dns.RR{f.record}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// prebuilt answers from a map by name.
type prebuilt struct {
	names map[string]*records
	soa   []dns.RR
}

// records are what a name has.
type records struct{ a, srv, extra []dns.RR }

// Name implements plugin.Handler.
func (*prebuilt) Name() string { return "prebuilt" }

// ServeDNS implements plugin.Handler.
func (p *prebuilt) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	has, ok := p.names[strings.ToLower(r.Question[0].Name)]
	switch {
	case !ok:
		m.Rcode = dns.RcodeNameError
	case r.Question[0].Qtype == dns.TypeA:
		m.Answer = has.a
	case r.Question[0].Qtype == dns.TypeSRV:
		m.Answer, m.Extra = has.srv, has.extra
	}
	if len(m.Answer) == 0 {
		m.Ns = p.soa
	}
	return m.Rcode, w.WriteMsg(m)
}

// build makes the records of a world as the multi-cluster DNS specification wants them.
func build(zone string, services int) *prebuilt {
	p := &prebuilt{names: make(map[string]*records, 2*services)}
	p.soa = []dns.RR{&dns.SOA{
		Hdr: header(zone, dns.TypeSOA), Ns: "ns.dns." + zone, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}}
	for i := range services {
		s := world.Service(i)
		name := s.FQDN(zone)
		port := "_" + world.PortName + "._tcp." + name
		own, ofPort := &records{}, &records{}
		if s.Headless() {
			for _, address := range s.Addresses() {
				host := strings.ReplaceAll(address.String(), ".", "-") + "." + world.Cluster + "." + name
				own.a = append(own.a, &dns.A{Hdr: header(name, dns.TypeA), A: address.AsSlice()})
				ofPort.srv = append(ofPort.srv, &dns.SRV{Hdr: header(port, dns.TypeSRV), Weight: 100 / world.Endpoints, Port: world.TargetPort, Target: host})
				ofPort.extra = append(ofPort.extra, &dns.A{Hdr: header(host, dns.TypeA), A: address.AsSlice()})
			}
		} else {
			own.a = []dns.RR{&dns.A{Hdr: header(name, dns.TypeA), A: s.ClusterIP().AsSlice()}}
			ofPort.srv = []dns.RR{&dns.SRV{Hdr: header(port, dns.TypeSRV), Weight: 100, Port: world.Port, Target: name}}
			ofPort.extra = own.a
		}
		p.names[name], p.names[port] = own, ofPort
	}
	return p
}
