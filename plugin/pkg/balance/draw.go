package balance

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// The draw is a hash, not a dice roll: equal inputs give equal answers on every replica. The constants here, and the
// order in which things are hashed, must not change in a minor release: clients would move.
const salt = "clusterset-dns/1"

// minEpoch is the shortest epoch: shorter ones would give A and AAAA of one lookup different members too often.
const minEpoch = 5 * time.Second

// Draw is the source of all choices for one query: of a client, a service and an epoch.
type Draw uint64

// NewDraw hashes a client's address (its key), a service and the epoch at the time now. An epoch lasts as long as an
// answer may be kept, at least 5 s, and begins at another moment for every client and service, so that the clients do
// not all move at once. A sticky service (sessionAffinity ClientIP) has one epoch for ever.
func NewDraw(client netip.Addr, service mcs.ServiceKey, now time.Time, ttl time.Duration, sticky bool) Draw {
	base := baseOf(client, service)
	if sticky {
		return Draw(base)
	}
	return Draw(mix(base ^ mix(epochAt(base, now, ttl)+1)))
}

// baseOf hashes what stays: who asks for what.
func baseOf(client netip.Addr, service mcs.ServiceKey) uint64 {
	var buf [16 + 8]byte
	address := client.Unmap().As16()
	copy(buf[:], address[:])
	binary.LittleEndian.PutUint64(buf[16:], serviceHash(service))
	return xxhash.Sum64(buf[:])
}

// epochAt numbers the epochs of a client and service.
func epochAt(base uint64, now time.Time, ttl time.Duration) uint64 {
	length := uint64(max(ttl, minEpoch) / time.Millisecond)      //nolint:gosec // positive by max
	return (uint64(now.UnixMilli()) + mix(base)%length) / length //nolint:gosec // the clock is after 1970
}

func serviceHash(s mcs.ServiceKey) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(salt)
	_, _ = d.WriteString(s.Namespace)
	_, _ = d.WriteString("/")
	_, _ = d.WriteString(s.Name)
	return d.Sum64()
}

// tier returns a number in [0, scale) that picks the tier.
func (d Draw) tier() int {
	return int(unit(mix(uint64(d)^0x7469_6572)) * scale)
}

// rank returns the draw's number for something with that identity: the lower, the earlier.
func (d Draw) rank(identity uint64) uint64 { return mix(uint64(d) ^ identity) }

// score orders weighted things: the lowest is picked, each with probability weight/sum (Efraimidis and Spirakis with one
// draw, that is weighted rendezvous hashing). Changing one weight moves only the clients that must move. weight must be
// positive.
func (d Draw) score(identity uint64, weight float64) float64 {
	return -math.Log(unit(d.rank(identity))) / weight
}

// unit maps a hash to the open interval (0, 1), 53 bits of it.
func unit(h uint64) float64 { return (float64(h>>11) + 0.5) / (1 << 53) }

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014): every input bit changes half of the output bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func identityHash(s string) uint64 { return xxhash.Sum64String(s) }
