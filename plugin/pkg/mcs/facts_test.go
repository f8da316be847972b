package mcs

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestAddressLabel(t *testing.T) {
	for _, tc := range []struct{ name, addr, want string }{
		{"IPv4", "10.0.0.1", "10-0-0-1"},
		{"IPv6", "fd00:1::2", "fd00-1--2"},
		{"IPv6 that would end in a hyphen", "fd00::", "fd00--0"},
		{"IPv6 that would begin with a hyphen", "::5:6", "0--5-6"},
		{"IPv6 of full length", "2001:db8:1111:2222:3333:4444:5555:6666", "2001-db8-1111-2222-3333-4444-5555-6666"},
		{"nothing but zeros", "::", "0--0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := AddressLabel(netip.MustParseAddr(tc.addr))
			if got != tc.want {
				t.Errorf("AddressLabel(%s) = %q, want %q", tc.addr, got, tc.want)
			}
			if !topology.IsLabel(got) {
				t.Errorf("AddressLabel(%s) = %q, which is no DNS label", tc.addr, got)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b map[string]string
		want bool
	}{
		{"nil and empty are equal", nil, map[string]string{}, true},
		{"the order of making does not matter", map[string]string{"a": "1", "b": "2"}, map[string]string{"b": "2", "a": "1"}, true},
		{"another value", map[string]string{"a": "1"}, map[string]string{"a": "2"}, false},
		{"another key", map[string]string{"a": "1"}, map[string]string{"b": "1"}, false},
		{"a key with an empty value is not no key", map[string]string{"a": ""}, nil, false},
		{"an equals sign in the value", map[string]string{"a": "b=c"}, map[string]string{"a=b": "c"}, false},
		{"a value that imitates a second pair", map[string]string{"a": "1\x00b=2"}, map[string]string{"a": "1", "b": "2"}, false},
		{"quotes in the value", map[string]string{"a": `1""b"`}, map[string]string{"a": "1", "b": ""}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Digest(tc.a) == Digest(tc.b); got != tc.want {
				t.Errorf("Digest of %q and %q: equal is %v, want %v", tc.a, tc.b, got, tc.want)
			}
		})
	}
}

// TestEveryFieldCounts changes each field, however deep, and expects the whole to differ. It fails for a field that is
// added to a type but forgotten in its Equal.
func TestEveryFieldCounts(t *testing.T) {
	slice := func() *Slice { return &Slice{Ports: []Port{{}}, Endpoints: Pack(Endpoint{})} }
	spec := func() *ServiceSpec {
		return &ServiceSpec{LoadBalancer: &LoadBalancer{[]netip.Addr{{}}, []string{""}}, Ports: []Port{{}}}
	}
	t.Run("Shard", func(t *testing.T) {
		everyField(t, func() *Shard { return &Shard{Service: spec(), Slices: []*Slice{slice()}} }, (*Shard).Equal)
	})
	t.Run("ServiceSpec", func(t *testing.T) {
		everyField(t, spec, (*ServiceSpec).Equal)
	})
	t.Run("Slice", func(t *testing.T) {
		everyField(t, slice, (*Slice).Equal)
	})
	t.Run("ImportShard", func(t *testing.T) {
		everyField(t, func() *ImportShard {
			return &ImportShard{Import: Import{Ports: []Port{{}}}, Slices: []*Slice{slice()}}
		}, (*ImportShard).Equal)
	})
	t.Run("Report", func(t *testing.T) {
		everyField(t, func() *Report {
			return &Report{NoService: []topology.ClusterID{""}, InvalidType: []topology.ClusterID{""}, Unusable: []Unusable{{}}}
		}, func(a, b *Report) bool { return a.equal(*b) })
	})
}

func everyField[T any](t *testing.T, fresh func() *T, equal func(a, b *T) bool) {
	t.Helper()
	places := 0
	for {
		// Each round changes another place of two fresh values, until there is none left.
		a, b := fresh(), fresh()
		if !equal(a, b) {
			t.Fatal("Two fresh values differ")
		}
		at := places
		path := change(reflect.ValueOf(b).Elem(), "", &at)
		if path == "" {
			break
		}
		if equal(a, b) || equal(b, a) {
			t.Errorf("A change of %s goes unnoticed", path)
		}
		if !equal(b, b) {
			t.Errorf("After a change of %s a value differs from itself", path)
		}
		places++
	}
	if fields := reflect.TypeFor[T]().NumField(); places < fields {
		t.Errorf("Only %d places were changed in %d fields", places, fields)
	}
}

var (
	addrType      = reflect.TypeFor[netip.Addr]()
	endpointsType = reflect.TypeFor[Endpoints]()
)

// change alters the n-th place within v where that can be done and returns its path, "" when there are fewer.
func change(v reflect.Value, path string, n *int) string {
	switch {
	case v.Type() == addrType:
	case v.Type() == endpointsType:
		endpoints := v.Interface().(Endpoints)
		all := endpoints.All()
		p := change(reflect.ValueOf(&all).Elem(), path, n)
		if p != "" {
			v.Set(reflect.ValueOf(Pack(all...)))
		}
		return p
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if p := change(v.Field(i), path+"."+v.Type().Field(i).Name, n); p != "" {
				return p
			}
		}
		return ""
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			if p := change(v.Index(i), fmt.Sprintf("%s[%d]", path, i), n); p != "" {
				return p
			}
		}
		return ""
	case v.Kind() == reflect.Pointer && !v.IsNil():
		if p := change(v.Elem(), path, n); p != "" {
			return p
		}
	case v.Kind() == reflect.Slice && v.Len() > 0:
		if p := change(reflect.Indirect(v.Index(0)), path+"[0]", n); p != "" {
			return p
		}
	}
	if *n > 0 {
		*n--
		return ""
	}
	switch {
	case v.Type() == addrType:
		v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
	case v.Kind() == reflect.Pointer:
		v.SetZero()
	case v.Kind() == reflect.Slice:
		v.SetLen(0)
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case v.CanUint():
		v.SetUint(v.Uint() + 1)
	default:
		panic("no way to change " + path)
	}
	return path
}

func TestNilShards(t *testing.T) {
	var none *Shard
	if !none.Equal(nil) || none.Equal(&Shard{}) || (&Shard{}).Equal(nil) {
		t.Error("A nil Shard must equal nil only")
	}
	var noImport *ImportShard
	if !noImport.Equal(nil) || noImport.Equal(&ImportShard{}) || (&ImportShard{}).Equal(nil) {
		t.Error("A nil ImportShard must equal nil only")
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{ServiceKey{"shop", "web"}.String(), "shop/web"},
		{TCP.String(), "tcp"}, {UDP.String(), "udp"}, {SCTP.String(), "sctp"},
		{ClusterSetIP.String(), "ClusterSetIP"}, {Headless.String(), "Headless"},
		{Exports.String(), "exports"}, {Namespaces.String(), "namespaces"}, {Imports.String(), "imports"},
		{(PortConflict | IPFamilyConflict).String(), "PortConflict,IPFamilyConflict"},
		{Conflict(0).String(), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("Got %q, want %q", tc.got, tc.want)
		}
	}
	if n := len(ConflictReasons()); n != 9 {
		t.Errorf("%d conflict reasons, the ServiceExport API has 9", n)
	}
}
