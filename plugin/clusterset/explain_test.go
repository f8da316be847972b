package clusterset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// explainedWorld is a random server: who is a member, what they export, how they are, and what the Corefile says.
type explainedWorld struct {
	rng     *rand.Rand
	handler *Clusterset
	healthy map[topology.ClusterID]health.Status
	// next is set when the next plugin is asked.
	next bool
}

var explainedClusters = []topology.ClusterID{"east", "north", "south", "west.eu"}

// atPlaces is a locator that knows a few networks.
type atPlaces struct{}

func (atPlaces) Locate(state *request.Request, c *topology.Client) {
	c.Addr = netip.MustParseAddr(state.IP())
	b := c.Addr.As16()
	if b[14] == 9 {
		c.Source = topology.SourceNone
		return
	}
	c.Source = topology.SourceCIDR
	c.Cluster, c.Region = explainedClusters[int(b[14])%4], []string{"eu", "us", ""}[int(b[13])%3]
	c.Zone, c.Node = []string{"a", "b", ""}[int(b[13])%3], []string{"n0", "n1", ""}[int(b[15])%3]
}

type inHealth struct{ now *health.Snapshot }

func (h inHealth) Health() *health.Snapshot { return h.now }

func (x *explainedWorld) chance(percent int) bool { return x.rng.IntN(100) < percent }

func newExplainedWorld(seed uint64) *explainedWorld {
	x := &explainedWorld{rng: rand.New(rand.NewPCG(seed, 7)), healthy: map[topology.ClusterID]health.Status{}}
	scope := mcs.Scope{Local: "east", Imports: true}
	var members []member
	for i, id := range explainedClusters {
		m := member{Member: mcs.Member{ID: id}, region: []string{"eu", "us", ""}[x.rng.IntN(3)], hasAddress: true}
		switch n := x.rng.IntN(6); {
		case i > 0 && n == 0:
			m.Address, m.Gateway = mcs.AddressFixed, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(i)})}
		case i > 0 && n == 1:
			m.Address, m.AnyPort = mcs.AddressEndpoints, x.chance(50)
		}
		if x.chance(20) {
			weight := x.rng.IntN(4) * 10
			m.weight = &weight
		}
		members = append(members, m)
		scope.Members = append(scope.Members, m.Member)
		x.healthy[id] = x.status()
		process.conditions.setStale(id, x.chance(10))
		process.conditions.setDrained(id, x.chance(8))
	}
	w := newTestWorld(scope, func(w *world) {
		x.fill(w)
	})
	x.handler = handlerOf(w, func(c *Clusterset) {
		c.members, c.policy, c.ignoreEmpty = members, x.policy(), x.chance(20)
		c.zones, c.ttl = plugin.Zones{"clusterset.local.", "example.org."}, uint32(x.rng.IntN(60)) //nolint:gosec // small
		if x.chance(20) {
			c.fall.SetZonesFromArgs([]string{"example.org."})
		}
		c.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
			x.next = true
			return dns.RcodeSuccess, nil
		})
		c.healther = inHealth{health.NewSnapshot(x.healthy)}
		c.shadow = x.chance(3)
		if x.chance(80) {
			c.locator = atPlaces{}
		}
	})
	return x
}

func (x *explainedWorld) status() health.Status {
	s := health.Status{Probed: x.chance(50), Reason: health.ReasonGood}
	if x.chance(35) {
		s.State = health.State(1 + x.rng.IntN(3)) //nolint:gosec // below 4
		s.Reason = health.ReasonFailing
	}
	if x.chance(10) {
		s.Factor = 0.1 + float64(x.rng.IntN(9))/10
	}
	return s
}

func (x *explainedWorld) policy() *balance.Policy {
	p := &balance.Policy{Prefer: balance.Preference(x.rng.IntN(3))} //nolint:gosec // below 3
	if x.chance(30) {
		p.Answer = balance.All
	}
	if x.chance(30) {
		p.MaxAnswers = 1 + x.rng.IntN(4)
	}
	if x.chance(30) {
		p.Panic = 50
	}
	for _, l := range []balance.Label{balance.Node, balance.Zone, balance.Cluster, balance.Region} {
		if x.chance(40) {
			p.Labels = append(p.Labels, l)
		}
	}
	return p
}

var explainedServices = []string{"web", "db", "one", "two", "many", "imported", "absent"}

// fill lets the members export random services.
func (x *explainedWorld) fill(w *world) {
	for _, n := range []string{"shop", "data"} {
		w.ApplyNamespace(n, true)
	}
	for _, name := range explainedServices[:5] {
		headless, families, sticky := x.chance(50), 1+x.rng.IntN(3), x.chance(20)
		distribution := []string{"", "PreferSameZone", "PreferSameNode"}[x.rng.IntN(3)]
		for i, id := range explainedClusters {
			if !x.chance(60) {
				continue
			}
			most := 6
			if name == "many" {
				most = 150
			}
			s := x.shard(i, headless, families, most)
			s.Service.ClientIPAffinity, s.Service.TrafficDistribution = sticky, distribution
			w.shard(id, "shop", name, s)
		}
	}
	key := mcs.ServiceKey{Namespace: "shop", Name: "imported"}
	imp := &mcs.ImportShard{Import: mcs.Import{Ports: []mcs.Port{http80}, IPs: mcs.Addresses{netip.MustParseAddr("172.30.0.1")}}}
	if x.chance(50) {
		imp.Import.IPs[1] = netip.MustParseAddr("fd30::1")
	}
	w.ApplyImport(key, imp, time.Time{})
	absent := &mcs.ImportShard{Import: mcs.Import{Traits: mcs.Traits{Type: mcs.Headless}, NoSlices: true}}
	w.ApplyImport(mcs.ServiceKey{Namespace: "shop", Name: "absent"}, absent, time.Time{})
	w.shard("north", "shop", "orphan", &mcs.Shard{})
	for _, m := range w.scope.Members {
		if x.chance(94) {
			w.SetSynced(mcs.Source{Cluster: m.ID})
		}
	}
	w.SetSynced(mcs.Source{Kind: mcs.Namespaces, Cluster: "east"})
	w.SetSynced(mcs.Source{Kind: mcs.Imports})
}

// shard is one member's part of a service; families is 1 for IPv4, 2 for IPv6 and 3 for both.
func (x *explainedWorld) shard(cluster int, headless bool, families, most int) *mcs.Shard {
	s := &mcs.Shard{Export: mcs.Export{WeightPercent: 100, Created: int64(x.rng.IntN(1000))}, Service: &mcs.ServiceSpec{Ports: []mcs.Port{http80, {Name: "peer", Number: 7000}, {Number: 9}}}}
	if x.chance(15) {
		s.Export.WeightPercent = uint8(x.rng.IntN(3) * 30) //nolint:gosec // small
	}
	if headless {
		s.Service.Type = mcs.Headless
	} else {
		at := 0
		if families&1 != 0 {
			s.Service.ClusterIPs[at] = netip.AddrFrom4([4]byte{10, byte(cluster), 0, byte(1 + x.rng.IntN(250))})
			at++
		}
		if families&2 != 0 && !x.chance(20) {
			s.Service.ClusterIPs[at] = netip.AddrFrom16([16]byte{0: 0xfd, 1: byte(cluster), 15: byte(1 + x.rng.IntN(250))})
		}
	}
	slice := &mcs.Slice{Name: "s", Ports: []mcs.Port{http80, {Name: "peer", Number: 7000}}}
	if x.chance(20) {
		slice.Ports = slice.Ports[1:]
	}
	for i := range x.rng.IntN(most + 1) {
		e := mcs.Endpoint{Zone: []string{"a", "b", ""}[x.rng.IntN(3)], Node: []string{"n0", "n1", ""}[x.rng.IntN(3)], Conditions: mcs.Ready | mcs.Serving}
		if x.chance(50) {
			e.Label = fmt.Sprintf("pod-%d", i)
		}
		if x.chance(25) {
			e.Conditions = 0
		}
		four, six := e, e
		four.Addr = netip.AddrFrom4([4]byte{10, 100 + byte(cluster), byte(i >> 8), byte(i)})
		six.Addr = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 2: byte(cluster), 14: byte(i >> 8), 15: byte(i)})
		if families&1 != 0 {
			slice.Endpoints.Add(&four)
		}
		if families&2 != 0 && !x.chance(10) {
			slice.Endpoints.Add(&six)
		}
	}
	s.Slices = []*mcs.Slice{slice}
	return s
}

// question draws a query of any kind.
func (x *explainedWorld) question() Question {
	service := explainedServices[x.rng.IntN(len(explainedServices))] + ".shop.svc."
	q := Question{Type: []uint16{dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeSRV}[x.rng.IntN(4)], TCP: x.chance(15)}
	q.Client = netip.AddrFrom4([4]byte{10, byte(x.rng.IntN(3)), byte(x.rng.IntN(10)), byte(x.rng.IntN(250))})
	if x.chance(20) {
		q.Client = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(x.rng.IntN(3)), 14: byte(x.rng.IntN(10)), 15: byte(x.rng.IntN(250))})
	}
	if x.chance(30) {
		q.Size = []uint16{512, 1232, 4096}[x.rng.IntN(3)]
	}
	names := []string{
		service, service, service, service, service, service, "_http._tcp." + service, "_peer._tcp." + service, "_none._tcp." + service, "_tcp." + service,
		"pod-0." + string(explainedClusters[x.rng.IntN(4)]) + "." + service, "east." + service, "orphan.shop.svc.", "none.shop.svc.", "web.nowhere.svc.",
		"shop.svc.", "nowhere.svc.", "", "dns-version.", "ns.dns.", "dns.", "nonsense.",
	}
	q.Name = names[x.rng.IntN(len(names))] + []string{"clusterset.local.", "example.org"}[x.rng.IntN(2)]
	switch x.rng.IntN(25) {
	case 0:
		q.Type = dns.TypeTXT
	case 1:
		q.Type = dns.TypeSOA
	case 2:
		q.Type = dns.TypeAXFR
	case 3:
		q.Name = strings.ToUpper(q.Name[:1]) + q.Name[1:]
	}
	return q
}

// overTheWire asks the handler as a server does: the query is unpacked, and the reply is packed. There is none when the next
// plugin was asked, or when the server makes one of the code.
func (x *explainedWorld) overTheWire(t *testing.T, q Question) (r *dns.Msg, wire []byte, rcode int) {
	t.Helper()
	size := q.Size
	if size == 0 {
		size = 1232
	}
	packed, err := new(dns.Msg).SetQuestion(dns.Fqdn(q.Name), q.Type).SetEdns0(size, false).Pack()
	if err != nil {
		t.Fatal(err)
	}
	r = new(dns.Msg)
	if err := r.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	w := &wireWriter{replyTo: replyTo{client: q.Client, tcp: q.TCP}}
	x.next = false
	if rcode, err = x.handler.ServeDNS(t.Context(), request.NewScrubWriter(r, w), r); err != nil {
		t.Fatal(err)
	}
	return r, w.wire, rcode
}

// wireWriter keeps the octets that a server would send.
type wireWriter struct {
	replyTo
	wire []byte
}

func (w *wireWriter) WriteMsg(m *dns.Msg) (err error) {
	w.wire, err = m.Pack()
	return err
}

// replyOf makes of an explanation the octets that it says a query gets.
func replyOf(t *testing.T, e *status.Explanation, r *dns.Msg, compress bool) []byte {
	t.Helper()
	m := new(dns.Msg).SetReply(r)
	m.Authoritative, m.Truncated, m.Rcode, m.Compress = true, e.Answer.Truncated, dns.StringToRcode[e.Answer.Rcode], compress
	for to, from := range map[*[]dns.RR][]string{&m.Answer: e.Answer.Answer, &m.Ns: e.Answer.Authority, &m.Extra: e.Answer.Additional} {
		for _, text := range from {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatalf("%q is no record: %v", text, err)
			}
			*to = append(*to, rr)
		}
	}
	m.Extra = append(m.Extra, r.IsEdns0()) // the server returns it
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// kinds tells of which kinds an answer is.
func kinds(q Question, c *Clusterset, e *status.Explanation) (out []string) {
	add := func(is bool, kind string) {
		if is {
			out = append(out, kind)
		}
	}
	a, clusterSetIP, headless := e.Answer, e.ServiceType == "ClusterSetIP", e.ServiceType == "Headless"
	has := len(a.Answer) > 0
	address := q.Type == dns.TypeA || q.Type == dns.TypeAAAA
	chosen := len(e.Tiers) > 0
	add(clusterSetIP && address && chosen && has && c.policy.Answer == balance.One, "ClusterSetIP, one member")
	add(clusterSetIP && address && chosen && has && c.policy.Answer == balance.All, "ClusterSetIP, all members")
	add(headless && address && e.Kind == "service" && has, "headless")
	add(clusterSetIP && q.Type == dns.TypeSRV && e.Kind == "service" && has, "ClusterSetIP, SRV")
	add(headless && q.Type == dns.TypeSRV && e.Kind == "service" && has, "headless, SRV")
	add(clusterSetIP && q.Type == dns.TypeSRV && e.Kind == "port" && has, "ClusterSetIP, SRV of a port")
	add(headless && q.Type == dns.TypeSRV && e.Kind == "port" && has, "headless, SRV of a port")
	add(e.Kind == "endpoint" && has, "one endpoint")
	add(a.Rcode == "NOERROR" && !has && !a.Truncated && !a.Next, "no data")
	add(a.Rcode == "NXDOMAIN" && !a.Next, "denied")
	add(a.Rcode == "SERVFAIL" && !a.Next, "not known")
	add(a.Rcode == "REFUSED", "refused")
	add(a.Next && !c.shadow, "next plugin")
	add(a.Next && c.shadow, "shadow")
	add(a.Truncated, "truncated")
	add(q.TCP && has, "TCP")
	add(clusterSetIP && !chosen && has && address, "imported")
	add(e.Kind == "zone" && has, "zone")
	add(e.Kind == "version" && has, "version")
	add(e.Kind == "server" && has, "server")
	add(e.Kind == "namespace" && a.Rcode == "NOERROR", "namespace")
	add(q.Type == dns.TypeA && has, "IPv4")
	add(q.Type == dns.TypeAAAA && has, "IPv6")
	if d := e.Draw; d != nil && has {
		add(d.Part == "panic", "panic")
		add(d.Part == "degraded", "degraded")
		add(d.Sticky, "sticky")
		add(d.Tier > 0, "a farther tier")
		add(d.Tier == 0 && len(e.Tiers) > 1 && e.Tiers[0].HealthyPercent < 100, "a nearer tier that spills over")
		add(headless && d.Member != "", "headless, one member by weight")
	}
	for _, c := range e.Candidates {
		add(strings.Contains(c.Reason, "takes no part while others"), "drained or not probed")
		add(strings.Contains(c.Reason, "at most"), "capped")
		add(strings.Contains(c.Reason, "address of the family"), "lacks the family")
		add(strings.Contains(c.Reason, "drawn by weight"), "weights")
		add(strings.Contains(c.Reason, "is invalid"), "invalid export")
		add(strings.Contains(c.Reason, "does not fit"), "does not fit")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// everyKind is what the random worlds must show.
var everyKind = []string{
	"ClusterSetIP, one member", "ClusterSetIP, all members", "headless", "ClusterSetIP, SRV", "headless, SRV", "ClusterSetIP, SRV of a port",
	"headless, SRV of a port", "one endpoint", "no data", "denied", "not known", "refused", "next plugin", "shadow", "truncated", "TCP", "imported",
	"zone", "version", "server", "namespace", "IPv4", "IPv6", "panic", "degraded", "sticky", "a farther tier", "a nearer tier that spills over",
	"headless, one member by weight", "drained or not probed", "capped", "lacks the family", "weights", "invalid export", "does not fit",
}

// TestExplanationsAreAnswers compares explanations octet by octet with what queries get, in random worlds.
func TestExplanationsAreAnswers(t *testing.T) {
	const worlds, questions = 500, 16
	synctest.Test(t, func(t *testing.T) { // the draw depends on the time
		old := process
		defer func() { process = old }()
		counted, compared := map[string]int{}, 0
		for seed := range uint64(worlds) {
			process = newStore()
			x := newExplainedWorld(seed)
			for range questions {
				q := x.question()
				e := x.compare(t, seed, q)
				compared++
				for _, kind := range kinds(q, x.handler, e) {
					counted[kind]++
				}
				time.Sleep(time.Second)
			}
			x.handler.world.close()
		}
		for _, kind := range everyKind {
			t.Logf("%5d %s", counted[kind], kind)
			if counted[kind] == 0 {
				t.Errorf("No answer was of the kind %q", kind)
			}
		}
		if t.Logf("%5d answers in %d worlds", compared, worlds); compared < 2000 {
			t.Errorf("Only %d answers were compared", compared)
		}
	})
}

func (x *explainedWorld) compare(t *testing.T, seed uint64, q Question) *status.Explanation {
	t.Helper()
	e, err := x.handler.Explain(q)
	if err != nil {
		t.Fatalf("World %d: %+v: %v", seed, q, err)
	}
	r, wire, rcode := x.overTheWire(t, q)
	text, _ := json.MarshalIndent(e, "", " ")
	switch {
	case x.handler.shadow:
		if !x.next || !e.Answer.Next {
			t.Fatalf("World %d: in the shadow, the next plugin is asked for %s: %v, which is explained as %s", seed, q.Name, x.next, text)
		}
		return e
	case x.next != e.Answer.Next:
		t.Fatalf("World %d: that the next plugin answers %s is %v, and is explained as %s", seed, q.Name, x.next, text)
	case wire == nil:
		if !x.next && dns.RcodeToString[rcode] != e.Answer.Rcode || len(e.Answer.Answer) > 0 {
			t.Fatalf("World %d: %s has the code %d, and is explained as %s", seed, q.Name, rcode, text)
		}
	case !bytes.Equal(wire, replyOf(t, e, r, true)) && !bytes.Equal(wire, replyOf(t, e, r, false)):
		var m dns.Msg
		_ = m.Unpack(wire)
		t.Fatalf("World %d: got %s\nand the explanation is %s", seed, &m, text)
	}
	x.checkCandidates(t, seed, q, e, string(text))
	return e
}

// checkCandidates holds who is said to be given against the records.
func (x *explainedWorld) checkCandidates(t *testing.T, seed uint64, q Question, e *status.Explanation, text string) {
	t.Helper()
	if e.Verdict == "" || e.Client.Source == "" || e.Client.Address != q.Client.String() {
		t.Fatalf("World %d: the explanation lacks something: %s", seed, text)
	}
	if len(e.Tiers) == 0 {
		return
	}
	kept := map[string]bool{}
	for _, c := range e.Candidates {
		if c.Reason == "" || c.Health == "" {
			t.Fatalf("World %d: %s has no reason or health: %s", seed, c.Member, text)
		}
		for _, a := range c.Addresses {
			kept[a] = kept[a] || c.Kept
		}
	}
	given := map[string]bool{}
	for _, record := range e.Answer.Answer {
		fields := strings.Fields(record)
		if a, err := netip.ParseAddr(fields[len(fields)-1]); err == nil {
			given[a.String()] = true
			if !kept[a.String()] {
				t.Fatalf("World %d: %s is answered, and nobody who is kept has it: %s", seed, a, text)
			}
		}
	}
	for _, c := range e.Candidates {
		if c.Kept && q.Type != dns.TypeSRV && !slices.ContainsFunc(c.Addresses, func(a string) bool { return given[a] }) {
			t.Fatalf("World %d: %s is said to be answered and is not: %s", seed, c.Member, text)
		}
	}
	sum := 0.0
	for _, tier := range e.Tiers {
		sum += tier.HealthyPercent + tier.DegradedPercent
	}
	if sum < 99.99 || sum > 100.01 || e.Draw == nil || e.Draw.Point < 0 || e.Draw.Point >= 100 {
		t.Fatalf("World %d: the loads add up to %v: %s", seed, sum, text)
	}
}

func TestWhatCannotBeExplained(t *testing.T) {
	c := handlerOf(shop(true))
	client := netip.MustParseAddr("10.0.0.9")
	for _, tc := range []struct {
		name     string
		question Question
		says     string
	}{
		{"a name of another zone", Question{Name: "example.com", Type: dns.TypeA, Client: client}, "in none of the zones"},
		{"a name that is none", Question{Name: strings.Repeat("a", 64) + ".clusterset.local", Type: dns.TypeA, Client: client}, "no domain name"},
		{"nobody who asks", Question{Name: "web.shop.svc.clusterset.local", Type: dns.TypeA}, "client's address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if e, err := c.Explain(tc.question); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Got %v, %v, want an error with %q", e, err, tc.says)
			}
		})
	}
	if _, err := c.Explain(Question{Name: "example.com", Type: dns.TypeA, Client: client}); !errors.Is(err, errElsewhere) {
		t.Errorf("Got %v", err)
	}
}

func TestVerdicts(t *testing.T) {
	ownStore(t)
	none := func(*Clusterset) {}
	for _, tc := range []struct {
		name, qname string
		qtype       uint16
		synced      bool
		change      func(*Clusterset)
		want        string
	}{
		{"the nearest", "web.shop.svc", dns.TypeA, true, none, "This client is given the address of east, tier 0 (same cluster), which takes all clients."},
		{"another family", "v6.shop.svc", dns.TypeA, true, none, "The name exists, but has no A records."},
		{"all of them", "web.shop.svc", dns.TypeA, true, func(c *Clusterset) { c.policy = &balance.Policy{Answer: balance.All, Prefer: balance.ByLabels} },
			"This client is given the addresses of east and west.eu, as nothing is preferred here."},
		{"a discovery list", "db.data.svc", dns.TypeA, true, none, "This client is given 3 ready endpoints of east and west.eu, as nothing is preferred here."},
		{"one endpoint", "db-0.east.db.data.svc", dns.TypeA, true, none, "The name stands for one endpoint, whoever asks."},
		{"an import", "imported.shop.svc", dns.TypeA, true, none, "A ServiceImport gives the addresses of this service, and they are answered as they are, whoever asks."},
		{"not well", "web.shop.svc", dns.TypeA, true, func(c *Clusterset) {
			c.healther = inHealth{health.NewSnapshot(map[topology.ClusterID]health.Status{"east": {State: health.Unhealthy}, "west.eu": {State: health.Degraded}})}
			shopMembers(c)
		}, "This client is given the address of west.eu, tier 1 (farther away), degraded, since the healthy ones cannot take all clients."},
		{"nobody well", "web.shop.svc", dns.TypeAAAA, true, func(c *Clusterset) {
			c.healther = inHealth{health.NewSnapshot(map[topology.ClusterID]health.Status{"east": {State: health.Unhealthy}, "west.eu": {State: health.Unhealthy}})}
			shopMembers(c)
		}, "This client is given the address of east, tier 0 (same cluster), though nothing there is well: there is nobody better."},
		{"nobody exports it", "none.shop.svc", dns.TypeA, true, none, "No cluster exports a service shop/none."},
		{"nobody exports it in a way that counts", "orphan.shop.svc", dns.TypeA, true, none, "The service shop/orphan is exported, but no export of it is of use."},
		{"no such namespace", "web.nowhere.svc", dns.TypeA, true, none, "The local cluster has no namespace nowhere, and names exist only in namespaces that it has."},
		{"nothing ready", "down.data.svc", dns.TypeA, true, none, "No endpoint of the headless service data/down is ready, and so it has no names."},
		{"no such port", "_none._tcp.web.shop.svc", dns.TypeSRV, true, none, "The service shop/web has no such port."},
		{"no such host", "db-9.east.db.data.svc", dns.TypeA, true, none, "The service data/db has no ready endpoint of this name."},
		{"no such form", "nonsense", dns.TypeA, true, none, "No name of the zone has this form."},
		{"not known yet", "none.shop.svc", dns.TypeA, false, none, "Nobody who has told all it knows has this name, but it may yet come from east (exports), west.eu (exports), east (namespaces), imports, so the answer is SERVFAIL: clients ask again."},
		{"endpoints that nobody tells", "absent.shop.svc", dns.TypeA, true, none, "Nobody who has told all it knows has this name, but it may yet come from clusters whose endpoints nobody tells, so the answer is SERVFAIL: clients ask again."},
		{"for the next plugin", "none.shop.svc", dns.TypeA, true, func(c *Clusterset) { c.fall.SetZonesFromArgs(nil) }, "The name is not known, so the next plugin answers (fallthrough)."},
		{"in the shadow", "imported.shop.svc", dns.TypeA, true, func(c *Clusterset) { c.shadow = true }, "The next plugin answers (shadow). Without that: A ServiceImport gives the addresses of this service, and they are answered as they are, whoever asks."},
		{"a transfer", "shop.svc", dns.TypeAXFR, true, none, "Zone transfers are refused."},
		{"the server", "ns.dns", dns.TypeA, true, none, "The name stands for this server."},
		{"the version", "dns-version", dns.TypeTXT, true, none, "The zone itself has this record."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := handlerOf(shop(tc.synced), tc.change)
			e, err := c.Explain(Question{Name: tc.qname + ".clusterset.local", Type: tc.qtype, Client: netip.MustParseAddr("10.0.0.9")})
			if err != nil || e.Verdict != tc.want {
				t.Errorf("Got %v\n%q, want\n%q", err, e.Verdict, tc.want)
			}
		})
	}
}
