package mcs

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/maphash"
	"net/netip"
	"slices"
	"unique"
)

// Endpoints are those of a Slice, in little room: a cluster can have a hundred thousand. Most of that room holds no pointers, so
// that the garbage collector does not look at it. Those that Pack makes of equal ones are equal by reflect.DeepEqual too. The
// zero value has none.
type Endpoints struct {
	// packed is nil where there is none. Its first octet is how many octets one takes: wide or, where all are IPv4, narrow. One is
	//	0  its ID
	//	8  the number of its place, from 1; 0 is none
	//	10 its conditions
	//	11 the family of its address
	//	12 the number of its host label, from 1; 0 is none
	//	16 its address
	packed []byte
	// places are those where endpoints are, each once.
	places []unique.Handle[place]
	// hosts are the labels that are not made of the address, nil where there is none.
	hosts *[]string
}

const (
	narrow = 16 + 4
	wide   = 16 + 16
)

// place is a node and its zone, "" where they are not known.
type place struct{ node, zone string }

// family is the kind of an address.
type family byte

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
func (e *Endpoints) Grow(n int) {
	if e.packed == nil {
		e.packed = append(make([]byte, 0, 1+n*narrow), narrow)
		return
	}
	e.packed = slices.Grow(e.packed, n*e.width())
}

// Clip gives back room that is not used.
func (e *Endpoints) Clip() {
	e.packed, e.places = clipped(e.packed), clipped(e.places)
	if e.Len() == 0 {
		e.packed = nil
	}
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
	kind := familyOf(one.Addr)
	if e.packed == nil {
		e.packed = []byte{narrow}
	}
	if kind == family6 {
		e.widen()
	}
	var p [wide]byte
	binary.LittleEndian.PutUint64(p[0:], one.ID)
	binary.LittleEndian.PutUint16(p[8:], e.placeOf(one.Node, one.Zone))
	p[10], p[11] = byte(one.Conditions), byte(kind)
	switch kind {
	case family4:
		four := one.Addr.As4()
		copy(p[16:], four[:])
	case family6:
		six := one.Addr.As16()
		copy(p[16:], six[:])
	}
	if one.Label != "" {
		var buf [maxAddressLabel]byte
		if kind == noFamily || string(appendAddressLabel(buf[:0], one.Addr)) != one.Label {
			binary.LittleEndian.PutUint32(p[12:], e.hostOf(one.Label))
		}
	}
	e.packed = append(e.packed, p[:e.width()]...)
}

func familyOf(a netip.Addr) family {
	switch {
	case !a.IsValid():
		return noFamily
	case a.Is4():
		return family4
	default:
		return family6
	}
}

// widen makes room for addresses of IPv6.
func (e *Endpoints) widen() {
	if e.width() == wide {
		return
	}
	n := e.Len()
	out := append(make([]byte, 0, 1+cap(e.packed)/narrow*wide), wide)
	for i := range n {
		out = append(append(out, e.at(i)...), make([]byte, wide-narrow)...)
	}
	e.packed = out
}

func (e *Endpoints) width() int { return int(e.packed[0]) }

func (e *Endpoints) at(i int) []byte {
	begin := 1 + i*e.width()
	return e.packed[begin : begin+e.width()]
}

func (e *Endpoints) hostOf(label string) uint32 {
	if e.hosts == nil {
		e.hosts = new([]string)
	}
	*e.hosts = append(*e.hosts, label)
	return uint32(len(*e.hosts)) //nolint:gosec // an API server's answer has a bounded size
}

// maxPlaces is more than the endpoints of any slice (1,000, discovery/v1), and bounds the work that a hostile one makes.
const maxPlaces = 1024

// placeOf numbers a place. What is beyond the bound is nowhere.
func (e *Endpoints) placeOf(node, zone string) uint16 {
	if node == "" && zone == "" {
		return 0
	}
	h := unique.Make(place{node, zone})
	at := slices.Index(e.places, h)
	if at < 0 {
		if at = len(e.places); at == maxPlaces {
			return 0
		}
		e.places = append(e.places, h)
	}
	return uint16(at + 1) //nolint:gosec // by the bound above
}

// Len returns how many there are.
func (e *Endpoints) Len() int {
	if e.packed == nil {
		return 0
	}
	return (len(e.packed) - 1) / e.width()
}

// At returns one, unpacked. It is for whoever looks at all of it; the other methods make no string.
func (e *Endpoints) At(i int) Endpoint {
	in := e.placeAt(i)
	return Endpoint{Addr: e.Addr(i), Label: e.Label(i), ID: e.id(i), Node: in.node, Zone: in.zone, Conditions: e.Conditions(i)}
}

func (e *Endpoints) id(i int) uint64 { return binary.LittleEndian.Uint64(e.at(i)) }

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
	p := e.at(i)
	switch family(p[11]) {
	case family4:
		return netip.AddrFrom4([4]byte(p[16:]))
	case family6:
		return netip.AddrFrom16([16]byte(p[16:]))
	default:
		return netip.Addr{}
	}
}

// Label returns the host label of one.
func (e *Endpoints) Label(i int) string {
	if host := e.host(i); host != "" {
		return host
	}
	var buf [maxAddressLabel]byte
	return string(e.appendLabel(buf[:0], i))
}

// host returns the label of one that is not made of its address, "" for others.
func (e *Endpoints) host(i int) string {
	if at := binary.LittleEndian.Uint32(e.at(i)[12:]); at != 0 {
		return (*e.hosts)[at-1]
	}
	return ""
}

func (e *Endpoints) appendLabel(to []byte, i int) []byte {
	if host := e.host(i); host != "" {
		return append(to, host...)
	}
	if addr := e.Addr(i); addr.IsValid() {
		return appendAddressLabel(to, addr)
	}
	return to
}

func (e *Endpoints) placeAt(i int) place {
	if at := binary.LittleEndian.Uint16(e.at(i)[8:]); at != 0 {
		return e.places[at-1].Value()
	}
	return place{}
}

// Conditions returns those of one.
func (e *Endpoints) Conditions(i int) Conditions { return Conditions(e.at(i)[10]) }

// SetConditions changes those of one. Likewise only while nobody else reads.
func (e *Endpoints) SetConditions(i int, c Conditions) { e.at(i)[10] = byte(c) }

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
	if id := e.id(i); id != 0 {
		return Identity(id)
	}
	var buf [maxAddressLabel]byte
	return Identity(maphash.Bytes(identitySeed, e.appendLabel(buf[:0], i)))
}

// without returns those whose addresses are not forbidden, and whether that is all.
func (e *Endpoints) without(forbidden func(netip.Addr) bool) (rest Endpoints, all bool) {
	rest, all = Endpoints{hosts: e.hosts, places: e.places}, true
	for i := range e.Len() {
		if forbidden(e.Addr(i)) {
			all = false
			continue
		}
		if rest.packed == nil {
			rest.packed = []byte{e.packed[0]}
		}
		rest.packed = append(rest.packed, e.at(i)...)
	}
	return rest, all
}

// Equal reports whether two are the same, in the same order.
func (e *Endpoints) Equal(o *Endpoints) bool {
	if !bytes.Equal(e.packed, o.packed) || !slices.Equal(e.places, o.places) || (e.hosts == nil) != (o.hosts == nil) {
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
