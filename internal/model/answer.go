package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Kind says what a name stands for.
type Kind int

// The names of the schema.
const (
	OfService   Kind = iota // SERVICE.NAMESPACE.svc
	OfPort                  // _PORT._PROTOCOL.SERVICE.NAMESPACE.svc
	OfProtocol              // _PROTOCOL.SERVICE.NAMESPACE.svc
	OfHost                  // HOST.CLUSTER.SERVICE.NAMESPACE.svc
	OfCluster               // CLUSTER.SERVICE.NAMESPACE.svc
	OfNamespace             // NAMESPACE.svc
)

// Question is a query. Type is A, AAAA, SRV or TXT.
type Question struct {
	Kind                          Kind
	Key                           Key
	Port, Protocol, Host, Cluster string
	Type                          string
}

// Name returns the name asked for.
func (q *Question) Name(zone string) string {
	service := q.Key.Name + "." + q.Key.Namespace + ".svc." + zone
	switch q.Kind {
	case OfPort:
		return "_" + q.Port + "._" + q.Protocol + "." + service
	case OfProtocol:
		return "_" + q.Protocol + "." + service
	case OfHost:
		return q.Host + "." + q.Cluster + "." + service
	case OfCluster:
		return q.Cluster + "." + service
	case OfNamespace:
		return q.Key.Namespace + ".svc." + zone
	default:
		return service
	}
}

// Reply is an answer: its response code and, each as text, its records ("A 192.0.2.1", "SRV 80 web.shop.svc.clusterset.local.")
// and its glue ("TARGET A 192.0.2.1"). The order of both means nothing.
type Reply struct {
	Code           string
	Records, Extra []string
}

// String returns the reply in one line.
func (r Reply) String() string {
	return fmt.Sprintf("%s %s + %s", r.Code, strings.Join(r.Records, ", "), strings.Join(r.Extra, ", "))
}

func (r *Reply) sort() {
	slices.Sort(r.Records)
	slices.Sort(r.Extra)
}

// The codes that a name of the zone can be answered with.
const (
	NoError  = "NOERROR"
	Denied   = "NXDOMAIN"
	NotKnown = "SERVFAIL"
)

// tooMany is how many moments are looked at before a question counts as one about which nothing can be said.
const tooMany = 2000

// Check reports whether a reply is right in one of the possible moments. The error names some that would have been.
func (c *Config) Check(p *Possible, q *Question, got Reply) error {
	if err := c.held(p, q, got); err != nil {
		return err
	}
	if p.Vague {
		return nil
	}
	got.sort()
	var right []string
	looked := 0
	found := p.each(c, func(m *moment) bool {
		looked++
		for _, want := range c.replies(m, q) {
			want.sort()
			if want.Code == got.Code && slices.Equal(want.Records, got.Records) && c.glue(m, q, want, got) {
				return true
			}
			if text := want.String(); len(right) < 8 && !slices.Contains(right, text) {
				right = append(right, text)
			}
		}
		return looked > tooMany
	})
	if found {
		return nil
	}
	return fmt.Errorf("%s %s: got %s; right would be (%d moments): %s", q.Name(c.Zone), q.Type, got, looked, strings.Join(right, " | "))
}

// held checks what is true however much is uncertain: an address that is answered is, or was not long ago, that of some
// cluster for this very service.
func (c *Config) held(p *Possible, q *Question, got Reply) error {
	for _, text := range append(slices.Clone(got.Records), got.Extra...) {
		fields := strings.Fields(text)
		a, err := netip.ParseAddr(fields[len(fields)-1])
		if err != nil {
			continue // SRV
		}
		if !slices.ContainsFunc(c.Members, func(m Member) bool { return slices.Contains(m.Gateway, a) }) &&
			!slices.ContainsFunc(p.Shards, func(of []Shard) bool {
				return slices.ContainsFunc(of, func(s Shard) bool { return s.holds(a) })
			}) {
			return fmt.Errorf("%s %s: got %s, which no cluster holds for this service: %s", q.Name(c.Zone), q.Type, a, got)
		}
	}
	return nil
}

// holds tells whether an address stands anywhere in a shard.
func (s *Shard) holds(a netip.Addr) bool {
	is := func(text string) bool { return text == a.String() }
	if s.Service != nil && (slices.ContainsFunc(s.Service.ClusterIPs, is) || slices.ContainsFunc(s.Service.Ingress, is)) {
		return true
	}
	return slices.ContainsFunc(s.Slices, func(o Slice) bool {
		return slices.ContainsFunc(o.Endpoints, func(e Endpoint) bool { return slices.ContainsFunc(e.Addresses, is) })
	})
}

// Uncertain says what there is more than one possibility for, nothing if there is only one moment.
func (p *Possible) Uncertain() (what []string) {
	add := func(n int, name string) {
		if n != 1 {
			what = append(what, fmt.Sprintf("%d possibilities of %s", n, name))
		}
	}
	add(len(p.Namespace), "namespace")
	add(len(p.Namespaces), "known namespaces")
	add(len(p.Restored), "restored namespaces")
	add(len(p.Synced), "synced")
	add(len(p.Ranges), "ranges")
	add(len(p.Taken), "taken")
	for i := range p.Shards {
		add(len(p.Shards[i]), fmt.Sprintf("shards of member %d", i))
		add(len(p.Drained[i]), fmt.Sprintf("drained of member %d", i))
		add(len(p.Stale[i]), fmt.Sprintf("stale of member %d", i))
	}
	if p.Vague {
		what = append(what, "too many shards")
	}
	return what
}

// each calls f with every possible moment until it returns true, and reports whether it did.
func (p *Possible) each(c *Config, f func(*moment) bool) bool {
	m := &moment{shards: make([]Shard, len(c.Members)), drained: make([]bool, len(c.Members)), stale: make([]bool, len(c.Members))}
	var member func(at int) bool
	member = func(at int) bool {
		if at == len(c.Members) {
			return f(m)
		}
		for _, m.shards[at] = range p.Shards[at] {
			for _, m.drained[at] = range p.Drained[at] {
				for _, m.stale[at] = range p.Stale[at] {
					if member(at + 1) {
						return true
					}
				}
			}
		}
		return false
	}
	for _, m.namespace = range p.Namespace {
		for _, m.namespaces = range p.Namespaces {
			for _, m.restored = range p.Restored {
				if p.eachRest(m, func() bool { return member(0) }) {
					return true
				}
			}
		}
	}
	return false
}

func (p *Possible) eachRest(m *moment, f func() bool) bool {
	for _, m.synced = range p.Synced {
		for _, m.ranges = range p.Ranges {
			for _, m.taken = range p.Taken {
				if f() {
					return true
				}
			}
		}
	}
	return false
}

// replies returns the right replies at one moment.
func (c *Config) replies(m *moment, q *Question) []Reply {
	deny := Reply{Code: NotKnown}
	if m.namespaces && (m.synced || !m.namespace) {
		deny.Code = Denied
	}
	known := m.namespaces || m.restored
	if q.Kind == OfNamespace {
		if known && m.namespace {
			return []Reply{{Code: NoError}}
		}
		return []Reply{deny}
	}
	if known && !m.namespace {
		return []Reply{deny}
	}
	s := c.merge(m, q.Key)
	if s == nil || s.headless && len(s.backends) == 0 {
		return []Reply{deny}
	}
	if c.IgnoreEmpty && !s.headless && !slices.ContainsFunc(s.parts, func(p part) bool { return p.ready > 0 }) {
		return []Reply{deny}
	}
	switch q.Kind {
	case OfPort, OfProtocol:
		if !s.hasPort(func(p Port) bool { return q.matches(p) }) {
			return []Reply{deny}
		}
		if q.Kind == OfPort && q.Type == "SRV" {
			return c.srv(s, q)
		}
		return []Reply{{Code: NoError}}
	case OfHost, OfCluster:
		return []Reply{c.host(s, q, deny)}
	}
	switch q.Type {
	case "A":
		return c.addresses(s, v4)
	case "AAAA":
		return c.addresses(s, v6)
	case "SRV":
		return c.srv(s, q)
	}
	return []Reply{{Code: NoError}}
}

// matches tells whether a port is asked for. Ports without a name have no records.
func (q *Question) matches(p Port) bool {
	return p.Name != "" && (q.Kind != OfPort && q.Kind != OfProtocol ||
		p.Protocol == q.Protocol && (q.Kind == OfProtocol || p.Name == q.Port))
}

func (s *merged) hasPort(is func(Port) bool) bool {
	if !s.headless {
		return slices.ContainsFunc(s.ports, is)
	}
	return slices.ContainsFunc(s.backends, func(b backend) bool { return slices.ContainsFunc(b.ports, is) })
}

// host answers for the name of one endpoint, or of what stands above it.
func (c *Config) host(s *merged, q *Question, deny Reply) Reply {
	there := false
	for _, b := range s.backends {
		if s.parts[b.part].member.ID != q.Cluster {
			continue
		}
		if there = true; b.label == q.Host && q.Kind == OfHost {
			return Reply{Code: NoError, Records: records(b.addrs, q.Type)}
		}
	}
	if q.Kind == OfCluster && there {
		return Reply{Code: NoError}
	}
	return deny
}

// records writes the addresses of a type, each once.
func records(addrs []netip.Addr, kind string) (out []string) {
	for _, a := range addrs {
		text := kind + " " + a.String()
		if (kind == "A" && a.Is4() || kind == "AAAA" && a.Is6()) && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// addresses are the replies with addresses of one family.
func (c *Config) addresses(s *merged, f family) (out []Reply) {
	kind := map[family]string{v4: "A", v6: "AAAA"}[f]
	for _, group := range c.choices(s, f) {
		var addrs []netip.Addr
		for _, u := range group {
			if s.headless {
				addrs = append(addrs, s.backends[u.backend].addrs...)
			} else {
				addrs = append(addrs, s.parts[u.part].addrs...)
			}
		}
		out = append(out, Reply{Code: NoError, Records: records(addrs, kind)})
	}
	if len(out) == 0 {
		out = []Reply{{Code: NoError}}
	}
	return out
}

// srv are the replies to a question for SRV records.
func (c *Config) srv(s *merged, q *Question) (out []Reply) {
	target := (&Question{Key: q.Key}).Name(c.Zone)
	if !s.headless {
		r := Reply{Code: NoError}
		for _, p := range s.ports {
			text := fmt.Sprintf("SRV %d %s", p.Number, target)
			if q.matches(p) && !slices.Contains(r.Records, text) {
				r.Records = append(r.Records, text)
			}
		}
		return []Reply{r}
	}
	for _, group := range c.choices(s, anyFamily) {
		r := Reply{Code: NoError}
		for _, u := range group {
			b := &s.backends[u.backend]
			host := b.label + "." + s.parts[b.part].member.ID + "." + target
			before := len(r.Records)
			for _, p := range b.ports {
				text := fmt.Sprintf("SRV %d %s", p.Number, host)
				if q.matches(p) && !slices.Contains(r.Records, text) {
					r.Records = append(r.Records, text)
				}
			}
			if len(r.Records) == before {
				continue
			}
			for _, text := range append(records(b.addrs, "A"), records(b.addrs, "AAAA")...) {
				r.Extra = append(r.Extra, host+" "+text)
			}
		}
		out = append(out, r)
	}
	return out
}

// glue checks the additional section. That of a headless service is the one that belongs to the records; that of another
// holds addresses of clusters that may be answered.
func (c *Config) glue(m *moment, q *Question, want, got Reply) bool {
	if len(want.Extra) > 0 || len(got.Extra) == 0 {
		return slices.Equal(want.Extra, got.Extra)
	}
	if q.Type != "SRV" || len(got.Records) == 0 {
		return false
	}
	s := c.merge(m, q.Key)
	if s == nil || s.headless {
		return false
	}
	target := (&Question{Key: q.Key}).Name(c.Zone)
	for kind, f := range map[string]family{"A": v4, "AAAA": v6} {
		var own []string
		for _, text := range got.Extra {
			if strings.HasPrefix(text, target+" "+kind+" ") {
				own = append(own, strings.TrimPrefix(text, target+" "))
			}
		}
		if !slices.ContainsFunc(c.addresses(s, f), func(r Reply) bool {
			slices.Sort(r.Records)
			return slices.Equal(r.Records, own)
		}) {
			return false
		}
	}
	return true
}
