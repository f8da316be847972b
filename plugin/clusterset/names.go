package clusterset

import (
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// nameKind says what a name of the zone stands for by its form alone.
type nameKind uint8

// The forms of the multi-cluster schema (KEP-1645 specification, sections 2.2 to 2.4) and the zone's furniture.
const (
	noName        nameKind = iota // nothing can ever have this form
	apexName                      // ZONE
	versionName                   // dns-version.ZONE
	serverName                    // ns.dns.ZONE
	emptyName                     // dns.ZONE, svc.ZONE, pod.ZONE: exists, without records
	namespaceName                 // NAMESPACE.svc.ZONE
	serviceName                   // SERVICE.NAMESPACE.svc.ZONE
	belowName                     // one or more labels, SERVICE.NAMESPACE.svc.ZONE
)

// name is a parsed name. Its strings are parts of the string that was parsed.
type name struct {
	kind               nameKind
	namespace, service string
	// below are the labels left of the service, without the dot between: "_http._tcp" or "db-0.east".
	below string
}

// zoneOf returns the index of the longest of the zones that a lower-case name is in, -1 when it is in none. It allocates
// nothing.
func zoneOf(zones plugin.Zones, name string) int {
	found := -1
	for i, zone := range zones {
		if isIn(zone, name) && (found < 0 || len(zone) > len(zones[found])) {
			found = i
		}
	}
	return found
}

// isIn tells whether a name is in a zone, both lower case and with their last dot. The dot before the zone must be one
// between labels, and no part of a label (an odd number of backslashes before it).
func isIn(zone, name string) bool {
	rest, ok := strings.CutSuffix(name, zone)
	if !ok || rest == "" || zone == "." {
		return ok
	}
	rest, ok = strings.CutSuffix(rest, ".")
	return ok && (len(rest)-len(strings.TrimRight(rest, `\`)))%2 == 0
}

// parseName parses what is left of a lower-case name when the zone is taken off, without a trailing dot; "" is the
// apex. It allocates nothing. Escaped octets (a backslash) match nothing that Kubernetes allows in a name, so they need
// no care here.
func parseName(relative string) name {
	if relative == "" {
		return name{kind: apexName}
	}
	rest, last := cutLast(relative)
	switch last {
	case "dns-version":
		if rest == "" {
			return name{kind: versionName}
		}
	case "dns":
		switch rest {
		case "":
			return name{kind: emptyName}
		case "ns":
			return name{kind: serverName}
		}
	case "pod":
		if rest == "" {
			return name{kind: emptyName}
		}
	case "svc":
		return parseServiceName(rest)
	}
	return name{}
}

func parseServiceName(rest string) name {
	if rest == "" {
		return name{kind: emptyName}
	}
	n := name{kind: namespaceName}
	if rest, n.namespace = cutLast(rest); rest == "" {
		return n
	}
	n.kind = serviceName
	if n.below, n.service = cutLast(rest); n.below != "" {
		n.kind = belowName
	}
	return n
}

// cutLast cuts off the last label.
func cutLast(s string) (rest, last string) {
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return "", s
	}
	return s[:dot], s[dot+1:]
}

// part is what a name below a service stands for.
type part struct {
	kind     partKind
	port     string // without the underscore
	protocol string // likewise
	backend  *mcs.Backend
}

type partKind uint8

const (
	noPart       partKind = iota
	emptyPart             // exists without records: something lies below it
	portPart              // _port._protocol
	endpointPart          // hostname.clusterid
)

// parseBelow finds out what the labels left of a service mean. Cluster ids have one label or two, so they are matched
// against the ids the service has and never found by counting (KEP-1645, "Terminology").
func parseBelow(s *mcs.Service, below string) part {
	rest, last := cutLast(below)
	if strings.HasPrefix(last, "_") {
		return parsePort(s, rest, last[1:])
	}
	if s.Type != mcs.Headless {
		return part{} // KEP-1645 specification 2.3.4: no names of single clusters
	}
	found := part{}
	for i := range s.Members {
		id := string(s.Members[i].Cluster)
		if host, ok := strings.CutSuffix(below, id); ok && strings.HasSuffix(host, ".") {
			if b := s.Backend(host[:len(host)-1], s.Members[i].Cluster); b != nil {
				return part{kind: endpointPart, backend: b}
			}
		}
		_, registry, _ := strings.Cut(id, ".")
		if (below == id || below == registry) && s.HasBackends(s.Members[i].Cluster) {
			found.kind = emptyPart
		}
	}
	return found
}

func parsePort(s *mcs.Service, rest, protocol string) part {
	if rest == "" {
		if hasPort(s, func(p mcs.Port) bool { return p.Name != "" && p.Protocol.String() == protocol }) {
			return part{kind: emptyPart}
		}
		return part{}
	}
	port, ok := strings.CutPrefix(rest, "_")
	if ok && hasPort(s, func(p mcs.Port) bool { return p.Name == port && port != "" && p.Protocol.String() == protocol }) {
		return part{kind: portPart, port: port, protocol: protocol}
	}
	return part{}
}

// hasPort looks where SRV records come from: the service's ports for ClusterSetIP, those of the ready endpoints for
// Headless.
func hasPort(s *mcs.Service, match func(mcs.Port) bool) bool {
	if s.Type != mcs.Headless {
		return slices.ContainsFunc(s.Ports, match)
	}
	for i := range s.Backends {
		if slices.ContainsFunc(s.Backends[i].Ports(), match) {
			return true
		}
	}
	return false
}
