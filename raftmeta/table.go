package raftmeta

import (
	"encoding/binary"
	"iter"

	"github.com/benbjohnson/immutable"

	"github.com/datavision/desnode/desformat"
)

// table is a persistent map, ordered by its keys' bytes: set and delete return
// a new one that shares nearly everything with the old. The zero table is empty.
type table[V any] struct {
	m *immutable.SortedMap[string, V]
}

func (t table[V]) get(key string) (v V, ok bool) {
	if t.m == nil {
		return v, false
	}
	return t.m.Get(key)
}

func (t table[V]) set(key string, v V) table[V] {
	m := t.m
	if m == nil {
		m = immutable.NewSortedMap[string, V](nil)
	}
	return table[V]{m.Set(key, v)}
}

func (t table[V]) delete(key string) table[V] {
	if t.m == nil {
		return t
	}
	return table[V]{m: t.m.Delete(key)}
}

func (t table[V]) len() int {
	if t.m == nil {
		return 0
	}
	return t.m.Len()
}

// all yields the entries by rising key.
func (t table[V]) all() iter.Seq2[string, V] { return t.from("") }

// from yields the entries whose key is not below first, by rising key.
func (t table[V]) from(first string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.len() == 0 {
			return
		}
		it := t.m.Iterator()
		it.Seek(first)
		for !it.Done() {
			if k, v, ok := it.Next(); !ok || !yield(k, v) {
				return
			}
		}
	}
}

func packKey(id desformat.PackID) string { return string(id[:]) }

// tokenKey orders by generation, then index, as Token.Compare does.
func tokenKey(t desformat.Token) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], t.Generation)
	binary.BigEndian.PutUint64(b[8:], t.Index)
	return string(b[:])
}
