// Package balance chooses which part of a merged service a client is given.
//
// It owns the policy and the choice, and refuses everything else: it sees no DNS message, no clock and no random source.
// It imports the standard library and the packages mcs and topology only.
package balance

import (
	"net/netip"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// Answer says how many members' addresses stand in the answer of a ClusterSetIP service.
type Answer uint8

const (
	// One member's address: clients cannot undo the choice.
	One Answer = iota
	// All members' addresses: the client spreads evenly over them.
	All
)

// Policy is what the operator asks for. The zero value is the default.
type Policy struct {
	Answer Answer
}

// Family is an address family, and the test whether an address is of it.
type Family func(netip.Addr) bool

// The two address families of DNS.
var (
	IPv4 Family = netip.Addr.Is4
	IPv6 Family = netip.Addr.Is6
)

// Addresses appends to dst what a ClusterSetIP service without a ServiceImport answers with in that family, sorted and
// without duplicates. Members without ready endpoints take no part unless none has any. Of the others, One takes the
// first by cluster id that has the family.
func (p Policy) Addresses(dst []netip.Addr, s *mcs.Service, of Family) []netip.Addr {
	begin := len(dst)
	anyReady := slices.ContainsFunc(s.Members, func(c mcs.Contribution) bool { return c.Ready > 0 })
	parts := 0
	for i := range s.Members {
		m := &s.Members[i]
		if anyReady && m.Ready == 0 {
			continue
		}
		before := len(dst)
		for _, a := range m.Addrs {
			if of(a) {
				dst = append(dst, a)
			}
		}
		if len(dst) == before {
			continue
		}
		if parts++; p.Answer == One {
			break
		}
	}
	if parts > 1 {
		slices.SortFunc(dst[begin:], netip.Addr.Compare)
		dst = append(dst[:begin], slices.Compact(dst[begin:])...)
	}
	return dst
}

// Backends returns what a Headless service answers with: all of it.
func (p Policy) Backends(s *mcs.Service) []mcs.Backend { return s.Backends }
