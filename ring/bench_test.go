package ring

import (
	"fmt"
	"testing"
)

func BenchmarkOwner(b *testing.B) {
	r := mustNew(b, Config{}, testMembers(1, 9))
	b.ReportAllocs()
	var shard uint32
	for b.Loop() {
		if r.Owner(shard&1023) == "" {
			b.Fatal("no owner")
		}
		shard++
	}
}

func BenchmarkOwners(b *testing.B) {
	r := mustNew(b, Config{}, testMembers(1, 9, "a", "b", "c"))
	b.ReportAllocs()
	var shard uint32
	for b.Loop() {
		if len(r.Owners(shard&1023, 2)) != 2 {
			b.Fatal("no fallback")
		}
		shard++
	}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{3, 9, 16, 32, 100} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			members := testMembers(1, n, "a", "b", "c")
			b.ReportAllocs()
			for b.Loop() {
				mustNew(b, Config{}, members)
			}
		})
	}
}

// TestLookupsDoNotAllocate counts what the benchmarks show.
func TestLookupsDoNotAllocate(t *testing.T) {
	r := mustNew(t, Config{}, testMembers(1, 9, "a", "b", "c"))
	var shard uint32
	allocs := testing.AllocsPerRun(1000, func() {
		_ = r.Owner(shard & 1023)
		_ = r.Owners(shard&1023, 3)
		shard++
	})
	if allocs != 0 {
		t.Errorf("%v allocations a lookup", allocs)
	}
}
