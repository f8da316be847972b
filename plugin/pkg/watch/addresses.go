package watch

import (
	"hash/maphash"
	"net/netip"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// holder stands for the Service that has an address, 0 for one that is not known. Two that differ are equal with a probability
// of 2^-64.
type holder uint64

// holderSeed is fixed for the life of the process.
var holderSeed = maphash.MakeSeed()

func holderOf(key mcs.ServiceKey) holder { return holder(max(1, maphash.Comparable(holderSeed, key))) }

// addressesOf returns the cluster IPs of the Service that an item stands for.
func addressesOf(it *item) (out mcs.Addresses) {
	switch fact := it.fact.(type) {
	case *mcs.ServiceSpec:
		return fact.ClusterIPs
	case mcs.Addresses:
		return fact
	}
	return out
}

// takeAddresses notes the cluster IPs that a Service has. One that becomes an ExternalName gives back those it had.
func (f *exportFeed) takeAddresses(key mcs.ServiceKey, now mcs.Addresses, external bool) {
	if !f.addressed.Load() {
		return
	}
	me := holderOf(key)
	var news, gone []netip.Addr
	for _, a := range now {
		if !a.IsValid() {
			continue
		}
		if _, known := f.addresses[a]; !known {
			news = append(news, a)
		}
		f.addresses[a] = me
	}
	for a, owner := range f.addresses {
		if !external {
			break
		}
		if owner == me {
			delete(f.addresses, a)
			gone = append(gone, a)
		}
	}
	f.tellAddresses(news, gone)
}

// freeAddresses notes that a Service has gone which had these cluster IPs.
func (f *exportFeed) freeAddresses(key mcs.ServiceKey, had mcs.Addresses) {
	var gone []netip.Addr
	for _, a := range had {
		if owner, known := f.addresses[a]; known && (owner == 0 || owner == holderOf(key)) {
			delete(f.addresses, a)
			gone = append(gone, a)
		}
	}
	f.tellAddresses(nil, gone)
}

func (f *exportFeed) tellAddresses(taken, free []netip.Addr) {
	if len(taken)+len(free) == 0 || f.level.Load() == levelNone {
		return
	}
	for _, s := range f.sinks {
		s.ApplyServiceAddresses(taken, free)
	}
}

// replaceAddresses takes the cluster IPs from a full list.
func (f *exportFeed) replaceAddresses(items []any) {
	if !f.addressed.Load() {
		return
	}
	now := map[netip.Addr]holder{}
	var news, gone []netip.Addr
	for _, obj := range items {
		for _, a := range addressesOf(obj.(*item)) {
			if _, twice := now[a]; !a.IsValid() || twice {
				continue
			}
			now[a] = holderOf(obj.(*item).key)
			if _, known := f.addresses[a]; !known {
				news = append(news, a)
			}
		}
	}
	for a := range f.addresses {
		if _, still := now[a]; !still {
			gone = append(gone, a)
		}
	}
	f.addresses = now
	f.tellAddresses(news, gone)
}
