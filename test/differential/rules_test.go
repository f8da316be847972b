package differential

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// reply is what a comparison looks at: names in lower case, records as sorted text.
type reply struct {
	rcode  int
	aa     bool
	soa    bool // the authority section holds the zone's SOA record
	answer []record
	extra  []record
}

// record is a resource record in comparable form.
type record struct {
	owner  string
	rrtype uint16
	ttl    uint32
	data   string
	weight uint16 // of an SRV record, which data leaves out
}

func (r record) String() string {
	return fmt.Sprintf("%s %d %s %s", r.owner, r.ttl, dns.TypeToString[r.rrtype], r.data)
}

// read turns a message into a reply.
func read(m *dns.Msg) reply {
	r := reply{rcode: m.Rcode, aa: m.Authoritative, answer: records(m.Answer), extra: records(m.Extra)}
	r.soa = slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeSOA && strings.EqualFold(rr.Header().Name, zone)
	})
	return r
}

func records(rrs []dns.RR) []record {
	var out []record
	for _, rr := range rrs {
		h := rr.Header()
		r := record{owner: strings.ToLower(h.Name), rrtype: h.Rrtype, ttl: h.Ttl}
		switch rr := rr.(type) {
		case *dns.OPT:
			continue
		case *dns.SRV:
			r.data = fmt.Sprintf("%d %d %s", rr.Priority, rr.Port, strings.ToLower(rr.Target))
			r.weight = rr.Weight
		case *dns.SOA:
			r.data = strings.ToLower(fmt.Sprintf("%s %s %d %d %d %d", rr.Ns, rr.Mbox, rr.Refresh, rr.Retry, rr.Expire, rr.Minttl))
		case *dns.TXT:
			r.data = strings.Join(rr.Txt, " ")
		default:
			r.data = strings.ToLower(strings.TrimPrefix(rr.String(), h.String()))
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b record) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// equal compares everything but SRV weights.
func (r reply) equal(o reply) bool {
	return r.rcode == o.rcode && r.aa == o.aa && r.soa == o.soa && sameRecords(r.answer, o.answer) && sameRecords(r.extra, o.extra)
}

// sameRecords compares two sorted sets; a record that stands in one of them twice makes a difference.
func sameRecords(a, b []record) bool {
	return slices.EqualFunc(a, b, func(x, y record) bool { return x.String() == y.String() })
}

func (r reply) String() string {
	return fmt.Sprintf("%s aa=%t soa=%t answer=%v extra=%v", dns.RcodeToString[r.rcode], r.aa, r.soa, r.answer, r.extra)
}

func nodata() *reply   { return &reply{rcode: dns.RcodeSuccess, aa: true, soa: true} }
func nxdomain() *reply { return &reply{rcode: dns.RcodeNameError, aa: true, soa: true} }

// addresses is the answer of those addresses that are of the type asked for; NODATA without any.
func addresses(q query, addrs []netip.Addr) *reply {
	r := &reply{rcode: dns.RcodeSuccess, aa: true, answer: addressRecords(strings.ToLower(q.name), q.qtype, addrs)}
	if len(r.answer) == 0 {
		return nodata()
	}
	return r
}

// addressRecords makes records of one type, or of both for 0.
func addressRecords(owner string, qtype uint16, addrs []netip.Addr) []record {
	var rrs []dns.RR
	for _, a := range addrs {
		h := dns.RR_Header{Name: owner, Class: dns.ClassINET, Ttl: ttl}
		if a.Is4() && qtype != dns.TypeAAAA && (qtype == dns.TypeA || qtype == 0) {
			h.Rrtype = dns.TypeA
			rrs = append(rrs, &dns.A{Hdr: h, A: a.AsSlice()})
		}
		if a.Is6() && (qtype == dns.TypeAAAA || qtype == 0) {
			h.Rrtype = dns.TypeAAAA
			rrs = append(rrs, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	return records(rrs)
}

// ttl is what both plugins give by default, in seconds.
const ttl = 5

// rule is one difference between our answers and CoreDNS's that we want. apply says how CoreDNS's answer would look if
// it followed the rule, and returns nil where the rule does not apply.
type rule struct {
	name    string
	section string // of the rules for clusterset.local
	apply   func(q query, theirs reply) *reply
}

// rules are all differences that there may be. They apply one after the other.
var rules = []rule{
	{"dns-version is that of the multi-cluster schema", "1, table of records", func(q query, r reply) *reply {
		if q.relative() != "dns-version" || q.qtype != dns.TypeTXT || len(r.answer) != 1 || r.answer[0].data != "1.1.0" {
			return nil
		}
		r.answer = slices.Clone(r.answer)
		r.answer[0].data = "1.0.0"
		return &r
	}},
	{"dns-version exists for every type", "9", func(q query, _ reply) *reply {
		if q.relative() != "dns-version" || q.qtype == dns.TypeTXT {
			return nil
		}
		return nodata()
	}},
	{"ns.dns is the address listened on, loopback included", "9, SOA and NS at the apex", applyNameServer},
	{"the apex, svc and namespaces exist for TXT", "9", func(q query, _ reply) *reply {
		name := q.relative()
		namespace, isNamespace := strings.CutSuffix(name, ".svc")
		exists := name == "" || name == "svc" || name == "pod" || isNamespace && slices.Contains(namespaces, namespace)
		if q.qtype != dns.TypeTXT || !exists {
			return nil
		}
		return nodata()
	}},
	{"empty non-terminals exist", "9", applyEmpty},
	{"two-label cluster ids", "5.6 and 13", applyTwoLabels},
	{"publishNotReadyAddresses is honoured", "2.2 and 13", applyPublishNotReady},
	{"ClusterSetIP services have no endpoint names", "1.2, 1.3 and 13", func(q query, _ reply) *reply {
		if q.service == nil || q.service.shape.headless || strings.Contains(q.below, "_") || !strings.HasSuffix(q.below, "."+q.service.cluster) {
			return nil
		}
		return nxdomain()
	}},
	{"an empty label is no wildcard", "1.8", func(q query, _ reply) *reply {
		labels := strings.Split(q.below, ".")
		if len(labels) != 2 || !slices.Contains(labels, "_") {
			return nil
		}
		return nxdomain()
	}},
	{"ports are _port._protocol and nothing else", "1.2 and 5.6", func(q query, _ reply) *reply {
		labels := strings.Split(q.below, ".")
		if len(labels) != 2 || strings.HasPrefix(labels[0], "_") == strings.HasPrefix(labels[1], "_") {
			return nil
		}
		return nxdomain()
	}},
	{"ports have no addresses", "9, A at _port._proto", func(q query, r reply) *reply {
		if !isPort(q.below) || q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA || r.rcode != dns.RcodeSuccess {
			return nil
		}
		return nodata()
	}},
	{"endpoints have no SRV records", "9, SRV at an endpoint", func(q query, r reply) *reply {
		if q.service == nil || !q.service.shape.headless || q.below == "" || isPort(q.below) || q.qtype != dns.TypeSRV || r.rcode != dns.RcodeSuccess {
			return nil
		}
		return nodata()
	}},
	{"unnamed ports have no SRV records", "1, table of records", applyUnnamed},
	{"glue holds all addresses of its target", "1, table of records: additional", applyGlue},
}

func isPort(below string) bool {
	port, protocol, _ := strings.Cut(below, ".")
	return strings.HasPrefix(port, "_") && strings.HasPrefix(protocol, "_") && !strings.Contains(protocol, ".")
}

// listening is the address that both servers listen on.
var listening = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}

func applyNameServer(q query, _ reply) *reply {
	const host = "ns.dns." + zone
	switch {
	case q.relative() == "ns.dns":
		return addresses(q, listening)
	case q.relative() == "" && q.qtype == dns.TypeNS:
		ns := []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: ttl}, Ns: host}}
		return &reply{aa: true, answer: records(ns), extra: addressRecords(host, 0, listening)}
	}
	return nil
}

func applyEmpty(q query, _ reply) *reply {
	if q.relative() == "dns" {
		return nodata()
	}
	s := q.service
	if s == nil || q.below == "" {
		return nil
	}
	protocol, ok := strings.CutPrefix(q.below, "_")
	if ok && !strings.Contains(protocol, ".") && s.hasProtocol(protocol) {
		return nodata()
	}
	_, registry, _ := strings.Cut(s.cluster, ".")
	if s.shape.headless && (q.below == s.cluster || q.below == registry) && len(s.shown()) > 0 {
		return nodata()
	}
	return nil
}

func applyTwoLabels(q query, _ reply) *reply {
	s := q.service
	if s == nil || !s.shape.headless || s.cluster != remote {
		return nil
	}
	host, ok := strings.CutSuffix(q.below, "."+remote)
	if !ok || len(s.shown()[host]) == 0 {
		return nil
	}
	return addresses(q, s.shown()[host])
}

func applyPublishNotReady(q query, _ reply) *reply {
	s := q.service
	if s == nil || !s.shape.publishNotReady {
		return nil
	}
	if host, ok := strings.CutSuffix(q.below, "."+s.cluster); ok && len(s.shown()[host]) > 0 {
		return addresses(q, s.shown()[host])
	}
	if q.below != "" && !isPort(q.below) {
		return nil
	}
	if q.qtype == dns.TypeSRV {
		return s.srv(q)
	}
	var all []netip.Addr
	for _, addrs := range s.shown() {
		all = append(all, addrs...)
	}
	if q.below != "" {
		return nil
	}
	return addresses(q, all)
}

// srv is the SRV answer of a headless service that shows all its endpoints.
func (s *service) srv(q query) *reply {
	var rrs []dns.RR
	var extra []record
	for _, sl := range s.slices {
		for _, e := range sl.endpoints {
			target := e.label() + "." + s.cluster + "." + s.name + "." + s.namespace + ".svc." + zone
			begin := len(rrs)
			for _, p := range sl.ports {
				if q.below == "" || q.below == "_"+p.name+"._"+strings.ToLower(string(p.protocol)) {
					h := dns.RR_Header{Name: q.name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: ttl}
					rrs = append(rrs, &dns.SRV{Hdr: h, Port: uint16(p.target), Target: target})
				}
			}
			if len(rrs) > begin {
				extra = append(extra, addressRecords(target, 0, []netip.Addr{e.address})...)
			}
		}
	}
	if len(rrs) == 0 {
		return nil
	}
	slices.SortFunc(extra, func(a, b record) int { return strings.Compare(a.String(), b.String()) })
	return &reply{aa: true, answer: slices.Compact(records(rrs)), extra: extra}
}

// applyUnnamed takes out the SRV records that only unnamed ports explain, and the glue that nobody needs then.
func applyUnnamed(q query, r reply) *reply {
	s := q.service
	if s == nil || q.qtype != dns.TypeSRV || s.shape.ports != unnamedPort || len(r.answer) == 0 {
		return nil
	}
	return nodata()
}

// applyGlue lets a host that has an address in a slice without the port asked for show it too: it is an address of the
// target all the same.
func applyGlue(q query, r reply) *reply {
	s := q.service
	if s == nil || q.qtype != dns.TypeSRV || s.shape.ports != portsOfSlices || len(r.answer) == 0 {
		return nil
	}
	suffix := "." + s.cluster + "." + s.name + "." + s.namespace + ".svc." + zone
	r.extra = nil
	done := map[string]bool{}
	for _, rr := range r.answer {
		target := rr.data[strings.LastIndexByte(rr.data, ' ')+1:]
		if !done[target] {
			r.extra = append(r.extra, addressRecords(target, 0, s.shown()[strings.TrimSuffix(target, suffix)])...)
		}
		done[target] = true
	}
	slices.SortFunc(r.extra, func(a, b record) int { return strings.Compare(a.String(), b.String()) })
	return &r
}
