package mcs

import (
	"hash/maphash"
	"math/bits"
)

// table is an immutable map: with and without return a new table that shares all but the changed path with the old
// one, so that an update costs O(log n) however many readers hold older versions. It is a hash array mapped trie with
// 32-way branching. The zero value is empty.
type table[K comparable, V any] struct {
	root *tableNode[K, V]
	size int
}

// tableNode has, for each set bit of used, one entry: a child node, or the pairs whose hashes share the path so far.
type tableNode[K comparable, V any] struct {
	used    uint32
	entries []tableEntry[K, V]
}

type tableEntry[K comparable, V any] struct {
	child *tableNode[K, V]
	// hash and pairs are used when child is nil. More than one pair only when the hashes are equal in all bits.
	hash  uint64
	pairs []tablePair[K, V]
}

type tablePair[K comparable, V any] struct {
	key   K
	value V
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
		for i := range e.pairs {
			if e.pairs[i].key == key {
				return e.pairs[i].value, true
			}
		}
		break
	}
	var none V
	return none, false
}

func (t table[K, V]) with(key K, value V) table[K, V] {
	root, added := t.root.with(maphash.Comparable(tableSeed, key), 0, tablePair[K, V]{key, value})
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

// all calls yield for every pair, in no particular order, until it returns false.
func (t table[K, V]) all(yield func(K, V) bool) {
	if t.root != nil {
		t.root.all(yield)
	}
}

func (n *tableNode[K, V]) with(hash uint64, depth uint, p tablePair[K, V]) (_ *tableNode[K, V], added bool) {
	if n == nil {
		n = &tableNode[K, V]{}
	}
	bit := uint32(1) << (hash >> depth & tableMask)
	at := bits.OnesCount32(n.used & (bit - 1))
	if n.used&bit == 0 {
		entries := make([]tableEntry[K, V], 0, len(n.entries)+1)
		entries = append(entries, n.entries[:at]...)
		entries = append(entries, tableEntry[K, V]{hash: hash, pairs: []tablePair[K, V]{p}})
		return &tableNode[K, V]{n.used | bit, append(entries, n.entries[at:]...)}, true
	}
	e := n.entries[at]
	switch {
	case e.child != nil:
		e.child, added = e.child.with(hash, depth+tableBits, p)
	case e.hash == hash:
		e.pairs, added = withPair(e.pairs, p)
	default:
		var child *tableNode[K, V]
		for _, old := range e.pairs {
			child, _ = child.with(e.hash, depth+tableBits, old)
		}
		child, added = child.with(hash, depth+tableBits, p)
		e = tableEntry[K, V]{child: child}
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
	} else if e.pairs = withoutPair(e.pairs, key); len(e.pairs) > 0 {
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

func (n *tableNode[K, V]) all(yield func(K, V) bool) bool {
	for i := range n.entries {
		e := &n.entries[i]
		if e.child != nil {
			if !e.child.all(yield) {
				return false
			}
			continue
		}
		for j := range e.pairs {
			if !yield(e.pairs[j].key, e.pairs[j].value) {
				return false
			}
		}
	}
	return true
}

func withPair[K comparable, V any](pairs []tablePair[K, V], p tablePair[K, V]) ([]tablePair[K, V], bool) {
	pairs = append([]tablePair[K, V](nil), pairs...)
	for i := range pairs {
		if pairs[i].key == p.key {
			pairs[i] = p
			return pairs, false
		}
	}
	return append(pairs, p), true
}

func withoutPair[K comparable, V any](pairs []tablePair[K, V], key K) []tablePair[K, V] {
	kept := make([]tablePair[K, V], 0, len(pairs))
	for _, p := range pairs {
		if p.key != key {
			kept = append(kept, p)
		}
	}
	return kept
}
