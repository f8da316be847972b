// Package clusterset implements the CoreDNS plugin that answers clusterset.local, the zone of the Multi-Cluster Services
// API (KEP-1645), from what the API servers of several clusters export.
//
// It owns the member clusters, their merge and the zone's names and answers, and refuses to decide which of several
// members answers (package balance) or to touch any other zone.
package clusterset

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/chain"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

const pluginName = "clusterset"

var log = clog.NewWithPlugin(pluginName)

// Clusterset is the handler of one server block. Its fields are set before the first query and never change.
type Clusterset struct {
	Next plugin.Handler

	config
	// world is set in OnStartup. It goes on answering from its last snapshot after OnShutdown.
	world *world
	// listen are the addresses this server block listens on.
	listen []netip.Addr
	// locator and healther are the other plugins of this server block, nil when there are none. Set in OnStartup.
	locator  locator
	healther healther
	view     viewCache
	// lastSOA is that of the last answer with one: the next is likely to have the same.
	lastSOA atomic.Pointer[dns.SOA]
	// tenant is the instance that it belongs to, number its place among all handlers; for the status address only.
	tenant *lease.Tenant
	number uint64
}

// Name implements plugin.Handler.
func (c *Clusterset) Name() string { return pluginName }

// ServeDNS implements plugin.Handler. It takes no lock and reads one snapshot.
//
// A query has a goroutine and a small stack of its own, and most of what it costs beside system calls is a stack that has to
// grow. So what is large stands in an answer on the heap, and it is made before anything is written.
func (c *Clusterset) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	zone, qname := -1, ""
	if len(r.Question) > 0 {
		qname = strings.ToLower(r.Question[0].Name)
		zone = zoneOf(c.zones, qname)
	}
	if zone < 0 {
		return chain.Next(pluginName, c.Next, ctx, w, r)
	}
	switch transfer := r.Question[0].Qtype == dns.TypeAXFR || r.Question[0].Qtype == dns.TypeIXFR; {
	case c.shadow && transfer:
		return chain.Next(pluginName, c.Next, ctx, w, r)
	case c.shadow:
		return c.serveShadow(ctx, w, r, zone, qname)
	case transfer:
		return dns.RcodeRefused, nil
	}
	if reply := c.answer(ctx, w, r, zone, qname); reply != nil {
		return dns.RcodeSuccess, w.WriteMsg(reply)
	}
	return chain.Next(pluginName, c.Next, ctx, w, r)
}

// answer makes the reply to a query for a name in lower case in one of the zones, nil when the next plugin has to.
func (c *Clusterset) answer(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, zone int, qname string) *dns.Msg {
	a := answers.Get().(*answer)
	defer a.done()
	if !a.make(c, w, r, zone, qname) {
		return nil
	}
	describe(ctx, a)
	return a.message()
}

// make finds out what is answered to a query for a name, in lower case. It reports false when the next plugin has to do that.
func (a *answer) make(c *Clusterset, w dns.ResponseWriter, r *dns.Msg, zone int, qname string) bool {
	// Names stand in messages as request.Request makes them: asking it would make them again.
	asked := &r.Question[0]
	a.Clusterset, a.snapshot, a.zoneIndex = c, c.world.snapshot.Load(), zone
	a.state.W, a.state.Req, a.qname, a.qtype = w, r, asked.Name, asked.Qtype
	relative := len(qname) - len(c.zones[zone])
	a.lower = qname == asked.Name
	a.zone = a.qname[relative:] // in the case that was asked
	a.name = parseName(strings.TrimSuffix(qname[:relative], "."))
	a.resolve()
	if a.absent {
		if a.rcode = dns.RcodeNameError; !a.certain {
			a.rcode = dns.RcodeServerFailure
		}
		return !c.fall.Through(qname)
	}
	return true
}

// answers are used again: nothing of one is left when its reply is made. The reply is the writer's.
var answers = sync.Pool{New: func() any { return new(answer) }}

func (a *answer) done() {
	*a = answer{}
	answers.Put(a)
}

// message makes the reply.
func (a *answer) message() *dns.Msg {
	asked := a.state.Req
	m := &struct {
		dns.Msg
		question [1]dns.Question
	}{question: [1]dns.Question{asked.Question[0]}}
	m.MsgHdr = dns.MsgHdr{Id: asked.Id, Response: true, Opcode: asked.Opcode, Authoritative: true, Rcode: a.rcode}
	if asked.Opcode == dns.OpcodeQuery {
		m.RecursionDesired, m.CheckingDisabled = asked.RecursionDesired, asked.CheckingDisabled
	}
	m.Question = m.question[:]
	m.Answer, m.Extra = a.records, a.extra
	if len(a.records) == 0 {
		m.Ns = []dns.RR{a.soa()}
	}
	return &m.Msg
}

// soa returns the SOA record of the zone, in the case that was asked. Answers share it, as they do prepared records.
func (a *answer) soa() *dns.SOA {
	zone, serial := a.zones[a.zoneIndex], a.snapshot.Serial()
	if a.zone != zone {
		return soaRecord(a.zone, serial, a.ttl)
	}
	if last := a.lastSOA.Load(); last != nil && last.Serial == serial && last.Hdr.Name == zone {
		return last
	}
	soa := soaRecord(zone, serial, a.ttl)
	a.lastSOA.Store(soa)
	return soa
}

// room returns how many octets the answer has for its records. The reply has an OPT record if the query has one, with those of its
// options that the server knows, which a cookie is not: over TCP, where all must fit, all of them count, and over UDP none, since
// what is made there must be too much rather than too little, or there is no TC.
func (a *answer) room() int {
	taken := 12 + len(a.qname) + 1 + 4
	if opt := a.state.Req.IsEdns0(); opt != nil {
		taken += sizeOPT
		if a.tcp() {
			taken += dns.Len(opt) - sizeOPT
		}
	}
	return a.state.Size() - taken
}

func (a *answer) tcp() bool { return a.state.Proto() == "tcp" }

// answer is one query on its way to its answer.
type answer struct {
	*Clusterset
	snapshot    *mcs.Snapshot
	qname, zone string
	qtype       uint16
	zoneIndex   int // of the zone as it is configured
	name        name
	// state is who asks; client, plan, draw and choice follow from it once they are needed.
	state  request.Request
	client topology.Client
	plan   *balance.Plan
	draw   balance.Draw // see drawn
	choice balance.Choice

	isDrawn bool
	// lower is true when the name was asked in lower case.
	lower bool

	service *mcs.Service
	rcode   int
	records []dns.RR
	extra   []dns.RR
	// absent is true when the name does not exist as far as we know; certain when no source could tell otherwise.
	absent, certain bool
}

// deny says that the name is not known. It is certain only when every source that could hold it has told all it knows.
func (a *answer) deny() {
	a.absent, a.certain = true, len(a.snapshot.Unsynced()) == 0
}

// denyForm says that nothing can ever have the name.
func (a *answer) denyForm() { a.absent, a.certain = true, true }

// resolve fills in the answer. Whoever leaves it without records and without a denial answers NODATA.
func (a *answer) resolve() {
	switch n := &a.name; n.kind {
	case apexName:
		a.apex()
	case versionName:
		if a.qtype == dns.TypeTXT {
			a.records = []dns.RR{&dns.TXT{Hdr: header(a.qname, dns.TypeTXT, versionTTL), Txt: []string{schemaVersion}}}
		}
	case serverName:
		a.addresses(a.serverAddresses())
	case emptyName:
	case namespaceName:
		if !a.snapshot.HasNamespace(n.namespace) {
			a.denyIn(n.namespace)
		}
	case serviceName, belowName:
		a.resolveService()
	default:
		a.denyForm()
	}
}

// serverAddresses are those of ns.dns.ZONE: the DNS Service in front of this server, else what it listens on.
func (a *answer) serverAddresses() []netip.Addr {
	if f := a.world.front; f != nil {
		if addrs := f.addresses(); len(addrs) > 0 {
			return addrs
		}
	}
	return a.listen
}

// denyIn denies a name in a namespace. Nobody can make a name exist in a namespace that the local cluster lacks.
func (a *answer) denyIn(namespace string) {
	if a.snapshot.NamespaceDenied(namespace) {
		a.denyForm()
		return
	}
	a.deny()
}

func (a *answer) apex() {
	switch a.qtype {
	case dns.TypeSOA:
		a.records = []dns.RR{a.soa()}
	case dns.TypeNS:
		ns := "ns.dns." + a.zone
		a.records = []dns.RR{&dns.NS{Hdr: header(a.qname, dns.TypeNS, a.ttl), Ns: ns}}
		a.extra = addressRecords(nil, ns, a.ttl, a.serverAddresses())
	}
}

func (a *answer) resolveService() {
	n := &a.name
	s := a.snapshot.Service(n.namespace, n.service)
	if s == nil {
		a.denyIn(n.namespace)
		return
	}
	a.service = s
	if !a.exists(s) {
		a.deny()
		// A source that does not know the endpoints cannot prove that there are none.
		a.certain = a.certain && !s.EndpointsUnknown()
		return
	}
	if n.kind == serviceName {
		a.atService(s)
		return
	}
	a.below(s)
}

// below answers names below a service.
func (a *answer) below(s *mcs.Service) {
	p := parseBelow(s, a.name.below)
	switch p.kind {
	case portPart:
		if a.qtype == dns.TypeSRV {
			a.srv(s, func(port mcs.Port) bool { return port.Name == p.port && port.Protocol.String() == p.protocol })
		}
	case endpointPart:
		var buf [2]netip.Addr // most have one of each family at most
		a.addresses(p.backend.AppendAddrs(buf[:0]))
	case noPart:
		a.deny()
	}
}

// exists tells whether the service's name exists: a headless one needs a ready endpoint (KEP-1645 specification 2.4.1),
// a ClusterSetIP is there as long as it is exported, unless `ignore empty_service` asks for more.
func (a *answer) exists(s *mcs.Service) bool {
	if s.Type == mcs.Headless {
		return len(s.Backends) > 0
	}
	return !a.ignoreEmpty || s.HasReady()
}

func (a *answer) atService(s *mcs.Service) {
	of, isAddress := familyOf(a.qtype)
	switch {
	case isAddress && s.Import != nil && s.Type != mcs.Headless:
		a.addresses(a.choose(s, of))
	case isAddress:
		a.chosen(s, of)
	case a.qtype == dns.TypeSRV:
		a.srv(s, func(mcs.Port) bool { return true })
	}
}

// chosen answers with the addresses that this client is given: with records of an earlier answer, where there are some and
// the message holds all of them.
func (a *answer) chosen(s *mcs.Service, of balance.Family) {
	a.decide(s)
	if a.plan.Lacks(of) {
		a.choice.Set = -1
		return
	}
	most := 0
	if s.Type == mcs.Headless && !a.holds(len(s.Backends)) {
		most = a.most(of)
	}
	var sole bool
	if a.choice, sole = a.plan.Sole(of, most); !sole {
		a.choice = a.plan.Pick(a.drawn(s), of, most)
	}
	if a.choice.Set < 0 || !a.lower { // the owner is written as it was asked
		a.addresses(a.choose(s, of))
		return
	}
	slot := slotOf(len(a.zones), a.zoneIndex, a.choice.Set, a.qtype)
	known := preparedAt(a.plan, slot)
	if known == nil {
		addrs := a.choose(s, of)
		if !a.fits(len(addrs), of) {
			a.addresses(addrs)
			return
		}
		known = prepare(a.owner(s), a.ttl, addrs)
		process.prepared.keep(a.plan, slot, len(a.zones), known)
	}
	if !a.fits(known.len(), of) {
		a.addresses(a.choose(s, of))
		return
	}
	a.records = known.records()
}

// owner is the name that was asked: that which the service keeps, if it is the same.
func (a *answer) owner(s *mcs.Service) string {
	if name := s.FQDN(); a.qname == name {
		return name
	}
	return a.qname
}

// always is how many addresses most allows however little room there is, and surely how many every message over UDP holds: the
// header, the longest name with its type and class, and an OPT record leave 230 of 512 octets.
const (
	always = 1
	surely = (dns.MinMsgSize - 12 - 255 - 4 - sizeOPT) / sizeAAAA
)

// holds reports whether most allows so many addresses, without finding out how many it does.
func (a *answer) holds(n int) bool { return n <= always || n <= surely && !a.tcp() }

// fits reports whether most allows so many addresses of a family.
func (a *answer) fits(n int, of balance.Family) bool { return a.holds(n) || n <= a.most(of) }

// decide finds the plan for this client and service.
func (a *answer) decide(s *mcs.Service) {
	if a.plan != nil {
		return
	}
	a.locate()
	view := a.view.current(a.Clusterset)
	at := &a.client.Locality
	if at.Region == "" && at.Cluster != "" {
		at.Region = view.Regions[at.Cluster]
	}
	a.plan = a.policy.Plan(s, view, *at)
}

// drawn makes the draw for this client and service.
func (a *answer) drawn(s *mcs.Service) balance.Draw {
	if !a.isDrawn {
		a.isDrawn = true
		a.draw = balance.NewDraw(a.client.Addr, s.Key(), time.Now(), time.Duration(a.ttl)*time.Second, s.ClientIPAffinity)
	}
	return a.draw
}

// choose returns the addresses of one family that this client is given.
func (a *answer) choose(s *mcs.Service, of balance.Family) (addrs []netip.Addr) {
	switch {
	case s.Type == mcs.Headless:
		return backendAddresses(nil, a.backends(s, of, a.most(of)), of)
	case s.Import != nil:
		// The standard demands the ClusterSet IPs, always.
		for _, ip := range s.Import.IPs {
			if ip.IsValid() && of(ip) {
				addrs = append(addrs, ip)
			}
		}
		return addrs
	default:
		a.decide(s)
		addrs, a.choice = a.plan.Addresses(nil, a.drawn(s), of)
		return addrs
	}
}

// backends returns the backends of a headless service that this client is given, at most so many unless most is 0.
func (a *answer) backends(s *mcs.Service, of balance.Family, most int) []*mcs.Backend {
	a.decide(s)
	var indices []int32
	indices, a.choice = a.plan.Backends(nil, a.drawn(s), of, most)
	out := make([]*mcs.Backend, len(indices))
	for i, at := range indices {
		out[i] = &s.Backends[at]
	}
	return out
}

// addresses answers A and AAAA with those that are of the family asked for; other types have no records here.
func (a *answer) addresses(addrs []netip.Addr) {
	of, ok := familyOf(a.qtype)
	if !ok {
		return
	}
	most := a.most(of)
	fitting := make([]netip.Addr, 0, min(len(addrs), most))
	for _, addr := range addrs {
		if of(addr) && len(fitting) < most {
			fitting = append(fitting, addr)
		}
	}
	a.records = addressRecords(nil, a.qname, a.ttl, fitting)
}

// most is how many addresses of a family are worth making: what the message holds, and over UDP one too many, so that
// the server sets TC.
func (a *answer) most(of balance.Family) int {
	size := sizeAAAA
	if of(netip.IPv4Unspecified()) {
		size = sizeA
	}
	most := max(always, a.room()/size)
	if !a.tcp() {
		most++
	}
	return most
}

func (a *answer) srv(s *mcs.Service, match func(mcs.Port) bool) {
	target := a.name.service + "." + a.name.namespace + ".svc." + a.zone
	if s.Type == mcs.Headless {
		a.records, a.extra = backendSRV(a.qname, target, a.ttl, s, a.backends(s, nil, 0), match, a.room())
		if a.tcp() {
			a.fit()
		}
		return
	}
	v6 := a.choose(s, balance.IPv6)
	chosen := a.choice.Member
	addrs := append(a.choose(s, balance.IPv4), v6...)
	ports := portsOf(s, func(id topology.ClusterID) bool {
		return a.policy.Answer == balance.All || id == chosen || id == a.choice.Member
	})
	a.records, a.extra = serviceSRV(a.qname, target, a.ttl, ports, addrs, match)
}

// portsOf are the ports on which the addresses of those members listen that are answered: for ClusterSetIP services, those
// of the service, but for members whose pods listen on others.
func portsOf(s *mcs.Service, answered func(topology.ClusterID) bool) []mcs.Port {
	if !slices.ContainsFunc(s.Members, func(c mcs.Contribution) bool { return len(c.Ports()) > 0 }) {
		return s.Ports
	}
	var ports []mcs.Port
	for _, p := range s.Ports {
		for i := range s.Members {
			c := &s.Members[i]
			if len(c.Addrs) == 0 || !answered(c.Cluster) {
				continue
			}
			before := len(ports)
			for _, o := range c.Ports() {
				if o.Name == p.Name {
					ports = append(ports, o)
				}
			}
			if len(ports) == before {
				ports = append(ports, p)
			}
		}
	}
	return ports
}

// fit leaves out what a message over TCP cannot hold, glue first: TC would send the client nowhere.
func (a *answer) fit() {
	room := a.room()
	for i, rr := range a.records {
		// The owner is the question, so it takes two octets instead of all of its name.
		if room -= dns.Len(rr) - (len(a.qname) + 1) + 2; room < 0 {
			a.records, a.extra = a.records[:i], nil
			return
		}
	}
	for i, rr := range a.extra {
		if room -= dns.Len(rr); room < 0 {
			a.extra = a.extra[:i]
			return
		}
	}
}
