package mcs

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Backend is the ready part of a headless service that one host name stands for: the addresses of one label in one
// cluster. It points to the endpoint instead of copying it: there are many.
type Backend struct {
	slice *Slice
	// joined is what several endpoints of one label have together, nil for one alone.
	joined *joined
	// at is the index of the endpoint in the slice, the first of several; member that of the cluster in Service.Members.
	at, member int32
}

type joined struct {
	addrs []netip.Addr
	ports []Port
}

// Member returns the index of its cluster in Service.Members.
func (b *Backend) Member() int { return int(b.member) }

// Label returns the host label.
func (b *Backend) Label() string { return b.slice.Endpoints.Label(int(b.at)) }

// AppendLabel appends the host label.
func (b *Backend) AppendLabel(to []byte) []byte { return b.slice.Endpoints.appendLabel(to, int(b.at)) }

// ID is that of the Endpoint. Two labels of one pod have one ID.
func (b *Backend) ID() uint64 { return b.slice.Endpoints.id(int(b.at)) }

// Place returns where it is, "" where that is not known.
func (b *Backend) Place() (node, zone string) {
	p := b.slice.Endpoints.placeAt(int(b.at))
	return p.node, p.zone
}

// Ports returns the ports of the slices in which the addresses are. The caller must not change them.
func (b *Backend) Ports() []Port {
	if b.joined != nil {
		return b.joined.ports
	}
	return b.slice.Ports
}

// AppendAddrs appends the ready addresses, sorted, without duplicates, at least one.
func (b *Backend) AppendAddrs(to []netip.Addr) []netip.Addr {
	if b.joined == nil {
		return append(to, b.slice.Endpoints.Addr(int(b.at)))
	}
	return append(to, b.joined.addrs...)
}

// Has reports whether one of the addresses is such.
func (b *Backend) Has(such func(netip.Addr) bool) bool {
	if b.joined == nil {
		return such(b.slice.Endpoints.Addr(int(b.at)))
	}
	return slices.ContainsFunc(b.joined.addrs, such)
}

// ClusterOf returns the cluster of one of the service's backends.
func (s *Service) ClusterOf(b *Backend) topology.ClusterID { return s.Members[b.member].Cluster }

// Backend returns the backend of that label in that cluster, nil when there is none. Both must be lower case.
func (s *Service) Backend(label string, cluster topology.ClusterID) *Backend {
	in := s.backendsOf(cluster)
	i, ok := slices.BinarySearchFunc(in, label, func(b Backend, label string) int {
		var buf [maxAddressLabel]byte
		return bytes.Compare(b.AppendLabel(buf[:0]), []byte(label))
	})
	if !ok {
		return nil
	}
	return &in[i]
}

// HasBackends reports whether a cluster has a ready backend of this headless service.
func (s *Service) HasBackends(cluster topology.ClusterID) bool { return len(s.backendsOf(cluster)) > 0 }

func (s *Service) backendsOf(cluster topology.ClusterID) []Backend {
	member, there := slices.BinarySearchFunc(s.Members, cluster, func(c Contribution, id topology.ClusterID) int { return cmp.Compare(c.Cluster, id) })
	if !there {
		return nil
	}
	find := func(member int) int {
		at, _ := slices.BinarySearchFunc(s.Backends, member, func(b Backend, member int) int { return cmp.Compare(int(b.member), member) })
		return at
	}
	return s.Backends[find(member):find(member+1)]
}

// addBackends adds the ready hosts of the last member, sorted by label, those that share a label joined.
func (s *Service) addBackends(from []*Slice, publishNotReady bool) {
	var few [16]labelled
	var short [len(few) * len("255-255-255-255")]byte
	found, labels := appendLabelled(few[:0], short[:0], from, publishNotReady, int32(len(s.Members)-1)) //nolint:gosec // there are not that many clusters
	label := func(l labelled) []byte { return labels[l.begin:l.end] }
	slices.SortStableFunc(found, func(a, b labelled) int { return bytes.Compare(label(a), label(b)) })
	s.Backends = slices.Grow(s.Backends, len(found)) // and no more: there are many services
	for i := range found {
		if i > 0 && bytes.Equal(label(found[i]), label(found[i-1])) {
			s.Backends[len(s.Backends)-1].join(&found[i].Backend)
			continue
		}
		s.Backends = append(s.Backends, found[i].Backend)
	}
}

// labelled is a Backend and where its label stands among those of all.
type labelled struct {
	begin, end int
	Backend
}

// appendLabelled appends the ready hosts of a member, and their labels.
func appendLabelled(to []labelled, labels []byte, from []*Slice, publishNotReady bool, member int32) (found []labelled, all []byte) {
	for _, slice := range from {
		for i := range slice.Endpoints.Len() {
			if publishNotReady || slice.Endpoints.Conditions(i)&Ready != 0 {
				begin := len(labels)
				labels = slice.Endpoints.appendLabel(labels, i)
				to = append(to, labelled{begin, len(labels), Backend{slice: slice, at: int32(i), member: member}}) //nolint:gosec // far below 2^31
			}
		}
	}
	return to, labels
}

// join adds another endpoint of the same label.
func (b *Backend) join(o *Backend) {
	if b.joined == nil {
		// The slice's own ports are shared by all its endpoints, so they are copied before they grow.
		b.joined = &joined{b.AppendAddrs(nil), slices.Clip(b.slice.Ports)}
	}
	for _, a := range o.AppendAddrs(nil) {
		if at, there := slices.BinarySearchFunc(b.joined.addrs, a, netip.Addr.Compare); !there {
			b.joined.addrs = slices.Insert(b.joined.addrs, at, a)
		}
	}
	for _, p := range o.Ports() {
		if !slices.Contains(b.joined.ports, p) {
			b.joined.ports = append(b.joined.ports, p)
		}
	}
}
