package locality

import (
	"crypto/tls"
	"net/netip"
	"slices"

	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/miekg/dns"
)

// ecsVerdict says what became of the EDNS client subnet (RFC 7871) of a query.
type ecsVerdict uint8

const (
	ecsNone      ecsVerdict = iota // the query has none
	ecsAccepted                    // believed
	ecsUntrusted                   // the query does not come from one of the forwarders
	ecsMalformed                   // it is no subnet, or there are several
	ecsWithheld                    // a length of 0: the client's address is not to be used
)

// String returns the name used as metric label.
func (v ecsVerdict) String() string {
	return [...]string{"none", "accepted", "untrusted", "malformed", "withheld"}[v]
}

// echoed reports whether the reply has to say for which part of the subnet it holds (RFC 7871 section 7.2.1).
func (v ecsVerdict) echoed() bool { return v != ecsNone && v != ecsMalformed }

// subnet returns the client subnet of a query and whether it is believed. Anybody can write one, so only those of the
// forwarders count. The option is nil when there is none or more than one.
func (l *Locality) subnet(from netip.Addr, r *dns.Msg) (*dns.EDNS0_SUBNET, netip.Prefix, ecsVerdict) {
	option, verdict := findSubnet(r)
	if verdict != ecsAccepted {
		return nil, netip.Prefix{}, verdict
	}
	prefix, verdict := parseSubnet(option)
	if verdict == ecsMalformed {
		return option, netip.Prefix{}, verdict
	}
	if _, ok := l.forwarders.find(from, from.BitLen()); !ok {
		return option, netip.Prefix{}, ecsUntrusted
	}
	return option, prefix, verdict
}

func findSubnet(r *dns.Msg) (*dns.EDNS0_SUBNET, ecsVerdict) {
	opt := r.IsEdns0()
	if opt == nil {
		return nil, ecsNone
	}
	var found *dns.EDNS0_SUBNET
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_SUBNET); ok {
			if found != nil {
				return nil, ecsMalformed
			}
			found = e
		}
	}
	if found == nil {
		return nil, ecsNone
	}
	return found, ecsAccepted
}

// parseSubnet checks the rules of RFC 7871 section 6: the scope of a query is 0, and so are all bits behind the prefix.
func parseSubnet(e *dns.EDNS0_SUBNET) (netip.Prefix, ecsVerdict) {
	if e.SourceScope != 0 {
		return netip.Prefix{}, ecsMalformed
	}
	if e.SourceNetmask == 0 && e.Family <= 2 {
		return netip.Prefix{}, ecsWithheld
	}
	addr, ok := netip.AddrFromSlice(e.Address)
	if e.Family == 1 {
		addr = addr.Unmap()
	}
	if !ok || e.Family == 1 != addr.Is4() || e.Family != 1 && e.Family != 2 || addr.Is4In6() ||
		addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Prefix{}, ecsMalformed
	}
	prefix, err := addr.Prefix(int(e.SourceNetmask))
	if err != nil || prefix.Addr() != addr {
		return netip.Prefix{}, ecsMalformed
	}
	return prefix, ecsAccepted
}

// scopeWriter adds to a reply for which part of the client's subnet it holds.
type scopeWriter struct {
	dns.ResponseWriter
	request *dns.Msg
	option  dns.EDNS0_SUBNET
}

// newScopeWriter returns a writer that answers the option. The scope is the whole subnet when it was believed, since every
// address may be given another answer, and 0 when it was not.
func newScopeWriter(w dns.ResponseWriter, r *dns.Msg, option *dns.EDNS0_SUBNET, v ecsVerdict) *scopeWriter {
	out := &scopeWriter{ResponseWriter: w, request: r, option: *option}
	out.option.Code = dns.EDNS0SUBNET
	if out.option.SourceScope = 0; v == ecsAccepted {
		out.option.SourceScope = option.SourceNetmask
	}
	return out
}

// WriteMsg implements dns.ResponseWriter. The message may be shared, in a cache for example, so a copy is changed.
func (w *scopeWriter) WriteMsg(m *dns.Msg) error {
	out := *m
	at := slices.IndexFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	if at < 0 {
		out.Extra = append(slices.Clone(m.Extra), w.opt())
	} else {
		out.Extra = slices.Clone(m.Extra)
		out.Extra[at] = w.merged(m.Extra[at].(*dns.OPT))
	}
	return w.ResponseWriter.WriteMsg(&out)
}

// opt returns a new OPT record with the option. What the server would otherwise take over from the request it has too:
// the server does that only for replies without an OPT record.
func (w *scopeWriter) opt() *dns.OPT {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	asked := w.request.IsEdns0()
	if asked == nil { // taken out on the way
		asked = opt
	}
	opt.SetUDPSize(asked.UDPSize())
	for _, o := range asked.Option {
		if o.Option() != dns.EDNS0SUBNET && edns.SupportedOption(o.Option()) {
			opt.Option = append(opt.Option, o)
		}
	}
	option := w.option
	opt.Option = append(opt.Option, &option)
	return opt
}

// merged returns a copy of an OPT record with the option. A wider scope that it says already, from an upstream server,
// stays.
func (w *scopeWriter) merged(had *dns.OPT) *dns.OPT {
	opt, option := *had, w.option
	opt.Option = make([]dns.EDNS0, 0, len(had.Option)+1)
	for _, o := range had.Option {
		if e, ok := o.(*dns.EDNS0_SUBNET); ok {
			option.SourceScope = max(option.SourceScope, e.SourceScope)
			continue
		}
		opt.Option = append(opt.Option, o)
	}
	opt.Option = append(opt.Option, &option)
	return &opt
}

// ConnectionState implements dns.ConnectionStater, which the embedded writer hides: the TLS state of the connection, nil
// without TLS.
func (w *scopeWriter) ConnectionState() *tls.ConnectionState {
	if c, ok := w.ResponseWriter.(dns.ConnectionStater); ok {
		return c.ConnectionState()
	}
	return nil
}
