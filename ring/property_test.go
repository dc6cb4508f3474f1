package ring

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var drawMember = rapid.Custom(func(t *rapid.T) Member {
	i := rapid.IntRange(0, 11).Draw(t, "member")
	return Member{ID: NodeID(fmt.Sprintf("node-%02d", i)), Zone: string(rune('a' + i%3))}
})

func drawConfig(t *rapid.T) Config {
	return Config{
		ShardBits: rapid.Uint8Range(4, 7).Draw(t, "bits"),
		Vnodes:    rapid.IntRange(1, 60).Draw(t, "vnodes"),
		Load:      rapid.Float64Range(1.01, 2).Draw(t, "load"),
	}
}

// newOrFail is mustNew inside a property.
func newOrFail(t *rapid.T, cfg Config, members []Member) *Ring {
	r, err := New(cfg, members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSameSetSameRing: members come and go in any order, some of them told
// twice; the ring depends on who is left alone.
func TestSameSetSameRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		var live []Member
		for _, m := range rapid.SliceOfN(drawMember, 0, 40).Draw(t, "events") {
			if live = append(live, m); rapid.Bool().Draw(t, "leaves") {
				live = slices.DeleteFunc(live, func(l Member) bool { return l == m })
			}
		}
		want := newOrFail(t, cfg, live)
		shuffled := rapid.Permutation(append(slices.Clone(live), live...)).Draw(t, "order")
		got := newOrFail(t, cfg, shuffled)
		if got.Digest() != want.Digest() || !slices.Equal(got.owners, want.owners) {
			t.Fatalf("rings of one set differ: %s and %s", got.Digest(), want.Digest())
		}
		if !slices.Equal(got.Members(), want.Members()) {
			t.Fatalf("members %v and %v", got.Members(), want.Members())
		}
	})
}

// TestOwnersOfEveryShard: every shard has an owner, nobody more than the bound,
// and each fallback is the owner of the ring without the dead.
func TestOwnersOfEveryShard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		members := rapid.SliceOfNDistinct(drawMember, 1, 12, func(m Member) NodeID { return m.ID }).Draw(t, "members")
		r := newOrFail(t, cfg, members)
		zones := map[NodeID]string{}
		without := map[NodeID]*Ring{}
		outside := map[string]*Ring{}
		for _, m := range members {
			zones[m.ID] = m.Zone
			without[m.ID] = newOrFail(t, cfg, slices.DeleteFunc(slices.Clone(members), func(o Member) bool { return o.ID == m.ID }))
			outside[m.Zone] = newOrFail(t, cfg, slices.DeleteFunc(slices.Clone(members), func(o Member) bool { return o.Zone == m.Zone }))
		}
		total := 0
		for _, m := range members {
			total += r.Share(m.ID)
			bound := float64(r.Shards())/float64(len(members))*cfg.Load + 1
			if got := r.Share(m.ID); float64(got) > bound {
				t.Fatalf("%s owns %d shards, at most %.1f", m.ID, got, bound)
			}
		}
		if total != int(r.Shards()) {
			t.Fatalf("%d shards are owned of %d", total, r.Shards())
		}
		for shard := range r.Shards() {
			owner := r.Owner(shard)
			want := []NodeID{owner}
			for _, next := range []NodeID{without[owner].Owner(shard), outside[zones[owner]].Owner(shard)} {
				if next != "" && !slices.Contains(want, next) {
					want = append(want, next)
				}
			}
			if got := r.Owners(shard, 3); !slices.Equal(got, want) {
				t.Fatalf("shard %d: owners %v, want %v", shard, got, want)
			}
		}
	})
}
