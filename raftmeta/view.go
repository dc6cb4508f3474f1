package raftmeta

import (
	"iter"
	"strconv"
	"strings"

	"github.com/datavision/desnode/desformat"
)

// View is the state at one Raft index. It never changes, so its answers agree
// with each other, and it may be used by any number of goroutines.
type View struct {
	state
	changed chan struct{} // closed when a newer View takes this one's place
}

// state is what the commands change. All of it is persistent: a copy of the
// struct is a copy of the state.
type state struct {
	applied    uint64 // Raft index of the last command
	cluster    desformat.ClusterID
	shardBits  uint8 // 0: no cluster has been formed yet
	generation uint64
	packs      table[*Pack]
	ranges     *rangeNode // packs that are not replaced
	awaited    uint64     // highest awaitedAt of the packs
	leases     table[leaseEntry]
	uploads    table[Upload] // by key
	settings   table[setting]
	members    table[Member]     // by id
	removed    table[uint64]     // members that were, by id: Raft index of the removal
	tokens     table[tokenEntry] // by id
}

// leaseEntry is a live lease and the request that asked for it, by which a
// repeated grant finds itself.
type leaseEntry struct {
	Lease
	Request string `json:"request"`
}

// setting is one replicated value. Before is the index the last change was
// conditional on, by which a repeated Set finds itself.
type setting struct {
	Value    []byte `json:"value"`
	ModIndex uint64 `json:"mod_index"`
	Before   uint64 `json:"before"`
}

// Applied returns the Raft index of the last command in this view.
func (v *View) Applied() uint64 { return v.applied }

// Cluster returns the cluster's id; it is zero before the cluster is formed.
func (v *View) Cluster() desformat.ClusterID { return v.cluster }

// ShardBits returns the length of a shard's prefix, 4 to 16; 0 before the
// cluster is formed.
func (v *View) ShardBits() uint8 { return v.shardBits }

// Generation returns the number of this cluster's life, 1 and up.
func (v *View) Generation() uint64 { return v.generation }

// Covering appends to dst the live packs whose range holds h, highest MaxSeq
// first. It allocates nothing when dst has room.
func (v *View) Covering(h desformat.NameHash, dst []*Pack) []*Pack {
	return v.ranges.covering(h, dst)
}

// Overlapping returns the live packs whose range overlaps r, in no promised order.
func (v *View) Overlapping(r desformat.Range) []*Pack { return v.ranges.overlapping(r, nil) }

// Pack returns the manifest entry, replaced packs included; nil: there is none.
func (v *View) Pack(id desformat.PackID) *Pack {
	p, _ := v.packs.get(packKey(id))
	return p
}

// Packs yields all manifest entries by rising id, replaced ones included.
func (v *View) Packs() iter.Seq[*Pack] {
	return func(yield func(*Pack) bool) {
		for _, p := range v.packs.all() {
			if !yield(p) {
				return
			}
		}
	}
}

// Leases returns the live leases, oldest first.
func (v *View) Leases() []Lease {
	out := make([]Lease, 0, v.leases.len())
	for _, l := range v.leases.all() {
		out = append(out, l.Lease)
	}
	return out
}

// Uploads returns the announced uploads by rising key.
func (v *View) Uploads() []Upload {
	out := make([]Upload, 0, v.uploads.len())
	for _, u := range v.uploads.all() {
		out = append(out, u)
	}
	return out
}

// Setting returns a replicated value and the Raft index of its last change,
// which the next Set must name. The caller does not change value.
func (v *View) Setting(key string) (value []byte, modIndex uint64, ok bool) {
	s, ok := v.settings.get(key)
	return s.Value, s.ModIndex, ok
}

// Settings yields the settings whose key begins with prefix, by rising key.
func (v *View) Settings(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, s := range v.settings.from(prefix) {
			if !strings.HasPrefix(k, prefix) || !yield(k, s.Value) {
				return
			}
		}
	}
}

// Fenced reports that the lease of token t is gone and can never commit
// again. A token this view has not heard of yet is not fenced.
func (v *View) Fenced(t desformat.Token) bool { return v.fenced(t) }

func (s *state) fenced(t desformat.Token) bool {
	if _, live := s.leases.get(tokenKey(t)); live {
		return false
	}
	return t.Generation < s.generation || t.Generation == s.generation && t.Index <= s.applied
}

// Garbage reports that u's object belongs to no pack and never will: its token
// is fenced, no manifest entry names it, and, for a token of an earlier
// generation, the rebuild that began this one is recorded as done. Liveness and
// fence are read at this view's one Raft index. The caller looks at the
// object's age.
func (v *View) Garbage(u Upload) bool { return v.garbage(u) }

func (s *state) garbage(u Upload) bool {
	if _, added := s.packs.get(packKey(u.Pack)); added || !s.fenced(u.Token) {
		return false
	}
	// A life begins with an empty state, so its own rebuild has looked through
	// the packs of all earlier ones, those included whose rebuild never ended.
	return u.Token.Generation == s.generation || s.rebuildDone(s.generation)
}

// RebuildDone reports whether the rebuild that began the generation is
// recorded as done: the manifest then names every pack of earlier generations.
// Generation 1 begins with none.
func (v *View) RebuildDone(generation uint64) bool { return v.rebuildDone(generation) }

func (s *state) rebuildDone(generation uint64) bool {
	_, done := s.settings.get(rebuildKey(generation))
	return done || generation == 1
}

func rebuildKey(generation uint64) string {
	return "rebuild-done/" + strconv.FormatUint(generation, 10)
}
