package clusterset

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// Question is a query that is to be explained.
type Question struct {
	// Name is the whole name, with or without its last dot.
	Name string
	Type uint16
	// Client is the address that asks.
	Client netip.Addr
	// Size is how large a UDP message the client takes, in octets (EDNS); 0 means DefaultSize. TCP is for queries over TCP.
	Size uint16
	TCP  bool
}

// DefaultSize is what clients take that know the DNS flag day of 2020, in octets.
const DefaultSize = 1232

// errElsewhere is why nothing can be explained: names of other zones are no business of this server block.
var errElsewhere = errors.New("the name is in none of the zones that are answered here")

// Explain tells what a query gets now, and why. The answer is made by the code that answers queries.
func (c *Clusterset) Explain(q Question) (*status.Explanation, error) {
	name := dns.Fqdn(q.Name)
	zone := zoneOf(c.zones, strings.ToLower(name))
	switch _, ok := dns.IsDomainName(name); {
	case !ok:
		return nil, fmt.Errorf("%q is no domain name", q.Name)
	case zone < 0:
		return nil, fmt.Errorf("%w: %s is not below %s", errElsewhere, name, strings.Join(c.zones, " or "))
	case !q.Client.IsValid():
		return nil, errors.New("the client's address is missing, or is none")
	}
	e := &explaining{
		question: q, request: q.message(name), writer: &replyTo{client: q.Client, tcp: q.TCP},
		out: &status.Explanation{Version: status.Version, Name: name, Type: dns.Type(q.Type).String()},
	}
	// What is looked at one after the other shall be of one moment, and what changes is seldom.
	for range 3 {
		e.view = c.view.current(c)
		e.answer = answer{}
		e.ask(c, zone)
		if c.view.current(c) == e.view && c.world.snapshot.Load() == e.snapshot {
			break
		}
	}
	e.explain()
	return e.out, nil
}

// message makes the query.
func (q *Question) message(name string) *dns.Msg {
	r := new(dns.Msg).SetQuestion(name, q.Type)
	size := q.Size
	if size == 0 {
		size = DefaultSize
	}
	return r.SetEdns0(size, false)
}

// replyTo takes the reply in place of a client.
type replyTo struct {
	client netip.Addr
	tcp    bool
	reply  *dns.Msg
}

var _ dns.ResponseWriter = (*replyTo)(nil)

// WriteMsg implements dns.ResponseWriter.
func (w *replyTo) WriteMsg(m *dns.Msg) error {
	w.reply = m
	return nil
}

// RemoteAddr implements dns.ResponseWriter.
func (w *replyTo) RemoteAddr() net.Addr {
	at := netip.AddrPortFrom(w.client, 53)
	if w.tcp {
		return net.TCPAddrFromAddrPort(at)
	}
	return net.UDPAddrFromAddrPort(at)
}

// LocalAddr implements dns.ResponseWriter.
func (w *replyTo) LocalAddr() net.Addr         { return w.RemoteAddr() }
func (w *replyTo) Write(b []byte) (int, error) { return len(b), nil }
func (w *replyTo) Close() error                { return nil }
func (w *replyTo) TsigStatus() error           { return nil }
func (w *replyTo) TsigTimersOnly(bool)         {}
func (w *replyTo) Hijack()                     {}
func (w *replyTo) Network() string             { return "" }

// explaining is one explanation in the making.
type explaining struct {
	answer
	question Question
	request  *dns.Msg
	writer   *replyTo
	view     *balance.View
	next     bool
	refused  bool
	out      *status.Explanation
}

// ask makes the reply as a query gets it: as ServeDNS does, and the server, which makes it fit.
func (e *explaining) ask(c *Clusterset, zone int) {
	e.writer.reply = nil
	e.refused = e.question.Type == dns.TypeAXFR || e.question.Type == dns.TypeIXFR
	mine := e.make(c, e.writer, e.request, zone, strings.ToLower(e.request.Question[0].Name))
	e.next = c.shadow || !mine && !e.refused
	if !mine || e.refused {
		return
	}
	_ = request.NewScrubWriter(e.request, e.writer).WriteMsg(e.message()) // replyTo never fails
}

func (e *explaining) explain() {
	if !e.client.Addr.IsValid() {
		e.locate()
	}
	e.out.Client = e.describeClient()
	e.out.Kind = e.kind()
	e.out.Answer = e.describeAnswer()
	if s := e.service; s != nil {
		e.out.Service, e.out.ServiceType = s.Key().String(), s.Type.String()
		if e.chooses() {
			e.describeChoice(s)
		}
	}
	e.describeLeftOut()
	e.out.Verdict = e.verdict()
}

func (e *explaining) describeClient() status.Client {
	at := &e.client
	if at.Region == "" && at.Cluster != "" {
		at.Region = e.view.Regions[at.Cluster]
	}
	return status.Client{
		Address: at.Addr.String(), Region: at.Region, Cluster: string(at.Cluster), Zone: at.Zone, Node: at.Node,
		Source: string(at.Source), Because: e.because(),
	}
}

// becauser says in words how the place of a client was found. The *locality* plugin can.
type becauser interface {
	Because(c *topology.Client) string
}

func (e *explaining) because() string {
	switch l, ok := e.locator.(becauser); {
	case ok:
		return l.Because(&e.client)
	case e.locator != nil:
		return ""
	case e.local == "":
		return "the plugin locality is not used here, and the Corefile names no local cluster, so nothing is known of where clients are"
	default:
		return fmt.Sprintf("the plugin locality is not used here, so whoever asks is taken to be in the local cluster, %s", e.local)
	}
}

// kind names what the name stands for.
func (e *explaining) kind() string {
	switch e.name.kind {
	case apexName:
		return "zone"
	case versionName:
		return "version"
	case serverName:
		return "server"
	case namespaceName:
		return "namespace"
	case serviceName:
		return "service"
	case belowName:
		if strings.HasPrefix(e.name.below[strings.LastIndexByte(e.name.below, '.')+1:], "_") {
			return "port"
		}
		return "endpoint"
	default:
		return "none"
	}
}

func (e *explaining) describeAnswer() status.Answer {
	out := status.Answer{Answer: []string{}, Next: e.next, Rcode: dns.RcodeToString[e.rcode]}
	if e.refused {
		out.Rcode = dns.RcodeToString[dns.RcodeRefused]
	}
	m := e.writer.reply
	if m == nil {
		return out
	}
	out.Rcode, out.Truncated = dns.RcodeToString[m.Rcode], m.Truncated
	out.Answer = append(out.Answer, presented(m.Answer)...)
	out.Authority, out.Additional = presented(m.Ns), presented(m.Extra)
	return out
}

// presented writes records in presentation format; EDNS is no record of the answer.
func presented(records []dns.RR) (out []string) {
	for _, rr := range records {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr.String())
		}
	}
	return out
}

// chooses reports whether the answer depends on a choice among members or endpoints.
func (e *explaining) chooses() bool {
	s := e.service
	if e.absent || s.Type != mcs.Headless && s.Import != nil {
		return false
	}
	switch e.kind() {
	case "service":
		_, isAddress := familyOf(e.qtype)
		return isAddress || e.qtype == dns.TypeSRV
	case "port":
		return e.qtype == dns.TypeSRV && parseBelow(s, e.name.below).kind == portPart
	default:
		return false
	}
}

// describeChoice tells who could have been answered, and who was.
func (e *explaining) describeChoice(s *mcs.Service) {
	e.decide(s)
	d := e.drawn(s)
	explain := func(of balance.Family, most int) balance.Explanation {
		return e.policy.Explain(s, e.view, e.client.Locality, d, of, most)
	}
	var b balance.Explanation
	of, isAddress := familyOf(e.qtype)
	switch {
	case s.Type == mcs.Headless && isAddress:
		b = explain(of, e.most(of))
	case s.Type == mcs.Headless:
		b = explain(nil, 0)
	case isAddress:
		b = explain(of, 0)
	default: // SRV, whose target has addresses of both families
		b = either(explain(balance.IPv4, 0), explain(balance.IPv6, 0))
	}
	for i := range b.Candidates {
		e.out.Candidates = append(e.out.Candidates, e.describeCandidate(s, &b, &b.Candidates[i]))
	}
	slices.SortStableFunc(e.out.Candidates, func(a, b status.Candidate) int { return rank(a.Tier) - rank(b.Tier) })
	for i, t := range b.Tiers {
		e.out.Tiers = append(e.out.Tiers, status.Tier{
			Tier: i, Distance: distanceOf(&t, len(b.Labels)), Healthy: t.Counts.Healthy, Degraded: t.Counts.Degraded, Excluded: t.Counts.Excluded, Total: t.Counts.Total,
			HealthyPercent: percent(t.Load.Healthy), DegradedPercent: percent(t.Load.Degraded), Panic: t.Load.Panic,
		})
	}
	if len(b.Tiers) > 0 {
		e.out.Draw = e.describeDraw(s, &b)
	}
}

// either joins what was explained for the two families of one answer.
func either(four, six balance.Explanation) balance.Explanation {
	out := four
	if four.Choice.Set < 0 {
		out = six
	}
	for i := range out.Candidates {
		c := &out.Candidates[i]
		if four.Candidates[i].Outcome == balance.Given || six.Candidates[i].Outcome == balance.Given {
			c.Outcome = balance.Given
		}
	}
	return out
}

// rank orders the tiers, and what is in none behind them.
func rank(tier int) int {
	if tier < 0 {
		return 1 << 16
	}
	return tier
}

func percent(load int) float64 { return float64(load) / 100 }

func distanceOf(t *balance.ExplainedTier, labels int) string {
	switch {
	case !t.Far:
		return "same " + labelWord(t.Near)
	case labels == 0:
		return "no preference"
	default:
		return "farther away"
	}
}

func labelWord(l balance.Label) string {
	for _, p := range preferLabels {
		if p.label == l {
			return p.word
		}
	}
	return ""
}

func (e *explaining) describeDraw(s *mcs.Service, b *balance.Explanation) *status.Draw {
	epoch, length := balance.Epoch(e.client.Addr, s.Key(), time.Now(), time.Duration(e.ttl)*time.Second, s.ClientIPAffinity)
	d := &status.Draw{
		Point: b.Point, Epoch: epoch, EpochSeconds: uint32(length / time.Second), Sticky: s.ClientIPAffinity, //nolint:gosec // an hour at most
		Tier: b.Choice.Tier, Part: "healthy", Member: string(b.Choice.Member),
	}
	switch {
	case b.Choice.Panic:
		d.Part = "panic"
	case b.Choice.Degraded:
		d.Part = "degraded"
	}
	return d
}

func (e *explaining) describeCandidate(s *mcs.Service, b *balance.Explanation, c *balance.Candidate) status.Candidate {
	m := &s.Members[c.Member]
	member := e.view.Health.Status(m.Cluster)
	out := status.Candidate{
		Member: string(m.Cluster), Region: c.At.Region, Zone: c.At.Zone, Node: c.At.Node,
		Health: c.State.String(), HealthReason: member.Reason, Ready: c.Ready, Total: c.Total, Weight: c.Weight, Tier: c.Tier,
		Kept: c.Outcome == balance.Given,
	}
	addrs := m.Addrs
	if c.Backend >= 0 {
		backend := &s.Backends[c.Backend]
		out.Host, addrs = backend.Label(), backend.AppendAddrs(nil)
	}
	out.Addresses = stringsOf(addrs)
	if at := e.sourceOf(m.Cluster); at != nil {
		out.MemberState, out.ProofAgeSeconds = at.State.String(), ageOf(at, time.Now())
	}
	if c.State == health.Excluded && member.State != health.Excluded {
		out.HealthReason = "its weight is 0"
	}
	out.Reason = e.reason(s, b, c, addrs)
	if out.Kept && !e.inReply(s, c, addrs) {
		out.Kept, out.Reason = false, e.notInReply()
	}
	return out
}

// sourceOf returns what is known of the watch of a member's exports, nil where there is none.
func (c *Clusterset) sourceOf(id topology.ClusterID) *watch.Status {
	for key, w := range process.listed.Load().watchers {
		if key.kind == mcs.Exports && key.cluster == id {
			st := w.Status()
			return &st
		}
	}
	return nil
}

func ageOf(st *watch.Status, now time.Time) *float64 {
	if st.LastProof.IsZero() {
		return nil
	}
	age := max(0, now.Sub(st.LastProof)).Seconds()
	return &age
}

// inReply reports whether what was chosen stands in the reply: it may not fit.
func (e *explaining) inReply(s *mcs.Service, c *balance.Candidate, addrs []netip.Addr) bool {
	if e.qtype == dns.TypeSRV && s.Type != mcs.Headless {
		return true // all have one target
	}
	if e.writer.reply == nil {
		return false
	}
	target := ""
	if c.Backend >= 0 {
		target = s.Backends[c.Backend].Label() + "." + string(s.Members[c.Member].Cluster) + "."
	}
	return slices.ContainsFunc(e.writer.reply.Answer, func(rr dns.RR) bool {
		switch r := rr.(type) {
		case *dns.SRV:
			return strings.HasPrefix(r.Target, target)
		case *dns.A:
			return containsIP(addrs, r.A)
		case *dns.AAAA:
			return containsIP(addrs, r.AAAA)
		}
		return false
	})
}

func containsIP(addrs []netip.Addr, ip []byte) bool {
	a, ok := netip.AddrFromSlice(ip)
	return ok && slices.Contains(addrs, a.Unmap())
}

func (e *explaining) notInReply() string {
	if e.writer.reply != nil && e.writer.reply.Truncated {
		return "chosen, but it does not fit into this message; over TCP it is there"
	}
	if e.qtype == dns.TypeSRV {
		return "chosen, but it has no named port of that name"
	}
	return "chosen, but it does not fit into the message"
}
