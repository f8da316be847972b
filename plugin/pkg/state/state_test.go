package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

var west = mcs.Source{Kind: mcs.Exports, Cluster: "west.eu"}

// filled returns a value of a type in which no field is zero, so that a field that does not come back is noticed, also one
// that is added some day.
func filled(t *testing.T, typ reflect.Type, random *rand.Rand) reflect.Value {
	t.Helper()
	v := reflect.New(typ).Elem()
	switch {
	case typ == reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 8, byte(random.IntN(256)), byte(1 + random.IntN(250))})))
	case typ == reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(256)), 0, 0}), 16)))
	case typ == reflect.TypeFor[mcs.Conditions]():
		v.SetUint(uint64(1 + random.IntN(7)))
	case typ == reflect.TypeFor[mcs.ServiceType](), typ == reflect.TypeFor[mcs.Protocol]():
		v.SetUint(1)
	case typ == reflect.TypeFor[mcs.Endpoints]():
		v.Set(reflect.ValueOf(mcs.Pack(filled(t, reflect.TypeFor[[]mcs.Endpoint](), random).Interface().([]mcs.Endpoint)...)))
	case typ.Kind() == reflect.Pointer:
		v.Set(filled(t, typ.Elem(), random).Addr())
	case typ.Kind() == reflect.Struct:
		for i := range typ.NumField() {
			if !typ.Field(i).IsExported() {
				t.Fatalf("%s.%s cannot be written", typ, typ.Field(i).Name)
			}
			v.Field(i).Set(filled(t, typ.Field(i).Type, random))
		}
	case typ.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(typ, 0, 2))
		for range 1 + random.IntN(2) {
			v.Set(reflect.Append(v, filled(t, typ.Elem(), random)))
		}
	case typ.Kind() == reflect.Array:
		for i := range typ.Len() {
			v.Index(i).Set(filled(t, typ.Elem(), random))
		}
	case typ.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(typ))
		for range 1 + random.IntN(4) {
			v.SetMapIndex(filled(t, typ.Key(), random), filled(t, typ.Elem(), random))
		}
	case typ.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("s%d", random.IntN(1000)))
	case typ.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(1 + random.Int64N(1000))
	case v.CanUint():
		v.SetUint(uint64(1 + random.IntN(100)))
	default:
		t.Fatalf("A %s cannot be written", typ)
	}
	return v
}

func factsOf(t *testing.T, seed uint64) mcs.Facts {
	t.Helper()
	f := filled(t, reflect.TypeFor[mcs.Facts](), rand.New(rand.NewPCG(seed, 1))).Interface().(mcs.Facts)
	sorted := func(all []*mcs.Slice) {
		for i, s := range all {
			s.Name = fmt.Sprint("slice-", i)
		}
	}
	for _, s := range f.Shards {
		sorted(s.Slices)
	}
	for _, s := range f.Imports {
		sorted(s.Slices)
	}
	return f
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for seed := range uint64(50) {
		dir := t.TempDir()
		want := Record{Source: west, Written: time.Unix(1700000000, 0), Proof: time.Unix(1700000001, 0), Facts: factsOf(t, seed)}
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir, west)
		if err != nil {
			t.Fatal(err)
		}
		sortFacts(&got.Facts)
		sortFacts(&want.Facts)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("Seed %d: got\n%+v\nwant\n%+v", seed, got, want)
		}
	}
}

func TestFreshEndpointsCountAfterARestart(t *testing.T) {
	dir := t.TempDir()
	shard := &mcs.Shard{Slices: []*mcs.Slice{{Name: "s", Endpoints: mcs.Pack(mcs.Endpoint{Addr: netip.MustParseAddr("10.8.0.1"), Label: "a", Conditions: mcs.Serving | mcs.Fresh})}}}
	key := mcs.ServiceKey{Namespace: "shop", Name: "web"}
	if err := Write(dir, Record{Source: west, Facts: mcs.Facts{Shards: map[mcs.ServiceKey]*mcs.Shard{key: shard}}}); err != nil {
		t.Fatal(err)
	}
	r, err := Read(dir, west)
	if err != nil || r.Facts.Shards[key].Slices[0].Endpoints.Conditions(0) != mcs.Serving || !r.Proof.IsZero() {
		t.Errorf("Got %+v, %v", r, err)
	}
	if shard.Slices[0].Endpoints.Conditions(0)&mcs.Fresh == 0 {
		t.Error("What was written has changed")
	}
}

func TestAFileIsForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, Record{Source: west}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(Path(dir, west))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) != 0 {
		t.Errorf("Left behind: %v", left)
	}
}

// signed adds the checksum to the lines of a file.
func signed(lines ...string) []byte {
	body := []byte(strings.Join(lines, "\n") + "\n")
	return fmt.Appendf(body, "%x\n", sha256.Sum256(body))
}

const head = `{"Magic":"clusterset-dns-state","Format":2,"Kind":"exports","Cluster":"west.eu"}`

func TestFilesThatAreNotUsed(t *testing.T) {
	whole := signed(head, `{"Namespace":"shop","Name":"web","Shard":{}}`)
	endpoint := func(text string) []byte {
		return signed(head, `{"Namespace":"shop","Name":"web","Shard":{"Slices":[{"Name":"s","Endpoints":[`+text+`]}]}}`)
	}
	for _, row := range []struct {
		name string
		text []byte
		want error
	}{
		{"an empty one", nil, ErrDamaged},
		{"one that is cut off", whole[:len(whole)-10], ErrDamaged},
		{"one with one bit changed", bytes.Replace(whole, []byte("web"), []byte("wec"), 1), ErrDamaged},
		{"one with something after the checksum", append(bytes.Clone(whole), 'x'), ErrDamaged},
		{"one that is none of ours", signed(`{}`), ErrDamaged},
		{"one of a newer format", signed(`{"Magic":"clusterset-dns-state","Format":3,"New":"field"}`), ErrFormat},
		{"one of another cluster", signed(strings.Replace(head, "west.eu", "east", 1)), ErrForeign},
		{"one of another kind", signed(strings.Replace(head, "exports", "imports", 1)), ErrForeign},
		{"one with a field that nobody knows", signed(head, `{"Namespace":"shop","Name":"web","Shard":{"Secret":1}}`), ErrDamaged},
		{"one with a name that is none", signed(head, `{"Namespace":"sh.op","Name":"web","Shard":{}}`), ErrDamaged},
		{"one with a namespace that is none", signed(head, `{"Namespace":""}`), ErrDamaged},
		{"one with an entry that says two things", signed(head, `{"Namespace":"shop","Name":"web","Shard":{},"Drained":true}`), ErrDamaged},
		{"one with an entry that says nothing", signed(head, `{"Namespace":"shop","Name":"web"}`), ErrDamaged},
		{"one with a loopback endpoint", endpoint(`{"Addr":"127.0.0.1","Label":"a"}`), ErrDamaged},
		{"one with IPv4 in IPv6's clothes", endpoint(`{"Addr":"::ffff:10.0.0.1","Label":"a"}`), ErrDamaged},
		{"one with an endpoint without an address", endpoint(`{"Label":"a"}`), ErrDamaged},
		{"one with a label that is none", endpoint(`{"Addr":"10.0.0.1","Label":"a.b"}`), ErrDamaged},
		{"one with a slice that is null", signed(head, `{"Namespace":"shop","Name":"web","Shard":{"Slices":[null]}}`), ErrDamaged},
		{"one with slices out of order", signed(head, `{"Namespace":"shop","Name":"web","Shard":{"Slices":[{"Name":"b"},{"Name":"a"}]}}`), ErrDamaged},
		{"one with port 0", signed(head, `{"Namespace":"shop","Name":"web","Shard":{"Service":{"Ports":[{"Name":"http"}]}}}`), ErrDamaged},
		{"one with a weight above all", signed(head, `{"Namespace":"shop","Name":"web","Shard":{"Export":{"WeightPercent":101}}}`), ErrDamaged},
		{"one with a local service at a multicast address", signed(head, `{"Address":"224.0.0.1"}`), ErrDamaged},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			path := Path(dir, west)
			if err := os.WriteFile(path, row.text, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(dir, west)
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "replaced") {
				t.Errorf("Got %v, want %v with the path and the remedy", err, row.want)
			}
			if err := Write(dir, Record{Source: west}); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(dir, west); err != nil {
				t.Errorf("It was not replaced: %v", err)
			}
		})
	}
	if _, err := Read(t.TempDir(), west); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Without a file: %v", err)
	}
}

func TestALinkIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, signed(head), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, Path(dir, west)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, west); !errors.Is(err, ErrDamaged) {
		t.Errorf("Got %v", err)
	}
	if err := Write(dir, Record{Source: west}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(other); err != nil || !bytes.Equal(text, signed(head)) {
		t.Errorf("It was written through the link: %q, %v", text, err)
	}
}

func TestWhatACrashHasLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	old, fresh := Path(dir, west)+".1.tmp", Path(dir, west)+".2.tmp"
	for _, name := range []string{old, fresh} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, west); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) != 1 || left[0] != fresh {
		t.Errorf("Left are %v", left)
	}
}

func TestFilesOfSources(t *testing.T) {
	for source, want := range map[mcs.Source]string{
		west: "exports-west.eu.state", {Kind: mcs.Imports}: "imports.state", {Kind: mcs.Namespaces, Cluster: "east"}: "namespaces-east.state",
	} {
		if got := filepath.Base(Path("/x", source)); got != want {
			t.Errorf("Got %s, want %s", got, want)
		}
	}
}

// FuzzRead reads anything with a right checksum, which nobody else would get as far.
func FuzzRead(f *testing.F) {
	f.Add([]byte(head + "\n" + `{"Namespace":"shop","Name":"web","Shard":{"Export":{"Created":1},"Service":{"ClusterIPs":["10.0.0.1",""]},"Slices":[{"Name":"s","Endpoints":[{"Addr":"10.0.0.2","Label":"a"}]}]}}` + "\n"))
	f.Add([]byte(head + "\n" + `{"Namespace":"shop"}` + "\n" + `{"Range":"10.0.0.0/8"}` + "\n" + `{"Drained":true}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(Path(dir, west), fmt.Appendf(body, "%x\n", sha256.Sum256(body)), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := Read(dir, west)
		if err != nil {
			return
		}
		if err := Write(dir, first); err != nil {
			t.Fatal(err)
		}
		again, err := Read(dir, west)
		if err != nil {
			t.Fatalf("What was read cannot be written and read: %v", err)
		}
		sortFacts(&first.Facts)
		sortFacts(&again.Facts)
		if !reflect.DeepEqual(first.Facts, again.Facts) {
			t.Errorf("Got %+v, want %+v", again.Facts, first.Facts)
		}
	})
}

func large() Record {
	r := Record{Source: west, Written: time.Unix(1700000000, 0), Facts: mcs.Facts{Shards: map[mcs.ServiceKey]*mcs.Shard{}}}
	for i := range 10_000 {
		s := &mcs.Shard{Service: &mcs.ServiceSpec{Ports: []mcs.Port{{Name: "http", Number: 80}}}, Slices: []*mcs.Slice{{Name: fmt.Sprintf("svc%d-abcde", i), Ports: []mcs.Port{{Name: "http", Number: 80}}}}}
		s.Service.ClusterIPs[0] = netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		for n := range 5 {
			a := netip.AddrFrom4([4]byte{10, byte(10 + n), byte(i >> 8), byte(i)})
			s.Slices[0].Endpoints.Add(&mcs.Endpoint{Addr: a, ID: 0x0a1b2c3d00004000, Node: fmt.Sprint("node-", i%100), Zone: "eu-west-1a", Conditions: mcs.Ready | mcs.Serving})
		}
		r.Facts.Shards[mcs.ServiceKey{Namespace: fmt.Sprint("ns", i%100), Name: fmt.Sprint("svc", i)}] = s
	}
	return r
}

func BenchmarkWrite(b *testing.B) {
	dir, r := b.TempDir(), large()
	for b.Loop() {
		if err := Write(dir, r); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(Path(dir, west))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size()), "file-bytes")
}

func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	if err := Write(dir, large()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(dir, west); err != nil {
			b.Fatal(err)
		}
	}
}
