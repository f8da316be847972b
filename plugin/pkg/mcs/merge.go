package mcs

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// AddressKind says which address of a member answers for its part of a ClusterSetIP service when no ServiceImport gives
// one. It is a fact about the network between the clusters, so it is configured and never guessed.
type AddressKind uint8

const (
	// AddressClusterIP is the Service's cluster IP: service networks are routable between the clusters and disjoint.
	AddressClusterIP AddressKind = iota
	// AddressLoadBalancer is the IP of the Service's load balancer ingress.
	AddressLoadBalancer
	// AddressEndpoints are the ready endpoints: pod networks are flat.
	AddressEndpoints
	// AddressFixed is a gateway in front of the member, the same for all its services.
	AddressFixed
)

// Member is what merging needs to know of a cluster.
type Member struct {
	ID      topology.ClusterID
	Address AddressKind
	// AnyPort is true when, with AddressEndpoints, a service also counts whose pods listen on another port than it has.
	// SRV records then tell the right one, and A records none.
	AnyPort bool
	// Gateway holds the addresses for AddressFixed, otherwise nothing.
	Gateway []netip.Addr
	// Allow are the ranges in which addresses of the member may lie, none: anywhere. The Gateway is not the member's word.
	Allow []netip.Prefix
	// Namespaces are those that the member may export from, none: any.
	Namespaces []string
	// Refused is true for a cluster that is not taken for the one that it is called. Nothing of it counts.
	Refused bool
	// NoAddress is true for a remote member of which nobody says how its ClusterSetIP services are reached. It takes part in
	// headless services only.
	NoAddress bool
}

// allows reports whether the member may say an address.
func (m *Member) allows(a netip.Addr) bool {
	return len(m.Allow) == 0 || slices.ContainsFunc(m.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

// mayExportFrom reports whether the member's exports in a namespace count.
func (m *Member) mayExportFrom(namespace string) bool {
	return len(m.Namespaces) == 0 || slices.Contains(m.Namespaces, namespace)
}

// allowed returns the slices without the endpoints that the member may not say.
func (m *Member) allowed(from []*Slice) (out []*Slice, all bool) {
	forbidden := func(a netip.Addr) bool { return !m.allows(a) }
	all = true
	for _, s := range from {
		if rest, whole := s.Endpoints.without(forbidden); !whole {
			all = false
			s = &Slice{s.Name, s.Source, s.Ports, rest}
		}
		out = append(out, s)
	}
	return out, all
}

// exported is one member's part of the input of merge.
type exported struct {
	member *Member
	shard  *Shard
}

// Conflict is a set of the ways in which the exports of a service disagree (KEP-1645, "Constraints and Conflict
// Resolution").
type Conflict uint16

// The conflict reasons, in the order in which the ServiceExport API lists them.
const (
	PortConflict Conflict = 1 << iota
	TypeConflict
	SessionAffinityConflict
	SessionAffinityConfigConflict
	LabelsConflict
	AnnotationsConflict
	InternalTrafficPolicyConflict
	TrafficDistributionConflict
	IPFamilyConflict
)

// conflictNames are the reasons of the ServiceExport condition Conflict (mcs-api v1beta1), in bit order.
var conflictNames = [...]string{
	"PortConflict", "TypeConflict", "SessionAffinityConflict", "SessionAffinityConfigConflict", "LabelsConflict",
	"AnnotationsConflict", "InternalTrafficPolicyConflict", "TrafficDistributionConflict", "IPFamilyConflict",
}

// Reasons returns the names of the set's members as the ServiceExport API spells them.
func (c Conflict) Reasons() []string {
	var names []string
	for i, name := range conflictNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// ConflictReasons returns every reason there is, for metrics that show zero before the first conflict.
func ConflictReasons() []string { return conflictNames[:] }

// String joins the reasons by commas, as the condition does.
func (c Conflict) String() string { return strings.Join(c.Reasons(), ",") }

// Unready counts the endpoints of a headless service at one place that are not ready but should be.
type Unready struct {
	Cluster    topology.ClusterID
	Node, Zone string
	Count      int
}

// Contribution is one cluster's part of a merged service.
type Contribution struct {
	Cluster topology.ClusterID
	// Addrs are what a ClusterSetIP answer holds for this cluster, sorted; none for Headless.
	Addrs []netip.Addr
	ports *[]Port // nil where they are the ports of the service
	// Ready and Total count distinct endpoints. Those that are going (terminating and not ready) or have just been made
	// (fresh) are not part of Total.
	Ready, Total int32
	// Percent, 0 to 100, is the WeightPercent of the cluster's export.
	Percent uint8
	// Exported is when that was made, in Unix seconds; 0 where there is none, or it does not say.
	Exported uint32
}

// Ports are those on which Addrs listen, none where they are the ports of the service. The caller must not change them.
func (c *Contribution) Ports() []Port {
	if c.ports == nil {
		return nil
	}
	return *c.ports
}

// Service is the merged view of one service of the ClusterSet. Immutable once made. What most queries look at stands first.
type Service struct {
	// fqdn is the name of the service in Zone, of which its Key has parts, of so many octets: a query compares these, and is
	// answered with all of it, and waits for it only once.
	fqdn            string
	name, namespace uint8
	// Memo is room for what readers derive from the service. It lives as long as the service does, and is no part of its
	// value. Whoever uses it stores values of one type only.
	Memo atomic.Value
	// Import is the ServiceImport that is the source of truth, nil where there is none.
	Import *Import
	// Traits are those of the oldest export, or of the ServiceImport. Services share equal ones.
	*Traits
	// Backends are the ready hosts of a Headless service, sorted by cluster, then label.
	Backends []Backend
	// Members are the clusters that contribute, sorted by id.
	Members []Contribution
	// Ports are the union of all exporters' ports, the oldest export winning (or those of the ServiceImport).
	Ports   []Port
	unready *[]Unready // nil where none is missing
}

// newService returns a service with room for so many members: for one, as most have, in the same place of memory. The parts of the
// key are labels of DNS.
func newService(key ServiceKey, members int) *Service {
	named := Service{fqdn: key.Name + "." + key.Namespace + ".svc." + Zone, name: uint8(len(key.Name)), namespace: uint8(len(key.Namespace))} //nolint:gosec // 63 at most
	if members != 1 {
		named.Members = make([]Contribution, 0, members)
		return &named
	}
	s := &struct {
		Service
		only [1]Contribution
	}{Service: named}
	s.Members = s.only[:0]
	return &s.Service
}

// Key returns the name and the namespace.
func (s *Service) Key() ServiceKey {
	begin := int(s.name) + 1
	return ServiceKey{Namespace: s.fqdn[begin : begin+int(s.namespace)], Name: s.fqdn[:s.name]}
}

// FQDN returns the name of the service in Zone (KEP-1645, "DNS").
func (s *Service) FQDN() string { return s.fqdn }

// Unready says where a Headless service lacks endpoints, sorted by cluster, zone and node. The caller must not change it.
func (s *Service) Unready() []Unready {
	if s.unready == nil {
		return nil
	}
	return *s.unready
}

// EndpointsUnknown is true for a headless ServiceImport whose endpoints nobody tells us: absence of an endpoint proves nothing
// then.
func (s *Service) EndpointsUnknown() bool {
	return s.Type == Headless && s.Import != nil && s.Import.NoSlices && len(s.Members) == 0
}

// HasReady reports whether any cluster has a ready endpoint. What a ServiceImport does not tell counts as ready.
func (s *Service) HasReady() bool {
	return len(s.Members) == 0 || slices.ContainsFunc(s.Members, func(c Contribution) bool { return c.Ready > 0 })
}

// around is what merging needs to know besides what the clusters say about the service.
type around struct {
	// local is the cluster whose view this is; ranges are its service networks, where known.
	local  topology.ClusterID
	ranges []netip.Prefix
	// taken are the cluster IPs of its Services.
	taken map[netip.Addr]struct{}
	// hosts are the addresses of load balancers that have names only.
	hosts map[string][]netip.Addr
	// traits are those that services share.
	traits sharedTraits
}

// sharedTraits are traits, each once: they are few, every query looks at them, and so they are where it finds them soon.
type sharedTraits map[Traits]*Traits

// maxSharedTraits is far above what there is, and bounds what a hostile member can make of it.
const maxSharedTraits = 256

// of returns equal traits that are shared, if there is room.
func (t sharedTraits) of(one *Traits) *Traits {
	shared := t[*one]
	if shared == nil && t != nil && len(t) < maxSharedTraits {
		own := *one
		t[own], shared = &own, &own
	}
	return cmp.Or(shared, one)
}

// merge makes the view of one service. exports must be sorted by cluster id. The service is nil when no valid export
// and no import makes it exist.
func merge(key ServiceKey, exports []exported, imp *ImportShard, env around) (*Service, Report) {
	report := Report{}
	var room, roomByAge [4]exported
	valid := room[:0]
	for _, e := range exports {
		switch {
		case e.member.Refused:
			report.Unusable = append(report.Unusable, Unusable{e.member.ID, WrongCluster})
		case !e.member.mayExportFrom(key.Namespace):
			report.Unusable = append(report.Unusable, Unusable{e.member.ID, ForeignNamespace})
		case e.shard.Service == nil:
			report.NoService = append(report.NoService, e.member.ID)
		case e.shard.Service.ExternalName:
			report.InvalidType = append(report.InvalidType, e.member.ID)
		default:
			valid = append(valid, e)
		}
	}
	byAge := append(roomByAge[:0], valid...)
	slices.SortStableFunc(byAge, func(a, b exported) int { return cmp.Compare(a.shard.Export.Created, b.shard.Export.Created) })
	report.Conflicts = conflicts(byAge)
	switch {
	case imp != nil:
		s := mergeImport(key, valid, imp, env, &report)
		return s, report
	case len(valid) > 0:
		s := mergeExports(key, valid, byAge, env, &report)
		return s, report
	default:
		return nil, report
	}
}

// Report says what merging found wrong with the exports of a service. It never changes an answer by itself.
type Report struct {
	Conflicts Conflict
	// NoService and InvalidType are the clusters whose export is invalid: it has no Service, or one of type ExternalName.
	NoService, InvalidType []topology.ClusterID
	// Unusable are the clusters that take no part in a service, or only a part of it, and why.
	Unusable []Unusable
}

// Unusable says why a cluster's part in a service, or some of it, is not answered.
type Unusable struct {
	Cluster topology.ClusterID
	Reason  UnusableReason
}

// UnusableReason is a closed set, used as metric label.
type UnusableReason string

const (
	// Overlap means that the remote cluster IP lies in the local cluster's own service network, or that a Service there has it:
	// it is another service.
	Overlap UnusableReason = "overlap"
	// PortMismatch means, with `address endpoints`, that a port of the Service is another one on the pods, so that a client of an A
	// record would knock at the wrong one.
	PortMismatch UnusableReason = "port_mismatch"
	// NoAddress means that there is none of the kind that is configured (no load balancer address yet, no cluster IP, no ready
	// endpoint).
	NoAddress UnusableReason = "no_address"
	// NotAllowed means that it exports addresses which Member.Allow does not hold. Those are left out.
	NotAllowed UnusableReason = "not_allowed"
	// ForeignNamespace means that it may not export from the namespace. Its export is as if it were not there.
	ForeignNamespace UnusableReason = "namespace"
	// WrongCluster means that it says that it is another cluster. Its exports are as if they were not there.
	WrongCluster UnusableReason = "cluster_id"
)

// Clean reports whether there is nothing to say.
func (r Report) Clean() bool {
	return r.Conflicts == 0 && len(r.NoService) == 0 && len(r.InvalidType) == 0 && len(r.Unusable) == 0
}

func mergeExports(key ServiceKey, valid, byAge []exported, env around, report *Report) *Service {
	s := newService(key, len(valid))
	s.Traits, s.Ports = env.traits.of(&byAge[0].shard.Service.Traits), unionOfPorts(byAge)
	for _, e := range valid {
		s.contribute(e.member, e.shard, report)
		if s.Type != ClusterSetIP {
			continue
		}
		addrs, reason := addresses(e.member, e.shard, s.Ports, env)
		s.Members[len(s.Members)-1].Addrs = addrs
		if e.member.Address == AddressEndpoints && len(addrs) > 0 && !listensOn(e.shard, s.Ports) {
			own := podPorts(e.shard)
			s.Members[len(s.Members)-1].ports = &own
		}
		if reason != "" {
			report.Unusable = append(report.Unusable, Unusable{e.member.ID, reason})
		}
	}
	return s
}

// mergeImport lets the ServiceImport decide everything that it knows. Only endpoints that it says it has not are taken
// from the exports that are read directly.
func mergeImport(key ServiceKey, valid []exported, imp *ImportShard, env around, report *Report) *Service {
	s := newService(key, 0)
	s.Import, s.Traits, s.Ports = &imp.Import, env.traits.of(&imp.Import.Traits), imp.Import.Ports
	if s.Type != Headless {
		return s
	}
	if imp.Import.NoSlices {
		for _, e := range valid {
			s.contribute(e.member, e.shard, report)
		}
		return s
	}
	// Slices are sorted by name, so those of one cluster need not stand together.
	bySource := slices.Clone(imp.Slices)
	slices.SortStableFunc(bySource, func(a, b *Slice) int { return cmp.Compare(a.Source, b.Source) })
	for len(bySource) > 0 {
		source := bySource[0].Source
		n := 1
		for n < len(bySource) && bySource[n].Source == source {
			n++
		}
		s.addEndpoints(source, bySource[:n], false)
		bySource = bySource[n:]
	}
	return s
}

// contribute adds what one exporter brings. Endpoints are always aggregated, whatever the exporter's own type
// (KEP-1645, "Service Types").
func (s *Service) contribute(m *Member, shard *Shard, report *Report) {
	from := shard.Slices
	// Endpoints of a ClusterSetIP service are counted, and answered only where addresses asks for them.
	if s.Type == Headless && len(m.Allow) > 0 {
		var all bool
		if from, all = m.allowed(from); !all {
			report.Unusable = append(report.Unusable, Unusable{m.ID, NotAllowed})
		}
	}
	s.addEndpoints(m.ID, from, shard.Service.PublishNotReady)
	c := &s.Members[len(s.Members)-1]
	c.Percent = shard.Export.WeightPercent
	c.Exported = uint32(min(max(0, shard.Export.Created), math.MaxUint32)) //nolint:gosec // bounded
}

func (s *Service) addEndpoints(cluster topology.ClusterID, from []*Slice, publishNotReady bool) {
	ready, total, missing := count(from, publishNotReady)
	s.Members = append(s.Members, Contribution{Cluster: cluster, Ready: ready, Total: total, Percent: 100})
	if s.Type != Headless {
		return
	}
	s.addBackends(from, publishNotReady)
	for _, m := range missing {
		at := m.slice.Endpoints.placeAt(m.at)
		s.miss(Unready{cluster, at.node, at.zone, 1})
	}
}

// miss counts an endpoint that is not ready.
func (s *Service) miss(u Unready) {
	all := s.Unready()
	at, there := slices.BinarySearchFunc(all, u, func(a, b Unready) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Node, b.Node))
	})
	if there {
		all[at].Count++
		return
	}
	all = slices.Insert(all, at, u)
	s.unready = &all
}

// counted is one endpoint on its way through count.
type counted struct {
	identity Identity
	slice    *Slice
	at       int
}

// count returns how many distinct endpoints the slices hold, and those of the total that are not ready. An endpoint that
// stands in several slices (two families, or while it moves) is one, and ready if it is ready in any.
func count(from []*Slice, publishNotReady bool) (ready, total int32, missing []counted) {
	all := make([]counted, 0, 16)
	for _, s := range from {
		for i := range s.Endpoints.Len() {
			all = append(all, counted{s.Endpoints.Identity(i), s, i})
		}
	}
	// The order of equals decides where a missing one is, so it must not depend on luck.
	slices.SortStableFunc(all, func(a, b counted) int { return cmp.Compare(a.identity, b.identity) })
	for len(all) > 0 {
		id := all[0].identity
		isReady, expected := false, false
		n := 0
		for ; n < len(all) && all[n].identity == id; n++ {
			c := all[n].slice.Endpoints.Conditions(all[n].at)
			isReady = isReady || publishNotReady || c&Ready != 0
			expected = expected || c&(Terminating|Fresh) == 0
		}
		switch {
		case isReady:
			ready++
			total++
		case expected:
			total++
			missing = append(missing, all[0])
		}
		all = all[n:]
	}
	return ready, total, missing
}

// addresses returns what a ClusterSetIP answer holds for one member, sorted and without duplicates, and why that is
// nothing or not all.
func addresses(m *Member, shard *Shard, ports []Port, env around) ([]netip.Addr, UnusableReason) {
	var addrs []netip.Addr
	reason := NoAddress
	if m.NoAddress {
		return nil, reason
	}
	switch m.Address {
	case AddressFixed:
		addrs = slices.Clone(m.Gateway)
	case AddressLoadBalancer:
		addrs = balanced(shard.Service.LoadBalancer, env)
	case AddressEndpoints:
		if !m.AnyPort && !listensOn(shard, ports) {
			return nil, PortMismatch
		}
		addrs = endpointAddresses(shard)
	default:
		for _, a := range shard.Service.ClusterIPs {
			switch {
			case !a.IsValid():
			case m.ID != env.local && env.overlaps(a):
				reason = Overlap
			default:
				addrs = append(addrs, a)
			}
		}
	}
	if len(addrs) == 0 {
		return nil, reason
	}
	reason = ""
	if m.Address != AddressFixed && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !m.allows(a) }) {
		reason = NotAllowed
		if addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !m.allows(a) }); len(addrs) == 0 {
			return nil, reason
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if own := shard.Service.ClusterIPs[:1:1]; slices.Equal(addrs, own) {
		return own, reason // no copy: this is what most services have
	}
	return slices.Compact(addrs), reason
}

// balanced returns the addresses of a load balancer as far as they are known.
func balanced(l *LoadBalancer, env around) []netip.Addr {
	if l == nil {
		return nil
	}
	addrs := slices.Clone(l.Addrs)
	for _, host := range l.Hosts {
		addrs = append(addrs, env.hosts[host]...)
	}
	return addrs
}

// overlaps reports whether an address is one of the local cluster's services.
func (env around) overlaps(a netip.Addr) bool {
	if _, taken := env.taken[a]; taken {
		return true
	}
	return slices.ContainsFunc(env.ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

func endpointAddresses(shard *Shard) []netip.Addr {
	var addrs []netip.Addr
	for _, s := range shard.Slices {
		for i := range s.Endpoints.Len() {
			if shard.Service.PublishNotReady || s.Endpoints.Conditions(i)&Ready != 0 {
				addrs = append(addrs, s.Endpoints.Addr(i))
			}
		}
	}
	return addrs
}

// listensOn reports whether the pods listen on the very ports of the service: a client that resolves an A record
// connects to the service's port, which must then be the port of the pod.
func listensOn(shard *Shard, ports []Port) bool {
	for _, s := range shard.Slices {
		for _, own := range s.Ports {
			for _, p := range ports {
				if own.Name == p.Name && own.Number != p.Number {
					return false
				}
			}
		}
	}
	return true
}

// podPorts are the ports on which the endpoints listen, each once. Pods of different versions may differ.
func podPorts(shard *Shard) []Port {
	var ports []Port
	for _, s := range shard.Slices {
		for _, p := range s.Ports {
			if s.Endpoints.Len() > 0 && !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	return ports
}

// unionOfPorts walks the exports from oldest to youngest and adds each port unless its name is taken (no name counts as
// a name) or its protocol and number are (KEP-1645, "Service Port").
func unionOfPorts(byAge []exported) []Port {
	var buf [8]Port
	union := buf[:0]
	for _, e := range byAge {
		for _, p := range e.shard.Service.Ports {
			taken := slices.ContainsFunc(union, func(u Port) bool {
				return u.Name == p.Name || u.Protocol == p.Protocol && u.Number == p.Number
			})
			if !taken {
				union = append(union, p)
			}
		}
	}
	if first := byAge[0].shard.Service.Ports; slices.Equal(union, first) {
		return slices.Clip(first) // no copy: most agree
	}
	return slices.Clone(union)
}

// conflicts compares every export with the oldest, which wins.
func conflicts(byAge []exported) Conflict {
	var c Conflict
	add := func(differ bool, reason Conflict) {
		if differ {
			c |= reason
		}
	}
	for i := 1; i < len(byAge); i++ {
		a, b := byAge[0].shard, byAge[i].shard
		x, y := a.Service, b.Service
		add(!samePorts(x.Ports, y.Ports), PortConflict)
		add(x.Type != y.Type, TypeConflict)
		add(x.ClientIPAffinity != y.ClientIPAffinity, SessionAffinityConflict)
		add(x.AffinitySeconds != y.AffinitySeconds, SessionAffinityConfigConflict)
		add(a.Export.Labels != b.Export.Labels, LabelsConflict)
		add(a.Export.Annotations != b.Export.Annotations, AnnotationsConflict)
		add(x.InternalTrafficPolicy != y.InternalTrafficPolicy, InternalTrafficPolicyConflict)
		add(x.TrafficDistribution != y.TrafficDistribution, TrafficDistributionConflict)
		add(x.IPv4 != y.IPv4 || x.IPv6 != y.IPv6, IPFamilyConflict)
	}
	return c
}

// samePorts compares as sets: any difference is a conflict, also a port that one side has in addition.
func samePorts(a, b []Port) bool {
	if len(a) != len(b) {
		return false
	}
	for _, p := range a {
		if !slices.Contains(b, p) {
			return false
		}
	}
	return true
}
