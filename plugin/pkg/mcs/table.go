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

// tableEntry has one of the two.
type tableEntry[K comparable, V keyed[K]] struct {
	child *tableNode[K, V]
	pair  *tablePair[K, V]
}

// tablePair is immutable. next is another whose hash is equal in all bits.
type tablePair[K comparable, V keyed[K]] struct {
	hash  uint64
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
		for p := e.pair; p != nil && p.hash == hash; p = p.next {
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
	root, added := t.root.with(0, &tablePair[K, V]{hash: maphash.Comparable(tableSeed, value.tableKey()), value: value})
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

// with expects that the pair is nobody else's.
func (n *tableNode[K, V]) with(depth uint, p *tablePair[K, V]) (_ *tableNode[K, V], added bool) {
	if n == nil {
		n = &tableNode[K, V]{}
	}
	bit := uint32(1) << (p.hash >> depth & tableMask)
	at := bits.OnesCount32(n.used & (bit - 1))
	if n.used&bit == 0 {
		entries := make([]tableEntry[K, V], 0, len(n.entries)+1)
		entries = append(entries, n.entries[:at]...)
		entries = append(entries, tableEntry[K, V]{pair: p})
		return &tableNode[K, V]{n.used | bit, append(entries, n.entries[at:]...)}, true
	}
	e := n.entries[at]
	switch {
	case e.child != nil:
		e.child, added = e.child.with(depth+tableBits, p)
	case e.pair.hash == p.hash:
		p.next, added = e.pair.without(p.value.tableKey())
		e.pair, added = p, !added
	default:
		child, _ := onlyPair(depth+tableBits, e.pair).with(depth+tableBits, p)
		e, added = tableEntry[K, V]{child: child}, true
	}
	return n.replaced(at, e), added
}

// onlyPair returns a node of these pairs alone.
func onlyPair[K comparable, V keyed[K]](depth uint, p *tablePair[K, V]) *tableNode[K, V] {
	return &tableNode[K, V]{1 << (p.hash >> depth & tableMask), []tableEntry[K, V]{{pair: p}}}
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
	} else if e.pair, _ = e.pair.without(key); e.pair != nil {
		return n.replaced(at, e)
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
		for p := e.pair; p != nil; p = p.next {
			if !yield(p.value) {
				return false
			}
		}
	}
	return true
}

// without returns the pairs from this one on but that of the key, and whether it was there.
func (p *tablePair[K, V]) without(key K) (rest *tablePair[K, V], found bool) {
	switch {
	case p == nil:
		return nil, false
	case p.value.tableKey() == key:
		return p.next, true
	}
	rest, found = p.next.without(key)
	if !found {
		return p, false
	}
	return &tablePair[K, V]{p.hash, p.value, rest}, true
}
