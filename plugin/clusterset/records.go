package clusterset

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// What DNS prescribes.
const (
	// maxName is the longest domain name in presentation form with its last dot (RFC 1035 section 2.3.4: 255 octets on
	// the wire, of which the first length octet and the root are not in the text, but the last dot is).
	maxName = 254
	// versionTTL is the TTL of dns-version in the schema's example, in seconds.
	versionTTL = 28800
	// schemaVersion is the version of the multi-cluster DNS schema (KEP-1645 specification, section 1).
	schemaVersion = "1.0.0"
	// maxNegativeTTL bounds how long an SOA may be kept, in seconds, as CoreDNS does.
	maxNegativeTTL = 300
)

// Sizes of records in a compressed message: pointer to the owner, type, class, TTL and length, then the address; or
// priority, weight and port, then the target, which RFC 2782 forbids to compress.
const (
	sizeA    = 12 + 4
	sizeAAAA = 12 + 16
	sizeSRV  = 12 + 6
	sizeOPT  = 1 + 10 // the root, and no options
)

// record4 and record6 are records with their addresses.
type record4 struct {
	dns.A
	ip [4]byte
}

type record6 struct {
	dns.AAAA
	ip [16]byte
}

func (r *record4) make(owner string, ttl uint32, addr netip.Addr) {
	r.Hdr, r.ip = header(owner, dns.TypeA, ttl), addr.As4()
	r.A.A = r.ip[:]
}

func (r *record6) make(owner string, ttl uint32, addr netip.Addr) {
	r.Hdr, r.ip = header(owner, dns.TypeAAAA, ttl), addr.As16()
	r.AAAA.AAAA = r.ip[:]
}

// addressRecords makes A or AAAA records, all with the same owner and TTL. Those of a family stand in one place of memory.
func addressRecords(to []dns.RR, owner string, ttl uint32, addrs []netip.Addr) []dns.RR {
	to = slices.Grow(to, len(addrs))
	four := count4(addrs)
	records4, records6 := make([]record4, four), make([]record6, len(addrs)-four)
	for _, a := range addrs {
		if a.Is4() {
			records4[0].make(owner, ttl, a)
			to, records4 = append(to, &records4[0].A), records4[1:]
		} else {
			records6[0].make(owner, ttl, a)
			to, records6 = append(to, &records6[0].AAAA), records6[1:]
		}
	}
	return to
}

func count4(addrs []netip.Addr) (four int) {
	for _, a := range addrs {
		if a.Is4() {
			four++
		}
	}
	return four
}

func header(owner string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// familyOf returns the address family of a query type; false for other types.
func familyOf(qtype uint16) (balance.Family, bool) {
	switch qtype {
	case dns.TypeA:
		return balance.IPv4, true
	case dns.TypeAAAA:
		return balance.IPv6, true
	default:
		return nil, false
	}
}

// backendAddresses appends the addresses of one family, sorted and without duplicates.
func backendAddresses(dst []netip.Addr, backends []*mcs.Backend, of balance.Family) []netip.Addr {
	for i := range backends {
		begin := len(dst)
		dst = backends[i].AppendAddrs(dst)
		kept := dst[:begin]
		for _, a := range dst[begin:] {
			if of(a) {
				kept = append(kept, a)
			}
		}
		dst = kept
	}
	slices.SortFunc(dst, netip.Addr.Compare)
	return slices.Compact(dst)
}

// srv is an SRV record and its glue in the making. Equal ones collapse: RFC 2181 section 5 knows no duplicates in a set.
type srv struct {
	target string
	port   uint16
}

// srvRecords makes the SRV records and, once per target, its addresses.
func srvRecords(owner string, ttl uint32, records []srv, glue func(target int) []netip.Addr) (answer, extra []dns.RR) {
	// As CoreDNS does: all of priority 0, sharing a weight of 100.
	weight := uint16(max(1, 100/max(1, len(records))))
	for i, r := range records {
		answer = append(answer, &dns.SRV{Hdr: header(owner, dns.TypeSRV, ttl), Weight: weight, Port: r.port, Target: r.target})
		// The records of one target stand together.
		if i == 0 || records[i-1].target != r.target {
			extra = addressRecords(extra, r.target, ttl, glue(i))
		}
	}
	return answer, extra
}

// backendSRV makes the SRV records of a headless service: one per ready host name and named port (KEP-1645
// specification 2.4.2). Names that are too long for DNS are left out. When the records take more than room octets, it
// stops, the last record being the one that is too many.
func backendSRV(owner, suffix string, ttl uint32, s *mcs.Service, backends []*mcs.Backend, match func(mcs.Port) bool, room int) (answer, extra []dns.RR) {
	var records []srv
	var from []*mcs.Backend
	name, addrs := make([]byte, 0, maxName), make([]netip.Addr, 0, 2)
	for i := 0; i < len(backends) && room >= 0; i++ {
		b := backends[i]
		name = append(append(append(append(b.AppendLabel(name[:0]), '.'), s.ClusterOf(b)...), '.'), suffix...)
		target := string(name)
		if len(target) > maxName {
			continue
		}
		begin := len(records)
		for _, p := range b.Ports() {
			r := srv{target, p.Number}
			if p.Name != "" && match(p) && !slices.Contains(records[begin:], r) {
				records = append(records, r)
				from = append(from, b)
				if room -= sizeSRV + len(target) + 1; room < 0 {
					break
				}
			}
		}
	}
	return srvRecords(owner, ttl, records, func(i int) []netip.Addr {
		addrs = from[i].AppendAddrs(addrs[:0])
		return addrs
	})
}

// serviceSRV makes the SRV records of a ClusterSetIP service: one per named port, however many clusters export it
// (KEP-1645 specification 2.3.2).
func serviceSRV(owner, target string, ttl uint32, ports []mcs.Port, addrs []netip.Addr, match func(mcs.Port) bool) (answer, extra []dns.RR) {
	var records []srv
	for _, p := range ports {
		r := srv{target, p.Number}
		if p.Name != "" && match(p) && !slices.Contains(records, r) {
			records = append(records, r)
		}
	}
	if len(target) > maxName {
		records = nil
	}
	return srvRecords(owner, ttl, records, func(int) []netip.Addr { return addrs })
}

func soaRecord(zone string, serial, ttl uint32) *dns.SOA {
	return &dns.SOA{
		Hdr:     header(zone, dns.TypeSOA, min(ttl, maxNegativeTTL)),
		Ns:      "ns.dns." + zone,
		Mbox:    "hostmaster." + zone,
		Serial:  serial,
		Refresh: 7200,
		Retry:   1800,
		Expire:  86400,
		Minttl:  ttl,
	}
}
