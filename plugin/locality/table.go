package locality

import (
	"maps"
	"net/netip"
	"slices"
)

// place is where something is within the own cluster. Parts that are not known are "". Comparable.
type place struct{ region, zone, node string }

// common keeps what two claims about one address agree on.
func (p place) common(o place) place {
	if p.region != o.region {
		p.region = ""
	}
	if p.zone != o.zone {
		p.zone = ""
	}
	if p.node != o.node {
		p.node = ""
	}
	return p
}

// prefixes finds the longest prefix that holds an address. It is immutable; the zero value is empty. A search costs one
// map access per length that occurs, and in practice few lengths do.
type prefixes[T any] struct {
	values     map[netip.Prefix]T
	four, six  []int // the lengths that occur, longest first
	zeroResult T
}

// newPrefixes keeps the map, whose keys must be masked.
func newPrefixes[T any](values map[netip.Prefix]T) *prefixes[T] {
	p := &prefixes[T]{values: values}
	four, six := map[int]bool{}, map[int]bool{}
	for prefix := range values {
		if prefix.Addr().Is4() {
			four[prefix.Bits()] = true
		} else {
			six[prefix.Bits()] = true
		}
	}
	p.four, p.six = descending(four), descending(six)
	return p
}

func descending(set map[int]bool) []int {
	out := slices.Sorted(maps.Keys(set))
	slices.Reverse(out)
	return out
}

// find returns the value of the longest prefix that holds all of the block of addresses that begins with addr and has
// the given length.
func (p *prefixes[T]) find(addr netip.Addr, bits int) (T, bool) {
	lengths := p.six
	if addr.Is4() {
		lengths = p.four
	}
	for _, length := range lengths {
		if length > bits {
			continue
		}
		block, err := addr.Prefix(length)
		if err != nil {
			break // the zero Addr
		}
		if v, ok := p.values[block]; ok {
			return v, true
		}
	}
	return p.zeroResult, false
}

// block returns the longest prefix that holds an address.
func (p *prefixes[T]) block(addr netip.Addr) (netip.Prefix, bool) {
	lengths := p.six
	if addr.Is4() {
		lengths = p.four
	}
	for _, length := range lengths {
		block, err := addr.Prefix(length)
		if _, there := p.values[block]; err == nil && there {
			return block, true
		}
	}
	return netip.Prefix{}, false
}

// addresses maps exact addresses to places. It is immutable, but cheap to change a little: of its many small maps only
// those are copied that hold what changes, and the blocks in which they stand. The zero value is empty.
type addresses [blocks]*block

// block holds the addresses of which the last bits but some are equal, in which those of one network differ.
type block [blocks]map[netip.Addr]*place

const blocks = 64

func (a *addresses) find(addr netip.Addr) *place {
	i, j := shard(addr)
	if a[i] == nil {
		return nil
	}
	return a[i][j][addr]
}

// shard tells in which block an address is, and where there.
func shard(addr netip.Addr) (i, j int) {
	b := addr.As16()
	last := int(b[14])<<8 | int(b[15])
	return last / blocks % blocks, last % blocks
}

// with returns the addresses after some changes; nil takes an address out.
func (a *addresses) with(changes map[netip.Addr]*place) *addresses {
	out := *a
	var mine [blocks]*[blocks]bool // which of its maps are copies already, where the block is
	for addr, p := range changes {
		i, j := shard(addr)
		if mine[i] == nil {
			mine[i] = &[blocks]bool{}
			copied := block{}
			if out[i] != nil {
				copied = *out[i]
			}
			out[i] = &copied
		}
		if !mine[i][j] {
			mine[i][j] = true
			if out[i][j] = maps.Clone(out[i][j]); out[i][j] == nil {
				out[i][j] = map[netip.Addr]*place{}
			}
		}
		if p == nil {
			delete(out[i][j], addr)
		} else {
			out[i][j][addr] = p
		}
	}
	return &out
}

func (a *addresses) len() int {
	n := 0
	for _, in := range a {
		if in == nil {
			continue
		}
		for _, m := range in {
			n += len(m)
		}
	}
	return n
}
