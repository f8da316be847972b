package mcs

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// entryOf is a value of a table that tests make.
type entryOf[K comparable] struct {
	key K
	n   int
}

func (e entryOf[K]) tableKey() K { return e.key }

// contents reads a table through all, and checks that get and size agree with it.
func contents(t *testing.T, tab table[string, entryOf[string]]) map[string]int {
	t.Helper()
	out := map[string]int{}
	tab.all(func(e entryOf[string]) bool {
		k, v := e.key, e.n
		if _, twice := out[k]; twice {
			t.Errorf("Key %q comes twice", k)
		}
		out[k] = v
		if got, ok := tab.get(k); !ok || got != e {
			t.Errorf("Key %q has value %d, but get says %+v, %v", k, v, got, ok)
		}
		return true
	})
	if tab.size != len(out) {
		t.Errorf("Size is %d with %d keys", tab.size, len(out))
	}
	return out
}

func TestTableAgainstMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	type version struct {
		tab  table[string, entryOf[string]]
		want map[string]int
	}
	var tab table[string, entryOf[string]]
	want := map[string]int{}
	var kept []version
	for step := range 20_000 {
		// The domain shrinks and grows, so that the table does too.
		key := strconv.Itoa(random.IntN(1 + step%2_000))
		if random.IntN(5) < 3 {
			tab, want[key] = tab.with(putInTable(entryOf[string]{key, step})), step
		} else {
			tab = tab.with(takeFromTable[entryOf[string]](key))
			delete(want, key)
		}
		got, ok := tab.get(key)
		if v, there := want[key]; ok != there || got.n != v {
			t.Fatalf("Step %d: key %s is %d, %v, want %d, %v", step, key, got.n, ok, v, there)
		}
		if step%1_000 == 0 {
			kept = append(kept, version{tab, maps.Clone(want)})
		}
	}
	kept = append(kept, version{tab, want})
	for i, v := range kept {
		if got := contents(t, v.tab); !maps.Equal(got, v.want) {
			t.Errorf("Version %d of %d has changed: %d keys, want %d", i, len(kept), len(got), len(v.want))
		}
	}
}

func TestTableOfNothing(t *testing.T) {
	var tab table[string, entryOf[string]]
	if _, ok := tab.get("a"); ok || tab.size != 0 {
		t.Error("An empty table holds something")
	}
	if same := tab.with(takeFromTable[entryOf[string]]("a")); same.root.entries != nil || same.size != 0 {
		t.Error("Taking away from an empty table made something")
	}
	one := tab.with(putInTable(entryOf[string]{"a", 1}))
	if gone := one.with(takeFromTable[entryOf[string]]("a")); gone.root.entries != nil || gone.size != 0 {
		t.Error("A table without its only key still has nodes")
	}
	if same := one.with(takeFromTable[entryOf[string]]("b")); &same.root.entries[0] != &one.root.entries[0] {
		t.Error("Taking away what is not there made a new table")
	}
	if again := one.with(putInTable(entryOf[string]{"a", 2})); again.size != 1 {
		t.Errorf("A key that was there counts twice: size %d", again.size)
	}
}

func TestTableStopsWhenAsked(t *testing.T) {
	var tab table[string, entryOf[string]]
	for i := range 1_000 {
		tab = tab.with(putInTable(entryOf[string]{strconv.Itoa(i), i}))
	}
	for _, most := range []int{1, 2, 999} {
		seen := 0
		tab.all(func(entryOf[string]) bool {
			seen++
			return seen < most
		})
		if seen != most {
			t.Errorf("Asked to stop after %d, got %d", most, seen)
		}
	}
}

// TestTableCollisions chooses the hashes itself: of 64 keys all have the same, or share all bits but some.
func TestTableCollisions(t *testing.T) {
	for _, tc := range []struct {
		name string
		hash func(key int) uint64
	}{
		{"all hashes are equal", func(int) uint64 { return 0xdeadbeef }},
		{"all hashes are zero", func(int) uint64 { return 0 }},
		{"the hashes differ in the last bits only", func(key int) uint64 { return uint64(key) << 58 }},
		{"the hashes differ in the last bit only, each is there 32 times", func(key int) uint64 { return uint64(key) << 63 }},
		{"the hashes differ in the first bits only", func(key int) uint64 { return uint64(key) }},
		{"the hashes differ in the middle only", func(key int) uint64 { return uint64(key) << 30 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 4))
			var before, tab table[int, entryOf[int]]
			want := map[int]int{}
			for step := range 2_000 {
				wanted := maps.Clone(want)
				changes := map[int]tableChange[int, entryOf[int]]{}
				for range random.IntN(4) * random.IntN(40) {
					key := random.IntN(64)
					changes[key] = tableChange[int, entryOf[int]]{hash: tc.hash(key), key: key, value: entryOf[int]{key, step}}
					if want[key] = step; random.IntN(2) == 0 {
						changes[key] = tableChange[int, entryOf[int]]{hash: tc.hash(key), key: key, gone: true}
						delete(want, key)
					}
				}
				before, tab = tab, tab.with(slices.Collect(maps.Values(changes))...)
				for which, v := range []struct {
					tab  table[int, entryOf[int]]
					want map[int]int
				}{{before, wanted}, {tab, want}} {
					for key := range 64 {
						got, ok := v.tab.root.get(tc.hash(key), key)
						if w, there := v.want[key]; ok != there || got.n != w {
							t.Fatalf("Step %d, table %d: key %d is %d, %v, want %d, %v", step, which, key, got.n, ok, w, there)
						}
					}
					if v.tab.size != len(v.want) {
						t.Fatalf("Step %d, table %d: the size is %d, want %d", step, which, v.tab.size, len(v.want))
					}
				}
			}
		})
	}
}

func TestManyChangesCopyEachNodeOnce(t *testing.T) {
	const values = 10_000
	changes := make([]tableChange[string, entryOf[string]], values)
	for i := range changes {
		changes[i] = putInTable(entryOf[string]{strconv.Itoa(i), i})
	}
	// One allocation per node, of which there are about 1 + 32 + 1,024 and one for each pair of values that they do not part.
	var tab table[string, entryOf[string]]
	if got := testing.AllocsPerRun(1, func() { tab = (table[string, entryOf[string]]{}).with(changes...) }); got > values/3 {
		t.Errorf("%d values take %.0f allocations", values, got)
	}
	if tab.size != values {
		t.Errorf("The table has %d values, want %d", tab.size, values)
	}
}
