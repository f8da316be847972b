package differential

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const zone = "clusterset.local."

// kind is what a query is about. The test counts the queries of each.
type kind string

const (
	clusterSetIPA    kind = "ClusterSetIP A"
	clusterSetIPAAAA kind = "ClusterSetIP AAAA"
	headlessA        kind = "headless A"
	headlessAAAA     kind = "headless AAAA"
	dualStack        kind = "dual stack A and AAAA"
	hostnames        kind = "endpoint by hostname"
	addressNames     kind = "endpoint by address"
	srvOfPort        kind = "SRV of a port"
	srvOfService     kind = "SRV of a service"
	belowClusterIP   kind = "endpoint below ClusterSetIP"
	ports            kind = "address of a port"
	txt              kind = "TXT"
	otherTypes       kind = "other types"
	emptyNames       kind = "empty names in between"
	unknownNames     kind = "names that nobody has"
	strangeForms     kind = "names of no known form"
	furniture        kind = "furniture of the zone"
)

var kinds = []kind{
	clusterSetIPA, clusterSetIPAAAA, headlessA, headlessAAAA, dualStack, hostnames, addressNames, srvOfPort, srvOfService,
	belowClusterIP, ports, txt, otherTypes, emptyNames, unknownNames, strangeForms, furniture,
}

// query is a question, and what the rules need to know about it.
type query struct {
	kind  kind
	name  string // in the case that is asked
	qtype uint16
	// service is the one whose name the name ends in, nil for none. below is what stands before it, in lower case.
	service *service
	below   string
}

// relative is the name without the zone, in lower case and without a dot at the end; "" is the apex.
func (q query) relative() string {
	return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(q.name), zone), ".")
}

var others = []uint16{
	dns.TypeCNAME, dns.TypeMX, dns.TypePTR, dns.TypeNS, dns.TypeSOA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeHINFO, dns.TypeCAA,
	dns.TypeNAPTR, dns.TypeDS, dns.TypeDNSKEY, dns.TypeANY,
}

// asker collects queries.
type asker struct {
	w       *world
	queries []query
}

// ask adds a query for a name in the zone.
func (a *asker) ask(k kind, relative string, qtypes ...uint16) {
	for _, qtype := range qtypes {
		a.queries = append(a.queries, query{kind: k, name: a.shout(dns.Fqdn(joined(relative, zone))), qtype: qtype})
	}
}

// about adds a query for a service, or for what stands below it.
func (a *asker) about(k kind, s *service, below string, qtypes ...uint16) {
	begin := len(a.queries)
	a.ask(k, joined(below, s.name+"."+s.namespace+".svc"), qtypes...)
	for i := begin; i < len(a.queries); i++ {
		a.queries[i].service, a.queries[i].below = s, below
	}
}

func joined(below, above string) string {
	if below == "" {
		return above
	}
	return below + "." + above
}

// shout turns some letters of some names to upper case.
func (a *asker) shout(name string) string {
	if a.w.IntN(3) > 0 {
		return name
	}
	letters := []byte(name)
	for i, c := range letters {
		if c >= 'a' && c <= 'z' && a.w.IntN(2) == 0 {
			letters[i] = c - 'a' + 'A'
		}
	}
	return string(letters)
}

// any returns some of the other types.
func (a *asker) any(n int) []uint16 {
	types := slices.Clone(others)
	a.w.Shuffle(len(types), func(i, j int) { types[i], types[j] = types[j], types[i] })
	return types[:n]
}

// queries asks about everything there is, and about much that is not.
func (w *world) queries() []query {
	a := &asker{w: w}
	for _, s := range w.services {
		a.services(s)
		a.ports(s)
		a.endpoints(s)
		a.forms(s)
	}
	a.furniture()
	return a.queries
}

func (a *asker) services(s *service) {
	kindA, kindAAAA := clusterSetIPA, clusterSetIPAAAA
	if s.shape.headless {
		kindA, kindAAAA = headlessA, headlessAAAA
	}
	if slices.Contains(s.shape.families, v4) && slices.Contains(s.shape.families, v6) {
		kindA, kindAAAA = dualStack, dualStack
	}
	a.about(kindA, s, "", dns.TypeA)
	a.about(kindAAAA, s, "", dns.TypeAAAA)
	a.about(srvOfService, s, "", dns.TypeSRV)
	a.about(txt, s, "", dns.TypeTXT)
	a.about(otherTypes, s, "", a.any(2)...)
}

func (a *asker) ports(s *service) {
	for _, p := range s.ports {
		if p.name == "" {
			continue
		}
		name := "_" + p.name + "._" + strings.ToLower(string(p.protocol))
		a.about(srvOfPort, s, name, dns.TypeSRV)
		a.about(ports, s, name, dns.TypeA, dns.TypeAAAA)
		a.about(otherTypes, s, name, a.any(1)...)
		a.about(txt, s, name, dns.TypeTXT)
	}
	a.about(unknownNames, s, "_nothing._tcp", dns.TypeSRV, dns.TypeA)
	a.about(unknownNames, s, "_http._quic", dns.TypeSRV)
	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		a.about(emptyNames, s, "_"+protocol, []uint16{dns.TypeA, dns.TypeSRV, dns.TypeTXT}[a.w.IntN(3)])
	}
}

func (a *asker) endpoints(s *service) {
	labels := s.labels()
	a.w.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
	byHostname := map[string]bool{}
	for _, sl := range s.slices {
		for _, e := range sl.endpoints {
			byHostname[e.hostname] = true
		}
	}
	for _, label := range labels[:min(4, len(labels))] {
		k := addressNames
		if byHostname[label] {
			k = hostnames
		}
		if !s.shape.headless {
			k = belowClusterIP
		}
		name := label + "." + s.cluster
		a.about(k, s, name, dns.TypeA, dns.TypeAAAA, dns.TypeSRV)
		a.about(otherTypes, s, name, append(a.any(1), dns.TypeTXT)...)
		a.about(unknownNames, s, label, dns.TypeA)
		a.about(unknownNames, s, label+".nowhere", dns.TypeA)
	}
	a.about(unknownNames, s, "nobody."+s.cluster, dns.TypeA, dns.TypeSRV)
	a.about(emptyNames, s, s.cluster, dns.TypeA, dns.TypeTXT)
	if _, registry, ok := strings.Cut(s.cluster, "."); ok {
		a.about(emptyNames, s, registry, dns.TypeA)
	}
}

func (a *asker) forms(s *service) {
	for _, below := range []string{"http._tcp", "_http.tcp", "_._tcp", "_._", "_http._", "_http._tcp." + s.cluster, "a.b.c.d", "*", "*.*", "_zone", "x.pin._zone"} {
		a.about(strangeForms, s, below, []uint16{dns.TypeA, dns.TypeSRV, dns.TypeTXT, dns.TypeSOA}[a.w.IntN(4)])
	}
	a.about(strangeForms, s, "*", dns.TypeA)
}

// furniture asks for what belongs to no service.
func (a *asker) furniture() {
	every := append([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT}, others...)
	for _, name := range []string{"", "svc", "pod", "dns", "ns.dns", "dns-version", "shop.svc", "nobody.svc", "shop.pod"} {
		k := furniture
		if name == "nobody.svc" || name == "shop.pod" {
			k = unknownNames
		}
		a.ask(k, name, every...)
	}
	for _, name := range []string{
		"nothing.shop.svc", "web.nobody.svc", "a.b.c.nothing.shop.svc", "_http._tcp.nothing.shop.svc", "x.dns-version", "a.ns.dns",
		"10-0-0-1.shop.pod", "web.shop", "web", "shop.service", "svc.svc", "web.shop.svc.svc",
	} {
		a.ask(unknownNames, name, dns.TypeA, dns.TypeSRV, dns.TypeTXT, dns.TypeHTTPS, dns.TypeSOA)
	}
}
