package ring

import (
	"errors"
	"math"
	"slices"
	"testing"
)

// TestGolden holds the placement over versions of the library and of this
// package: a digest that changes here means that Format has to be raised.
func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		name    string
		members []Member
		cfg     Config
		digest  string
	}{
		{"none", nil, Config{}, "6ae078621cd1eabe"},
		{"one", testMembers(1, 1), Config{}, "8f653910decbc07d"},
		{"three", testMembers(1, 3), Config{}, "959f589efdd75691"},
		{"nine in three zones", testMembers(1, 9, "a", "b", "c"), Config{}, "58ca280219768d42"},
		{"five, 4 shard bits", testMembers(2, 5), Config{ShardBits: 4}, "3f62ca351b3d2c96"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := mustNew(t, tc.cfg, tc.members).Digest().String(); got != tc.digest {
				t.Errorf("digest %s, want %s", got, tc.digest)
			}
		})
	}
}

func TestDigestTellsRingsApart(t *testing.T) {
	zoned := testMembers(1, 3, "a", "b")
	rings := []*Ring{
		mustNew(t, Config{}, nil),
		mustNew(t, Config{}, testMembers(1, 3)),
		mustNew(t, Config{}, testMembers(1, 4)),
		mustNew(t, Config{}, testMembers(2, 3)),
		mustNew(t, Config{}, zoned),
		mustNew(t, Config{ShardBits: 11}, zoned),
		mustNew(t, Config{Vnodes: 201}, zoned),
		mustNew(t, Config{Load: 1.25}, zoned),
	}
	seen := map[Digest]int{{}: -1}
	for i, r := range rings {
		if j, ok := seen[r.Digest()]; ok {
			t.Errorf("rings %d and %d have the digest %s", i, j, r.Digest())
		}
		seen[r.Digest()] = i
	}
}

func TestNewRefuses(t *testing.T) {
	two := testMembers(1, 2)
	moved := []Member{{ID: two[0].ID, Zone: "a"}, {ID: two[0].ID, Zone: "b"}}
	for _, tc := range []struct {
		name    string
		cfg     Config
		members []Member
		want    error
	}{
		{"few shard bits", Config{ShardBits: 3}, two, ErrConfig},
		{"many shard bits", Config{ShardBits: 17}, two, ErrConfig},
		{"negative vnodes", Config{Vnodes: -1}, two, ErrConfig},
		{"many vnodes", Config{Vnodes: 1001}, two, ErrConfig},
		{"load of 1", Config{Load: 1}, two, ErrConfig},
		{"load not a number", Config{Load: math.NaN()}, two, ErrConfig},
		{"infinite load", Config{Load: math.Inf(1)}, two, ErrConfig},
		{"no id", Config{}, []Member{{Zone: "a"}}, ErrMembers},
		{"two zones at once", Config{}, moved, ErrMembers},
		{"too many", Config{}, testMembers(1, MaxMembers+1), ErrMembers},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := New(tc.cfg, tc.members); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestParseNodeID(t *testing.T) {
	const good = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	if id, err := ParseNodeID(good); err != nil || id.String() != good {
		t.Errorf("got %q, %v", id, err)
	}
	for _, bad := range []string{"", "n1", good[:35], good + "0", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "{" + good + "}", "6ba7b8109dad11d180b400c04fd430c8"} {
		if _, err := ParseNodeID(bad); !errors.Is(err, ErrBadID) {
			t.Errorf("%q: got %v, want ErrBadID", bad, err)
		}
	}
}

func TestOutsideTheTable(t *testing.T) {
	empty, three := mustNew(t, Config{}, nil), mustNew(t, Config{}, testMembers(1, 3))
	for _, tc := range []struct {
		name  string
		ring  *Ring
		shard uint32
		n     int
	}{
		{"no members", empty, 0, 2},
		{"no such shard", three, 1024, 2},
		{"no shard at all", three, math.MaxUint32, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.ring.Owner(tc.shard); got != "" {
				t.Errorf("owner %s", got)
			}
			if got := tc.ring.Owners(tc.shard, tc.n); len(got) != 0 {
				t.Errorf("owners %v", got)
			}
		})
	}
	if got := three.Owners(0, 0); len(got) != 0 {
		t.Errorf("no owners wanted, got %v", got)
	}
	if got := three.Owners(0, 100); len(got) != 2 {
		t.Errorf("%d owners of one zone, want 2", len(got))
	}
	if empty.Skew() != 0 || three.Share("somebody") != 0 {
		t.Error("figures of nobody")
	}
}

// TestOwnersAreNotForWriting: an append by a caller must not reach the table.
func TestOwnersAreNotForWriting(t *testing.T) {
	r := mustNew(t, Config{}, testMembers(1, 9, "a", "b", "c"))
	before := r.Digest()
	for shard := range r.Shards() {
		_ = append(r.Owners(shard, 1), "somebody")
	}
	if r.computeDigest() != before {
		t.Error("the table changed")
	}
}

// TestEightToNine counts the bars of a join: at most 12.5 % of the shards move
// and nobody owns more than 1.25 times the average, in the mean of 100 sets.
func TestEightToNine(t *testing.T) {
	const sets = 100
	var moved, eight, nine float64
	for seed := range sets {
		members := testMembers(seed, 9)
		before, after := mustNew(t, Config{}, members[:8]), mustNew(t, Config{}, members)
		moved += float64(Moved(before, after)) / float64(before.Shards()) / sets
		eight += before.Skew() / sets
		nine += after.Skew() / sets
	}
	t.Logf("moved %.2f %%, max/avg %.3f with 8 and %.3f with 9", 100*moved, eight, nine)
	if moved > 0.125 {
		t.Errorf("%.2f %% of the shards moved, at most 12.5 %% may", 100*moved)
	}
	if max(eight, nine) > 1.25 {
		t.Errorf("max/avg %.3f and %.3f, at most 1.25 may be", eight, nine)
	}
}

// TestRemovalMovesLittle: a death moves the dead node's shards, and of the
// others only the few that the bound on loads pushes about.
func TestRemovalMovesLittle(t *testing.T) {
	for _, n := range []int{3, 5, 9, 17} {
		var others, shards int
		for seed := range 20 {
			members := testMembers(seed, n)
			all := mustNew(t, Config{}, members)
			rest := mustNew(t, Config{}, members[1:])
			others += Moved(all, rest) - all.Share(members[0].ID)
			shards += int(all.Shards()) - all.Share(members[0].ID)
		}
		share := float64(others) / float64(shards)
		t.Logf("%d nodes: %.3f %% of the shards of the living moved", n, 100*share)
		if share > 0.01 {
			t.Errorf("%d nodes: %.2f %% of the shards of the living moved", n, 100*share)
		}
	}
}

func TestZoneOfTheOwner(t *testing.T) {
	members := testMembers(3, 9, "a", "b", "c")
	r := mustNew(t, Config{}, members)
	zone := map[NodeID]string{}
	for _, m := range members {
		zone[m.ID] = m.Zone
	}
	for shard := range r.Shards() {
		owners := r.Owners(shard, 3)
		outside := slices.ContainsFunc(owners, func(id NodeID) bool { return zone[id] != zone[owners[0]] })
		if !outside {
			t.Errorf("shard %d: all of %v are in zone %s", shard, owners, zone[owners[0]])
		}
	}
}

func TestMovedBetweenShardCounts(t *testing.T) {
	members := testMembers(1, 3)
	if got := Moved(mustNew(t, Config{ShardBits: 4}, members), mustNew(t, Config{ShardBits: 5}, members)); got != 32 {
		t.Errorf("moved %d, want all 32", got)
	}
}
