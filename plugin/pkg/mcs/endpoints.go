package mcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"unique"
)

// Endpoints are those of a Slice, in little room: a cluster can have a hundred thousand. Most of that room holds no pointers, so
// that the garbage collector does not look at it. Equal ones are equal by reflect.DeepEqual too. The zero value has none.
type Endpoints struct {
	packed []packedEndpoint
	// places are those where endpoints are, each once.
	places []unique.Handle[place]
	// hosts are the labels that are not made of the address, nil where there is none.
	hosts *[]string
}

// packedEndpoint is an Endpoint of 32 octets.
type packedEndpoint struct {
	id   uint64
	addr [16]byte
	// host and place number what there is, from 1; 0 is none.
	host       uint32
	place      uint16
	conditions Conditions
	family     family
}

// place is a node and its zone, "" where they are not known.
type place struct{ node, zone string }

// family is the kind of an address.
type family uint8

const (
	noFamily family = iota
	family4
	family6
)

// Pack makes Endpoints.
func Pack(all ...Endpoint) Endpoints {
	var out Endpoints
	out.Grow(len(all))
	for i := range all {
		out.Add(&all[i])
	}
	out.Clip()
	return out
}

// Grow makes room for n more.
func (e *Endpoints) Grow(n int) { e.packed = slices.Grow(e.packed, n) }

// Clip gives back room that is not used.
func (e *Endpoints) Clip() {
	e.packed, e.places = clipped(e.packed), clipped(e.places)
	if e.hosts != nil {
		*e.hosts = clipped(*e.hosts)
	}
}

func clipped[T any](s []T) []T {
	if len(s) == cap(s) {
		return s
	}
	return append([]T(nil), s...)
}

// Add appends one. It must not be called once others may read the Endpoints. Without a Label it gets that of its address.
func (e *Endpoints) Add(one *Endpoint) {
	p := packedEndpoint{id: one.ID, conditions: one.Conditions, place: e.placeOf(one.Node, one.Zone)}
	switch {
	case !one.Addr.IsValid():
	case one.Addr.Is4():
		four := one.Addr.As4()
		p.family = family4
		copy(p.addr[:], four[:])
	default:
		p.family, p.addr = family6, one.Addr.As16()
	}
	if one.Label != "" {
		var buf [maxAddressLabel]byte
		if p.family == noFamily || string(appendAddressLabel(buf[:0], one.Addr)) != one.Label {
			p.host = e.hostOf(one.Label)
		}
	}
	e.packed = append(e.packed, p)
}

func (e *Endpoints) hostOf(label string) uint32 {
	if e.hosts == nil {
		e.hosts = new([]string)
	}
	*e.hosts = append(*e.hosts, label)
	return uint32(len(*e.hosts)) //nolint:gosec // an API server's answer has a bounded size
}

// placeOf numbers a place. A slice has a thousand endpoints at most (discovery/v1): what is beyond 65,535 places is nowhere.
func (e *Endpoints) placeOf(node, zone string) uint16 {
	if node == "" && zone == "" {
		return 0
	}
	h := unique.Make(place{node, zone})
	at := slices.Index(e.places, h)
	if at < 0 {
		if at = len(e.places); at == math.MaxUint16 {
			return 0
		}
		e.places = append(e.places, h)
	}
	return uint16(at + 1) //nolint:gosec // by the bound above
}

// Len returns how many there are.
func (e *Endpoints) Len() int { return len(e.packed) }

// At returns one, unpacked. It is for whoever looks at all of it; the other methods make no string.
func (e *Endpoints) At(i int) Endpoint {
	at := e.placeAt(i)
	return Endpoint{Addr: e.Addr(i), Label: e.Label(i), ID: e.packed[i].id, Node: at.node, Zone: at.zone, Conditions: e.packed[i].conditions}
}

// All returns all of them, unpacked.
func (e *Endpoints) All() []Endpoint {
	out := make([]Endpoint, e.Len())
	for i := range out {
		out[i] = e.At(i)
	}
	return out
}

// Addr returns the address of one.
func (e *Endpoints) Addr(i int) netip.Addr {
	p := &e.packed[i]
	switch p.family {
	case family4:
		return netip.AddrFrom4([4]byte(p.addr[:4]))
	case family6:
		return netip.AddrFrom16(p.addr)
	default:
		return netip.Addr{}
	}
}

// Label returns the host label of one.
func (e *Endpoints) Label(i int) string {
	if host := e.packed[i].host; host != 0 {
		return (*e.hosts)[host-1]
	}
	var buf [maxAddressLabel]byte
	return string(e.appendLabel(buf[:0], i))
}

func (e *Endpoints) appendLabel(to []byte, i int) []byte {
	if host := e.packed[i].host; host != 0 {
		return append(to, (*e.hosts)[host-1]...)
	}
	if e.packed[i].family == noFamily {
		return to
	}
	return appendAddressLabel(to, e.Addr(i))
}

func (e *Endpoints) placeAt(i int) place {
	if at := e.packed[i].place; at != 0 {
		return e.places[at-1].Value()
	}
	return place{}
}

// Conditions returns those of one.
func (e *Endpoints) Conditions(i int) Conditions { return e.packed[i].conditions }

// SetConditions changes those of one. Likewise only while nobody else reads.
func (e *Endpoints) SetConditions(i int, c Conditions) { e.packed[i].conditions = c }

// Clone returns a copy whose conditions can be changed.
func (e *Endpoints) Clone() Endpoints {
	return Endpoints{slices.Clone(e.packed), e.places, e.hosts}
}

// Identity tells whether two addresses belong to one endpoint: by the target, else by the label. It means something within one
// process only. Two that differ are equal with a probability of 2^-64.
type Identity uint64

// identitySeed is fixed for the life of the process.
var identitySeed = maphash.MakeSeed()

// Identity returns who one is.
func (e *Endpoints) Identity(i int) Identity {
	if id := e.packed[i].id; id != 0 {
		return Identity(id)
	}
	var buf [maxAddressLabel]byte
	return Identity(maphash.Bytes(identitySeed, e.appendLabel(buf[:0], i)))
}

// without returns those whose addresses are not forbidden, and whether that is all.
func (e *Endpoints) without(forbidden func(netip.Addr) bool) (rest Endpoints, all bool) {
	rest, all = Endpoints{hosts: e.hosts, places: e.places}, true
	for i := range e.packed {
		if forbidden(e.Addr(i)) {
			all = false
			continue
		}
		rest.packed = append(rest.packed, e.packed[i])
	}
	return rest, all
}

// Equal reports whether two are the same, in the same order.
func (e *Endpoints) Equal(o *Endpoints) bool {
	if !slices.Equal(e.packed, o.packed) || !slices.Equal(e.places, o.places) || (e.hosts == nil) != (o.hosts == nil) {
		return false
	}
	return e.hosts == o.hosts || slices.Equal(*e.hosts, *o.hosts)
}

// MarshalJSON implements json.Marshaler: a list of Endpoint.
func (e Endpoints) MarshalJSON() ([]byte, error) { return json.Marshal(e.All()) }

// UnmarshalJSON implements json.Unmarshaler. The error tells of an address that could not be packed.
func (e *Endpoints) UnmarshalJSON(text []byte) error {
	var all []Endpoint
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		return err
	}
	for i := range all {
		if all[i].Addr.Zone() != "" {
			return errors.New("an endpoint's address with a zone")
		}
	}
	*e = Pack(all...)
	return nil
}
