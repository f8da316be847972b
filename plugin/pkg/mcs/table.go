package mcs

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
)

// table is an immutable map: with returns a new table that shares all but the changed paths with the old one, so that an
// update costs O(log n) however many readers hold older versions. It is a hash array mapped trie with 32-way branching.
// The zero value is empty.
type table[K comparable, V keyed[K]] struct {
	root tableNode[K, V]
	size int
}

// keyed is a value that knows its key, so that the table need not keep it: there are as many as services.
type keyed[K comparable] interface{ tableKey() K }

// tableNode has, for each set bit of used, one entry: those whose hashes share the path so far.
type tableNode[K comparable, V keyed[K]] struct {
	used    uint32
	entries []tableEntry[K, V]
}

// tableEntry is a value, or a child where below has entries in use. Both stand in the entry itself, since on the way to a value
// each step is likely to wait for memory.
type tableEntry[K comparable, V keyed[K]] struct {
	hash  uint64
	value V
	// below are, beside a value, others whose hashes are equal in all bits; none of them in use.
	below tableNode[K, V]
}

const (
	tableBits = 5
	tableMask = 1<<tableBits - 1
)

// tableSeed is fixed for the life of the process; tables are never compared across processes.
var tableSeed = maphash.MakeSeed()

func (e *tableEntry[K, V]) isChild() bool { return e.below.used != 0 }

func (t *table[K, V]) get(key K) (V, bool) {
	return t.root.get(maphash.Comparable(tableSeed, key), key)
}

func (n *tableNode[K, V]) get(hash uint64, key K) (none V, _ bool) {
	for rest := hash; ; rest >>= tableBits {
		bit := uint32(1) << (rest & tableMask)
		if n.used&bit == 0 {
			return none, false
		}
		e := &n.entries[bits.OnesCount32(n.used&(bit-1))]
		if e.isChild() {
			n = &e.below
			continue
		}
		if e.hash == hash {
			return e.get(key)
		}
		return none, false
	}
}

// get returns the value of the key among those of one hash.
func (e *tableEntry[K, V]) get(key K) (none V, _ bool) {
	if e.value.tableKey() == key {
		return e.value, true
	}
	for i := range e.below.entries {
		if o := &e.below.entries[i]; o.value.tableKey() == key {
			return o.value, true
		}
	}
	return none, false
}

// tableChange puts a value in the place of what has its key, or takes that out.
type tableChange[K comparable, V keyed[K]] struct {
	hash  uint64
	key   K
	value V
	gone  bool
}

func putInTable[K comparable, V keyed[K]](value V) tableChange[K, V] {
	key := value.tableKey()
	return tableChange[K, V]{hash: maphash.Comparable(tableSeed, key), key: key, value: value}
}

func takeFromTable[V keyed[K], K comparable](key K) tableChange[K, V] {
	return tableChange[K, V]{hash: maphash.Comparable(tableSeed, key), key: key, gone: true}
}

// with returns the table after some changes, of which no two have one key. It copies each node on their way once. It may do what
// it likes with the list of changes.
func (t table[K, V]) with(changes ...tableChange[K, V]) table[K, V] {
	changes = slices.DeleteFunc(changes, func(c tableChange[K, V]) bool {
		if !c.gone {
			return false
		}
		_, there := t.root.get(c.hash, c.key)
		return !there
	})
	if len(changes) == 0 {
		return t
	}
	// So that all of a node stand together: their hashes have the same lowest bits.
	slices.SortFunc(changes, func(a, b tableChange[K, V]) int { return cmp.Compare(bits.Reverse64(a.hash), bits.Reverse64(b.hash)) })
	root, grown := t.root.with(changes, 0)
	return table[K, V]{root, t.size + grown}
}

// all calls yield for every value, in no particular order, until it returns false.
func (t table[K, V]) all(yield func(V) bool) { t.root.all(yield) }

// with returns the node after changes of which the hashes share the path so far, and by how many values it has grown.
func (n *tableNode[K, V]) with(changes []tableChange[K, V], depth uint) (_ tableNode[K, V], grown int) {
	var slots [1 << tableBits]tableEntry[K, V]
	used := n.used
	for left, i := n.used, 0; left != 0; left, i = left&(left-1), i+1 {
		slots[bits.TrailingZeros32(left)] = n.entries[i]
	}
	for len(changes) > 0 {
		slot := changes[0].hash >> depth & tableMask
		there := 1
		for there < len(changes) && changes[there].hash>>depth&tableMask == slot {
			there++
		}
		bit := uint32(1) << slot
		e, empty, more := slots[slot].with(changes[:there], used&bit == 0, depth+tableBits)
		slots[slot], used = e, used|bit
		if empty {
			used &^= bit
		}
		grown += more
		changes = changes[there:]
	}
	if used == 0 {
		return tableNode[K, V]{}, grown
	}
	entries := make([]tableEntry[K, V], 0, bits.OnesCount32(used))
	for left := used; left != 0; left &= left - 1 {
		entries = append(entries, slots[bits.TrailingZeros32(left)])
	}
	return tableNode[K, V]{used, entries}, grown
}

// with returns the entry after such changes, and whether nothing is left in it. empty tells that nothing was.
func (e *tableEntry[K, V]) with(changes []tableChange[K, V], empty bool, depth uint) (_ tableEntry[K, V], nothing bool, grown int) {
	hash := changes[0].hash
	one := changes[len(changes)-1].hash == hash // they are sorted
	switch {
	case !empty && e.isChild():
	case one && (empty || e.hash == hash):
		return e.withSame(changes, empty)
	default:
		child := tableEntry[K, V]{}
		if !empty {
			child.below = tableNode[K, V]{1 << (e.hash >> depth & tableMask), []tableEntry[K, V]{*e}}
		}
		e = &child
	}
	below, grown := e.below.with(changes, depth)
	return tableEntry[K, V]{below: below}, below.used == 0, grown
}

// withSame is with for an entry and changes that all have one hash.
func (e *tableEntry[K, V]) withSame(changes []tableChange[K, V], empty bool) (_ tableEntry[K, V], nothing bool, grown int) {
	if c := &changes[0]; empty && len(changes) == 1 && !c.gone {
		return tableEntry[K, V]{hash: c.hash, value: c.value}, false, 1
	}
	var buf [4]tableEntry[K, V]
	all := buf[:0]
	if !empty {
		all = append(append(all, tableEntry[K, V]{hash: e.hash, value: e.value}), e.below.entries...)
	}
	before := len(all)
	for _, c := range changes {
		all = slices.DeleteFunc(all, func(o tableEntry[K, V]) bool { return o.value.tableKey() == c.key })
		if !c.gone {
			all = append(all, tableEntry[K, V]{hash: c.hash, value: c.value})
		}
	}
	if len(all) == 0 {
		return tableEntry[K, V]{}, true, -before
	}
	first := all[0]
	first.below.entries = append([]tableEntry[K, V](nil), all[1:]...)
	return first, false, len(all) - before
}

func (n *tableNode[K, V]) all(yield func(V) bool) bool {
	for i := range n.entries {
		e := &n.entries[i]
		if !e.isChild() && !yield(e.value) || !e.below.all(yield) {
			return false
		}
	}
	return true
}
