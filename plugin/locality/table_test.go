package locality

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
)

func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(4)), byte(r.IntN(256))})
	}
	return netip.AddrFrom16([16]byte{0xfd, byte(r.IntN(4)), 15: byte(r.IntN(256))})
}

func TestTheLongestPrefixIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		values := map[netip.Prefix]string{}
		for range r.IntN(30) {
			addr := randomAddr(r)
			p := netip.PrefixFrom(addr, r.IntN(addr.BitLen()+1)).Masked()
			values[p] = p.String()
		}
		p := newPrefixes(values)
		for range 100 {
			addr := randomAddr(r)
			block := netip.PrefixFrom(addr, r.IntN(addr.BitLen()+1)).Masked()
			want, best := "", -1
			for prefix, value := range values {
				if prefix.Contains(block.Addr()) && prefix.Bits() <= block.Bits() && prefix.Bits() > best {
					want, best = value, prefix.Bits()
				}
			}
			if got, ok := p.find(block.Addr(), block.Bits()); got != want || ok != (best >= 0) {
				t.Fatalf("Expected %s to be in %q of %v, got %q", block, want, values, got)
			}
		}
	}
}

func TestNothingIsFoundForNoAddress(t *testing.T) {
	p := newPrefixes(map[netip.Prefix]string{netip.MustParsePrefix("::/0"): "all", netip.MustParsePrefix("0.0.0.0/0"): "all"})
	if got, ok := p.find(netip.Addr{}, 0); ok {
		t.Errorf("Expected nothing, got %q", got)
	}
	if p := (&addresses{}).find(netip.Addr{}); p != nil {
		t.Errorf("Expected nothing, got %v", p)
	}
}

// The addresses after any changes are those that a plain map would hold, and those before are as they were.
func TestAddressesChangeByCopy(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	want, now := map[netip.Addr]*place{}, &addresses{}
	for range 300 {
		before, beforeWant := now, maps.Clone(want)
		changes := map[netip.Addr]*place{}
		for range r.IntN(20) {
			addr := randomAddr(r)
			if changes[addr] = nil; r.IntN(3) > 0 {
				changes[addr] = &place{node: fmt.Sprint(r.IntN(5))}
			}
		}
		for addr, p := range changes {
			if want[addr] = p; p == nil {
				delete(want, addr)
			}
		}
		now = now.with(changes)
		expect(t, now, want)
		expect(t, before, beforeWant)
	}
}

// TestAChangeOfFewAddressesCopiesLittle counts octets, which do not depend on how many addresses there are elsewhere.
func TestAChangeOfFewAddressesCopiesLittle(t *testing.T) {
	const times, most = 100, 4 << 10
	all := &addresses{}
	for i := range 1 << 12 {
		all = all.with(map[netip.Addr]*place{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}): {node: "n"}})
	}
	change := map[netip.Addr]*place{netip.AddrFrom4([4]byte{10, 0, 1, 1}): {node: "m"}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		all = all.with(change)
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / times; got > most {
		t.Errorf("A change of one address of %d takes %d octets, want %d at most", all.len(), got, most)
	}
}

func expect(t *testing.T, got *addresses, want map[netip.Addr]*place) {
	t.Helper()
	if got.len() != len(want) {
		t.Fatalf("Expected %d addresses, got %d", len(want), got.len())
	}
	for addr, p := range want {
		if got.find(addr) != p {
			t.Fatalf("Expected %s to be at %v, got %v", addr, p, got.find(addr))
		}
	}
}
