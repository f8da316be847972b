// Package model says what clusterset.local must answer, in the plainest way that can be thought of: it goes through what
// all clusters say, every time anew, and keeps nothing.
//
// It is what the simulation of plugin clusterset compares the real thing with, so it shares no line with it and imports
// nothing but the standard library. It is slow and may be.
package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Key names a service: its namespace and its name.
type Key struct{ Namespace, Name string }

// Port is a port of a Service or of an EndpointSlice. Protocol is "tcp", "udp" or "sctp".
type Port struct {
	Name, Protocol string
	Number         uint16
}

// Export is a ServiceExport. Created is its creation time in Unix seconds, Percent its weight-percent, 100 without one.
type Export struct {
	Created int64
	Percent int
}

// Service is a Service. Addresses are the texts of the API, which can be nonsense.
type Service struct {
	Headless, ExternalName, NotReadyToo, Sticky bool
	ClusterIPs, Ingress                         []string
	Ports                                       []Port
}

// Slice is an EndpointSlice of the service Of. It holds addresses of one family, and no IP addresses if neither is set.
type Slice struct {
	Of        Key
	V4, V6    bool
	Ports     []Port
	Endpoints []Endpoint
}

// Endpoint is one of a Slice. UID is that of its pod.
type Endpoint struct {
	Addresses          []string
	Hostname, UID      string
	Ready, Terminating bool
}

// Cluster is all that the API server of one cluster says at one moment.
type Cluster struct {
	Exports    map[Key]Export
	Services   map[Key]Service
	Slices     map[Key]Slice // by namespace and name
	Namespaces map[string]bool
	Ranges     []netip.Prefix // of its services' cluster IPs
	Drained    bool
}

// Shard is what one cluster says of one service. Export and Service are nil where there is none.
type Shard struct {
	Export  *Export
	Service *Service
	Slices  []Slice
}

// AddressKind says which addresses of a cluster are answered.
type AddressKind int

// The kinds of addresses.
const (
	ClusterIP AddressKind = iota
	LoadBalancer
	Endpoints
	Gateway
)

// Member is what the operator says of a cluster. Weight is nil where none is written.
type Member struct {
	ID, Region string
	Address    AddressKind
	Gateway    []netip.Addr
	Weight     *int
	// Allow are the ranges in which its addresses may lie, Namespaces those that it may export from; none: any.
	Allow      []netip.Prefix
	Namespaces []string
}

// Config is what the operator says.
type Config struct {
	Zone    string // with the last dot
	Local   string
	Members []Member
	// Prefer says which preference is written: "" the default, "none", or "cluster region".
	Prefer           string
	All, IgnoreEmpty bool
}

// Possible is what the server may know when it is asked, each thing by itself. What it knows for sure is a list of one.
type Possible struct {
	Shards     [][]Shard        // of the service asked for, by member
	Namespace  []bool           // whether the local cluster has the namespace
	Namespaces []bool           // whether it is known which namespaces that has
	Restored   []bool           // whether it is known which it had before the start
	Synced     []bool           // whether all sources have told all they know
	Ranges     [][]netip.Prefix // of the local cluster
	Taken      [][]netip.Addr   // cluster IPs of the local cluster's Services
	Drained    [][]bool         // by member
	Stale      [][]bool         // by member: whether it has been silent for too long
	// Vague is set when the shards are not what is possible but hold everything that is: then it can only be told which
	// addresses are wrong.
	Vague bool
}

// moment is one possibility.
type moment struct {
	shards                        []Shard
	namespace, namespaces, synced bool
	restored                      bool
	ranges                        []netip.Prefix
	taken                         []netip.Addr
	drained, stale                []bool
}

// part is what one cluster contributes to a service.
type part struct {
	Shard
	member *Member
	at     int
	// headless is true when the service is, whatever the cluster's own Service.
	headless bool
	addrs    []netip.Addr
	ready    int
	total    int
	state    state
}

type state int

const (
	healthy state = iota
	degraded
	excluded
)

// backend is a ready host of a headless service.
type backend struct {
	part  int
	label string
	addrs []netip.Addr
	ports []Port
}

// merged is a service of the ClusterSet.
type merged struct {
	headless bool
	parts    []part
	ports    []Port
	backends []backend
}

// merge makes one service of what all clusters say, nil if there is none.
func (c *Config) merge(m *moment, key Key) *merged {
	s := &merged{}
	for i := range c.Members {
		shard := m.shards[i]
		if from := c.Members[i].Namespaces; len(from) > 0 && !slices.Contains(from, key.Namespace) {
			continue
		}
		if shard.Export != nil && shard.Service != nil && !shard.Service.ExternalName {
			s.parts = append(s.parts, part{Shard: shard, member: &c.Members[i], at: i})
		}
	}
	if len(s.parts) == 0 {
		return nil
	}
	byAge := slices.Clone(s.parts)
	slices.SortFunc(byAge, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.Export.Created, b.Export.Created), strings.Compare(a.member.ID, b.member.ID))
	})
	s.headless = byAge[0].Service.Headless
	for _, p := range byAge {
		for _, port := range p.Service.Ports {
			if !slices.ContainsFunc(s.ports, func(x Port) bool {
				return x.Name == port.Name || x.Protocol == port.Protocol && x.Number == port.Number
			}) {
				s.ports = append(s.ports, port)
			}
		}
	}
	for i := range s.parts {
		p := &s.parts[i]
		p.headless = s.headless
		p.ready, p.total = p.count()
		if !s.headless {
			p.addrs = p.addresses(c, m, s.ports)
		} else {
			s.backends = append(s.backends, p.backends(i)...)
		}
	}
	c.judge(s, m)
	return s
}

// judge finds out how the parts count.
func (c *Config) judge(s *merged, m *moment) {
	sum := 0
	weight := func(p *part) int {
		if p.member.Weight != nil {
			return p.Export.Percent * *p.member.Weight
		}
		return p.Export.Percent
	}
	for i := range s.parts {
		sum += weight(&s.parts[i])
	}
	for i := range s.parts {
		p := &s.parts[i]
		switch {
		case m.drained[p.at], sum > 0 && weight(p) == 0:
			p.state = excluded
		case m.stale[p.at] && p.member.ID != c.Local:
			p.state = degraded
		}
	}
}

// Address reads an address. One that means something else on every host is none.
func Address(text string) (netip.Addr, bool) { return allowed(text) }

// allowed reads an address. One that means something else on every host is none.
func allowed(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, false
	}
	return a, !slices.ContainsFunc(nowhere, func(p netip.Prefix) bool { return p.Contains(a) })
}

// nowhere are the addresses that mean something else on every host.
var nowhere = prefixes("0.0.0.0/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "fe80::/10", "ff00::/8")

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// allows tells whether the operator lets the cluster say an address.
func (m *Member) allows(a netip.Addr) bool {
	return len(m.Allow) == 0 || slices.ContainsFunc(m.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isReady tells whether an endpoint of the part is answered.
func (p *part) isReady(e *Endpoint) bool { return e.Ready || p.Service.NotReadyToo }

// each calls f with every address of every endpoint.
func (p *part) each(f func(*Slice, *Endpoint, netip.Addr, string)) {
	for i := range p.Slices {
		s := &p.Slices[i]
		for j := range s.Endpoints {
			e := &s.Endpoints[j]
			for _, text := range e.Addresses {
				a, ok := allowed(text)
				if !ok || a.Is4() && !s.V4 || a.Is6() && !s.V6 || p.headless && !p.member.allows(a) {
					continue
				}
				label := strings.ToLower(e.Hostname)
				if label == "" || strings.ContainsAny(label, "_.") {
					label = dashed(a)
				}
				f(s, e, a, label)
			}
		}
	}
}

var dashes = strings.NewReplacer(".", "-", ":", "-")

// dashed is the name of an endpoint that has none.
func dashed(a netip.Addr) string {
	label := dashes.Replace(a.String())
	if strings.HasPrefix(label, "-") {
		label = "0" + label
	}
	if strings.HasSuffix(label, "-") {
		label += "0"
	}
	return label
}

// count counts pods: those that are ready, and those that should be.
func (p *part) count() (ready, total int) {
	isReady, expected := map[string]bool{}, map[string]bool{}
	p.each(func(_ *Slice, e *Endpoint, _ netip.Addr, label string) {
		id := cmp.Or(e.UID, label)
		if p.isReady(e) {
			isReady[id] = true
		} else if !e.Terminating {
			expected[id] = true
		}
	})
	for id := range isReady {
		expected[id] = true
	}
	return len(isReady), len(expected)
}

// addresses are what is answered for the part of a service that is not headless.
func (p *part) addresses(c *Config, m *moment, ports []Port) (out []netip.Addr) {
	take := func(texts []string, most int) {
		for _, text := range texts {
			if a, ok := allowed(text); ok && len(out) < most {
				out = append(out, a)
			}
		}
	}
	switch p.member.Address {
	case Gateway:
		return p.member.Gateway
	case LoadBalancer:
		take(p.Service.Ingress, 1000)
	case Endpoints:
		for _, s := range p.Slices {
			for _, own := range s.Ports {
				for _, port := range ports {
					if own.Name == port.Name && own.Number != port.Number && (s.V4 || s.V6) {
						return nil
					}
				}
			}
		}
		p.each(func(_ *Slice, e *Endpoint, a netip.Addr, _ string) {
			if p.isReady(e) {
				out = append(out, a)
			}
		})
	default:
		if p.Service.Headless {
			return nil
		}
		take(p.Service.ClusterIPs, 2)
		out = slices.DeleteFunc(out, func(a netip.Addr) bool {
			return p.member.ID != c.Local && (slices.Contains(m.taken, a) ||
				slices.ContainsFunc(m.ranges, func(r netip.Prefix) bool { return r.Contains(a) }))
		})
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return !p.member.allows(a) })
}

// backends are the ready hosts of the part.
func (p *part) backends(at int) (out []backend) {
	p.each(func(s *Slice, e *Endpoint, a netip.Addr, label string) {
		if !p.isReady(e) {
			return
		}
		i := slices.IndexFunc(out, func(b backend) bool { return b.label == label })
		if i < 0 {
			i = len(out)
			out = append(out, backend{part: at, label: label})
		}
		if !slices.Contains(out[i].addrs, a) {
			out[i].addrs = append(out[i].addrs, a)
		}
		for _, port := range s.Ports {
			if !slices.Contains(out[i].ports, port) {
				out[i].ports = append(out[i].ports, port)
			}
		}
	})
	return out
}
