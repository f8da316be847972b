// Package mcs holds the facts that member clusters export, the rules that merge them into one view of the ClusterSet
// (KEP-1645), and the immutable Snapshot that queries read.
//
// It is pure: functions of values. It knows no client-go, no socket, no clock and no randomness, and refuses to decide
// which endpoints a client gets (package balance) or what a DNS answer looks like (plugin clusterset). It imports the
// standard library and package topology only.
package mcs

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// ServiceKey names a service of the ClusterSet. Namespace sameness (KEP-1645, "Terminology") makes it the same service in
// every cluster.
type ServiceKey struct{ Namespace, Name string }

// String returns "namespace/name".
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Name }

// Zone is that of the Multi-Cluster Services API (KEP-1645, "DNS").
const Zone = "clusterset.local."

// Protocol is the transport of a port. The zero value is TCP, as in the Kubernetes API.
type Protocol uint8

// The protocols that a Service port can have.
const (
	TCP Protocol = iota
	UDP
	SCTP
)

// String returns the lower-case name, as it stands after the underscore in an SRV owner name.
func (p Protocol) String() string {
	switch p {
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	default:
		return "tcp"
	}
}

// Port is a port of a Service or of an EndpointSlice. An unnamed port has the Name "".
type Port struct {
	Name     string
	Protocol Protocol
	Number   uint16
}

// ServiceType says whether a merged service has an address of its own.
type ServiceType uint8

// The two types of a ServiceImport.
const (
	ClusterSetIP ServiceType = iota
	Headless
)

// String returns the name that the ServiceImport API uses.
func (t ServiceType) String() string {
	if t == Headless {
		return "Headless"
	}
	return "ClusterSetIP"
}

// Addresses holds up to two addresses of a service, in the order given; unused places are the zero netip.Addr. Kubernetes
// allows one per address family. A comparable array, so that change is detected by ==.
type Addresses [2]netip.Addr

// Export is what a member says by its ServiceExport object.
type Export struct {
	// Created is the creationTimestamp of the ServiceExport in Unix seconds. The oldest export wins a conflict.
	Created int64
	// WeightPercent, 0 to 100, is how much of its weight the member wants to have for this service (the annotation
	// clusterset-dns.io/weight-percent; 100 without it). 0 drains.
	WeightPercent uint8
	// Labels and Annotations are the Digests of spec.exportedLabels and spec.exportedAnnotations: all that is asked of them is
	// whether those of two exports are equal.
	Labels, Annotations uint64
}

// Digest turns a map into a number that is equal when the maps are, in every process, 0 for none: the FNV-1a of the sorted pairs
// of quoted key and value. Quoted, because an annotation's value can hold any octet. Two that differ can be made to have one
// number: whoever does hides a conflict that is of his own making.
func Digest(m map[string]string) uint64 {
	if len(m) == 0 {
		return 0
	}
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, strconv.Quote(k)+strconv.Quote(v))
	}
	slices.Sort(pairs)
	h := fnv.New64a()
	for _, p := range pairs {
		_, _ = h.Write([]byte(p))
	}
	return max(1, h.Sum64())
}

// Traits are the properties of a Service that are merged by "the oldest export wins". Comparable.
type Traits struct {
	// Type is Headless for clusterIP None, else ClusterSetIP.
	Type ServiceType
	// ClientIPAffinity is true for sessionAffinity ClientIP; AffinitySeconds is its timeout, 0 when there is none.
	ClientIPAffinity bool
	// IPv4 and IPv6 say which families the Service has (spec.ipFamilies).
	IPv4, IPv6      bool
	AffinitySeconds int32
	// InternalTrafficPolicy and TrafficDistribution are the values of the Service, "" when unset.
	InternalTrafficPolicy string
	TrafficDistribution   string
}

// ServiceSpec is what a member says by a Service object.
type ServiceSpec struct {
	Traits
	// ExternalName is true for the one type of Service that must not be exported (KEP-1645, "Service Types").
	ExternalName bool
	// PublishNotReady makes every endpoint count as ready.
	PublishNotReady bool
	// ClusterIPs are the cluster IPs, none when headless.
	ClusterIPs Addresses
	// LoadBalancer is nil where there is none.
	LoadBalancer *LoadBalancer
	// Ports are the ports in the order of the Service.
	Ports []Port
}

// Equal reports whether two specs say the same.
func (s *ServiceSpec) Equal(o *ServiceSpec) bool {
	return s.Traits == o.Traits && s.ExternalName == o.ExternalName && s.PublishNotReady == o.PublishNotReady &&
		s.ClusterIPs == o.ClusterIPs && s.LoadBalancer.equal(o.LoadBalancer) && slices.Equal(s.Ports, o.Ports)
}

// LoadBalancer is the ingress of a Service's load balancer: its addresses, and its lower-case host names where it has no
// address; both sorted, and one of them not empty.
type LoadBalancer struct {
	Addrs []netip.Addr
	Hosts []string
}

func (l *LoadBalancer) equal(o *LoadBalancer) bool {
	if l == nil || o == nil {
		return l == o
	}
	return slices.Equal(l.Addrs, o.Addrs) && slices.Equal(l.Hosts, o.Hosts)
}

// Conditions are the conditions of an endpoint, unset ones already resolved as discovery/v1 says: ready and serving
// default to true, terminating to false. Fresh is ours.
type Conditions uint8

// The conditions of an endpoint.
const (
	Ready Conditions = 1 << iota
	Serving
	Terminating
	// Fresh endpoints are new and have never been ready. They do not count in totals: scaling up is not an outage.
	Fresh
)

// Endpoint is one address behind a service. An endpoint object with several addresses becomes several of these with
// the same identity. Comparable. Endpoints keep many.
type Endpoint struct {
	Addr netip.Addr
	// Label is the endpoint's host label: its hostname, else AddressLabel(Addr). A valid lower-case DNS label.
	Label string
	// ID is the xxhash64 of the UID of the endpoint's target, 0 when it has none. There are many endpoints, and all that is
	// asked of their UIDs is whether they are equal.
	ID         uint64
	Node, Zone string
	Conditions Conditions
}

// AddressLabel makes the host label of an endpoint without a hostname: the address with dots and colons replaced by
// hyphens, and a 0 added where it would begin or end in a hyphen (at the end, CoreDNS's kubernetes plugin does so too).
func AddressLabel(a netip.Addr) string {
	return string(appendAddressLabel(make([]byte, 0, maxAddressLabel), a))
}

// maxAddressLabel is room for every label of an address without a zone.
const maxAddressLabel = 48

func appendAddressLabel(to []byte, a netip.Addr) []byte {
	begin := len(to)
	to = a.AppendTo(to)
	for i, c := range to[begin:] {
		if c == '.' || c == ':' || c == '%' {
			to[begin+i] = '-'
		}
	}
	if to[begin] == '-' {
		to = slices.Insert(to, begin, '0')
	}
	if to[len(to)-1] == '-' {
		to = append(to, '0')
	}
	return to
}

// Slice is what a member says by one EndpointSlice. Immutable once made.
type Slice struct {
	Name string
	// Source is the cluster whose endpoints these are: set for slices that a ServiceImport brings, "" for a member's own.
	Source topology.ClusterID
	// Ports belong to the endpoints of this slice only.
	Ports     []Port
	Endpoints Endpoints
}

// Equal reports whether two slices say the same.
func (s *Slice) Equal(o *Slice) bool {
	return s.Name == o.Name && s.Source == o.Source && slices.Equal(s.Ports, o.Ports) && s.Endpoints.Equal(&o.Endpoints)
}

// Shard is everything that one member says about one service. It is replaced whole, never patched. Immutable once made.
type Shard struct {
	Export Export
	// Service is nil while the member has no Service of that name: the export is then invalid (NoService).
	Service *ServiceSpec
	// Slices are sorted by name.
	Slices []*Slice
}

// NewShard returns a shard with room for so many slices: for one, as most have, in the same place of memory.
func NewShard(export Export, service *ServiceSpec, room int) *Shard {
	s := &struct {
		Shard
		only [1]*Slice
	}{Shard: Shard{Export: export, Service: service}}
	if s.Slices = s.only[:0]; room != 1 {
		s.Slices = make([]*Slice, 0, room)
	}
	return &s.Shard
}

// Equal reports whether two shards say the same.
func (s *Shard) Equal(o *Shard) bool {
	if s == nil || o == nil {
		return s == o
	}
	if s.Export != o.Export || (s.Service == nil) != (o.Service == nil) {
		return false
	}
	if s.Service != o.Service && !s.Service.Equal(o.Service) {
		return false
	}
	return equalSlices(s.Slices, o.Slices)
}

// Import is what a ServiceImport object says.
type Import struct {
	Traits
	// IPs are the ClusterSet IPs, none for Headless or while none is allocated.
	IPs Addresses
	// NoSlices is true when the object says that its EndpointSlices are absent (status.endpointSliceObjects: Absent):
	// the source then cannot know the endpoints.
	NoSlices bool
	Ports    []Port
}

// ImportShard is everything that a source of ServiceImports says about one service: the object and its EndpointSlices.
// Immutable once made.
type ImportShard struct {
	Import Import
	Slices []*Slice
}

// Equal reports whether two shards say the same.
func (s *ImportShard) Equal(o *ImportShard) bool {
	if s == nil || o == nil {
		return s == o
	}
	a, b := &s.Import, &o.Import
	return a.Traits == b.Traits && a.IPs == b.IPs && a.NoSlices == b.NoSlices && slices.Equal(a.Ports, b.Ports) &&
		equalSlices(s.Slices, o.Slices)
}

// equalSlices compares pointers first: an update usually replaces one slice of many.
func equalSlices(a, b []*Slice) bool {
	return slices.EqualFunc(a, b, func(x, y *Slice) bool { return x == y || x.Equal(y) })
}

// Facts are everything that one source says at a moment; only the fields of its kind are used.
type Facts struct {
	// Shards are what a member exports.
	Shards map[ServiceKey]*Shard
	// Imports are what a source of ServiceImports offers.
	Imports map[ServiceKey]*ImportShard
	// Namespaces are those of the local cluster.
	Namespaces []string
	// Addresses are the cluster IPs of all Services of the local cluster, exported or not.
	Addresses []netip.Addr
	// Ranges are the networks of the local cluster's own services.
	Ranges []netip.Prefix
	// Drained is true when the cluster asks not to be used.
	Drained bool
	// Members are those that come and go, by the name of what describes them: their settings, without credentials.
	Members map[string]map[string]string
}
