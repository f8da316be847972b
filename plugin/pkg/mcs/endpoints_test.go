package mcs

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// TestEndpointsAreWhatWasPacked packs endpoints, one after the other and at once, and looks at them in every way.
func TestEndpointsAreWhatWasPacked(t *testing.T) {
	four := Endpoint{Addr: addr("10.8.0.1"), Label: "10-8-0-1", ID: 1<<63 + 7, Node: "n1", Zone: "z1", Conditions: Ready | Serving}
	six := Endpoint{Addr: addr("fd00::1"), Label: "fd00--1", ID: 9, Node: "n2", Conditions: Terminating}
	host := Endpoint{Addr: addr("10.8.0.2"), Label: "db-0", Zone: "z1"}
	mapped := Endpoint{Addr: addr("::ffff:10.8.0.1"), Label: "x"}
	for _, tc := range []struct {
		name string
		all  []Endpoint
	}{
		{"none", nil},
		{"IPv4", []Endpoint{four}},
		{"IPv6", []Endpoint{six}},
		{"host names", []Endpoint{host, host}},
		{"IPv6 after IPv4, so that all get wider", []Endpoint{four, host, six, four}},
		{"IPv4 after IPv6", []Endpoint{six, host}},
		{"no address, no label", []Endpoint{{ID: 3}, {Label: "a"}}},
		{"an IPv4 address in an IPv6 address stays one", []Endpoint{mapped}},
		{"a label that is another's address", []Endpoint{four, {Addr: addr("10.8.0.2"), Label: "10-8-0-1"}}},
		{"more places than a slice can have", manyPlaces(3000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Pack(tc.all...)
			var grown Endpoints
			for i := range tc.all {
				grown.Add(&tc.all[i])
			}
			if !got.Equal(&grown) || got.Len() != len(tc.all) {
				t.Fatalf("Packed at once %d, one after the other %d, want %d", got.Len(), grown.Len(), len(tc.all))
			}
			for i, want := range tc.all {
				if i >= maxPlaces && len(tc.all) > maxPlaces {
					want.Node, want.Zone = "", ""
				}
				if e := got.At(i); e != want || got.Addr(i) != want.Addr || got.Label(i) != want.Label || got.Conditions(i) != want.Conditions {
					t.Fatalf("Endpoint %d is %+v, want %+v", i, e, want)
				}
			}
			text, err := json.Marshal(got)
			var read Endpoints
			if err == nil {
				err = json.Unmarshal(text, &read)
			}
			if err != nil || !reflect.DeepEqual(read, got) {
				t.Errorf("Written and read again: %v", err)
			}
			changed := got.Clone()
			if got.Len() > 0 {
				if changed.SetConditions(0, Fresh); got.Conditions(0) == Fresh || got.Equal(&changed) {
					t.Error("A change of the clone is seen in the original")
				}
			}
		})
	}
}

func manyPlaces(n int) (all []Endpoint) {
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		all = append(all, Endpoint{Addr: a, Label: AddressLabel(a), Node: fmt.Sprint("n", i)})
	}
	return all
}

func TestEndpointsWithoutThoseThatAreForbidden(t *testing.T) {
	all := Pack(ready("10.8.0.1"), named(ready("10.9.0.1"), "db-0", "u"), ready("fd00::1"), unready("10.8.0.2"))
	rest, whole := all.without(func(a netip.Addr) bool { return a.Is4() && a.As4()[1] == 8 })
	if want := []Endpoint{named(ready("10.9.0.1"), "db-0", "u"), ready("fd00::1")}; whole || !slices.Equal(rest.All(), want) {
		t.Errorf("Left are %+v, want %+v", rest.All(), want)
	}
	if rest, whole := all.without(func(netip.Addr) bool { return false }); !whole || !rest.Equal(&all) {
		t.Error("Nothing is forbidden, and something is missing")
	}
	if rest, whole := all.without(func(netip.Addr) bool { return true }); whole || rest.Len() != 0 {
		t.Error("Everything is forbidden, and something is left")
	}
}

func TestEndpointsOfOneTargetAreOne(t *testing.T) {
	all := Pack(named(ready("10.8.0.1"), "a", "u1"), named(ready("fd00::1"), "b", "u1"), ready("10.8.0.2"), named(ready("10.8.0.3"), "10-8-0-2", ""), named(ready("10.8.0.4"), "a", ""))
	for i, row := range []struct {
		a, b int
		want bool
	}{{0, 1, true}, {2, 3, true}, {0, 4, false}, {2, 4, false}} {
		if got := all.Identity(row.a) == all.Identity(row.b); got != row.want {
			t.Errorf("Row %d: %d and %d are one: %v", i, row.a, row.b, got)
		}
	}
}

// TestHostileEndpointsAreNoJSON reads what could not have been written.
func TestHostileEndpointsAreNoJSON(t *testing.T) {
	for _, text := range []string{`{}`, `[{"Addr":"fe80::1%eth0"}]`, `[{"Addr":"x"}]`, `[{"Other":1}]`, `[`} {
		var e Endpoints
		if err := json.Unmarshal([]byte(text), &e); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}
