package mcs

import (
	"hash/maphash"
	"math/bits"
)

// table is an immutable map: with and without return a new table that shares all but the changed path with the old
// one, so that an update costs O(log n) however many readers hold older versions. It is a hash array mapped trie with
// 32-way branching. The zero value is empty.
type table[K comparable, V keyed[K]] struct {
	root *tableNode[K, V]
	size int
}

// keyed is a value that knows its key, so that the table need not keep it: there are as many as services.
type keyed[K comparable] interface{ tableKey() K }

// tableNode has, for each set bit of used, one entry: a child node, or the pairs whose hashes share the path so far.
type tableNode[K comparable, V keyed[K]] struct {
	used    uint32
	entries []tableEntry[K, V]
}

// tableEntry is a child, or a value: that stands in the node itself, since on the way to it each step is likely to wait for
// memory.
type tableEntry[K comparable, V keyed[K]] struct {
	child *tableNode[K, V]
	hash  uint64
	value V
	// next are others whose hashes are equal in all bits.
	next *tablePair[K, V]
}

// tablePair is immutable.
type tablePair[K comparable, V keyed[K]] struct {
	value V
	next  *tablePair[K, V]
}

const (
	tableBits = 5
	tableMask = 1<<tableBits - 1
)

// tableSeed is fixed for the life of the process; tables are never compared across processes.
var tableSeed = maphash.MakeSeed()

func (t table[K, V]) get(key K) (V, bool) {
	return t.root.get(maphash.Comparable(tableSeed, key), key)
}

func (n *tableNode[K, V]) get(hash uint64, key K) (V, bool) {
	for rest := hash; n != nil; rest >>= tableBits {
		bit := uint32(1) << (rest & tableMask)
		if n.used&bit == 0 {
			break
		}
		e := &n.entries[bits.OnesCount32(n.used&(bit-1))]
		if e.child != nil {
			n = e.child
			continue
		}
		if e.hash != hash {
			break
		}
		if e.value.tableKey() == key {
			return e.value, true
		}
		for p := e.next; p != nil; p = p.next {
			if p.value.tableKey() == key {
				return p.value, true
			}
		}
		break
	}
	var none V
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
func (t table[K, V]) all(yield func(V) bool) {
	if t.root != nil {
		t.root.all(yield)
	}
}

func (n *tableNode[K, V]) with(hash uint64, depth uint, value V) (_ *tableNode[K, V], added bool) {
	if n == nil {
		n = &tableNode[K, V]{}
	}
	bit := uint32(1) << (hash >> depth & tableMask)
	at := bits.OnesCount32(n.used & (bit - 1))
	if n.used&bit == 0 {
		entries := make([]tableEntry[K, V], 0, len(n.entries)+1)
		entries = append(entries, n.entries[:at]...)
		entries = append(entries, tableEntry[K, V]{hash: hash, value: value})
		return &tableNode[K, V]{n.used | bit, append(entries, n.entries[at:]...)}, true
	}
	e := n.entries[at]
	switch {
	case e.child != nil:
		e.child, added = e.child.with(hash, depth+tableBits, value)
	case e.hash == hash:
		left, found := e.without(value.tableKey())
		e, added = tableEntry[K, V]{hash: hash, value: value, next: left}, !found
	default:
		below := tableNode[K, V]{1 << (e.hash >> (depth + tableBits) & tableMask), []tableEntry[K, V]{e}}
		child, _ := below.with(hash, depth+tableBits, value)
		e, added = tableEntry[K, V]{child: child}, true
	}
	return n.replaced(at, e), added
}

// without expects that the key is there.
func (n *tableNode[K, V]) without(hash uint64, depth uint, key K) *tableNode[K, V] {
	bit := uint32(1) << (hash >> depth & tableMask)
	at := bits.OnesCount32(n.used & (bit - 1))
	e := n.entries[at]
	if e.child != nil {
		e.child = e.child.without(hash, depth+tableBits, key)
		if e.child != nil {
			return n.replaced(at, e)
		}
	} else if left, _ := e.without(key); left != nil {
		return n.replaced(at, tableEntry[K, V]{hash: hash, value: left.value, next: left.next})
	}
	if len(n.entries) == 1 {
		return nil
	}
	entries := make([]tableEntry[K, V], 0, len(n.entries)-1)
	entries = append(entries, n.entries[:at]...)
	return &tableNode[K, V]{n.used &^ bit, append(entries, n.entries[at+1:]...)}
}

func (n *tableNode[K, V]) replaced(at int, e tableEntry[K, V]) *tableNode[K, V] {
	entries := append([]tableEntry[K, V](nil), n.entries...)
	entries[at] = e
	return &tableNode[K, V]{n.used, entries}
}

func (n *tableNode[K, V]) all(yield func(V) bool) bool {
	for i := range n.entries {
		e := &n.entries[i]
		if e.child != nil {
			if !e.child.all(yield) {
				return false
			}
			continue
		}
		if !yield(e.value) {
			return false
		}
		for p := e.next; p != nil; p = p.next {
			if !yield(p.value) {
				return false
			}
		}
	}
	return true
}

// without returns the values of an entry but that of the key, and whether it was there.
func (e *tableEntry[K, V]) without(key K) (left *tablePair[K, V], found bool) {
	for p := (&tablePair[K, V]{e.value, e.next}); p != nil; p = p.next {
		if p.value.tableKey() == key {
			found = true
		} else {
			left = &tablePair[K, V]{p.value, left}
		}
	}
	return left, found
}
