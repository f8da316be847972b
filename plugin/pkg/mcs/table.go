package mcs

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// table is an immutable map: with and without return a new table that shares all but the changed path with the old
// one, so that an update costs O(log n) however many readers hold older versions. It is a hash array mapped trie with
// 32-way branching. The zero value is empty.
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

func (t table[K, V]) with(value V) table[K, V] {
	root, added := t.root.with(maphash.Comparable(tableSeed, value.tableKey()), 0, value)
	if added {
		t.size++
	}
	t.root = root
	return t
}

func (t table[K, V]) without(key K) table[K, V] {
	if _, ok := t.get(key); !ok {
		return t
	}
	t.root = t.root.without(maphash.Comparable(tableSeed, key), 0, key)
	t.size--
	return t
}

// all calls yield for every value, in no particular order, until it returns false.
func (t table[K, V]) all(yield func(V) bool) { t.root.all(yield) }

func (n *tableNode[K, V]) with(hash uint64, depth uint, value V) (_ tableNode[K, V], added bool) {
	bit := uint32(1) << (hash >> depth & tableMask)
	at := bits.OnesCount32(n.used & (bit - 1))
	if n.used&bit == 0 {
		entries := make([]tableEntry[K, V], 0, len(n.entries)+1)
		entries = append(entries, n.entries[:at]...)
		entries = append(entries, tableEntry[K, V]{hash: hash, value: value})
		return tableNode[K, V]{n.used | bit, append(entries, n.entries[at:]...)}, true
	}
	e := n.entries[at]
	switch {
	case e.isChild():
		e.below, added = e.below.with(hash, depth+tableBits, value)
	case e.hash == hash:
		others, found := e.without(value.tableKey())
		e, added = tableEntry[K, V]{hash: hash, value: value}, !found
		e.below.entries = others
	default:
		child := tableNode[K, V]{1 << (e.hash >> (depth + tableBits) & tableMask), []tableEntry[K, V]{e}}
		child, added = child.with(hash, depth+tableBits, value)
		e = tableEntry[K, V]{below: child}
	}
	return n.replaced(at, e), added
}

// without expects that the key is there.
func (n *tableNode[K, V]) without(hash uint64, depth uint, key K) tableNode[K, V] {
	bit := uint32(1) << (hash >> depth & tableMask)
	at := bits.OnesCount32(n.used & (bit - 1))
	e := n.entries[at]
	if e.isChild() {
		if e.below = e.below.without(hash, depth+tableBits, key); e.isChild() {
			return n.replaced(at, e)
		}
	} else if others, _ := e.without(key); len(others) > 0 {
		e = others[0]
		e.below.entries = others[1:]
		return n.replaced(at, e)
	}
	if len(n.entries) == 1 {
		return tableNode[K, V]{}
	}
	entries := make([]tableEntry[K, V], 0, len(n.entries)-1)
	entries = append(entries, n.entries[:at]...)
	return tableNode[K, V]{n.used &^ bit, append(entries, n.entries[at+1:]...)}
}

func (n *tableNode[K, V]) replaced(at int, e tableEntry[K, V]) tableNode[K, V] {
	entries := slices.Clone(n.entries)
	entries[at] = e
	return tableNode[K, V]{n.used, entries}
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

// without returns the values of an entry but that of the key, and whether it was there.
func (e *tableEntry[K, V]) without(key K) (others []tableEntry[K, V], found bool) {
	for _, o := range append([]tableEntry[K, V]{{hash: e.hash, value: e.value}}, e.below.entries...) {
		if o.value.tableKey() == key {
			found = true
		} else {
			others = append(others, o)
		}
	}
	return others, found
}
