package backup

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// manyPacks is a state of n packs, 1 % of whose records are dead here and there.
func manyPacks(tb testing.TB, n int) *raftmeta.View {
	meta, err := raftmeta.OpenLocal(raftmeta.LocalConfig{
		Node: "node-a", Cluster: desformat.ClusterID{1}, Journal: &raftmeta.Journal{}, Generation: 2,
	})
	if err != nil {
		tb.Fatal(err)
	}
	var a raftmeta.Adoption
	for i := range n {
		r, err := desformat.ParseRange(fmt.Sprintf("%04x/16", i%(1<<16)))
		if err != nil {
			tb.Fatal(err)
		}
		p := pack(i, desformat.Token{Generation: 1, Index: uint64(10 + i)}, r, time.Unix(1_700_000_000, 0))
		p.SHA256 = sha256.Sum256([]byte(r.String() + p.Token.String())) // as little to compress as of a real one
		copy(p.ID[:], p.SHA256[16:])
		p.Copies[0].Key = desformat.PackKey(p.Range, p.Token, p.ID)
		p.Copies[0].Version = fmt.Sprintf("3sL4kqtJlcpXroDTDmJ%013x", i*7919)
		p.Records, p.Acknowledged = 16384, true
		for d := range uint32(160) {
			p.Dead = append(p.Dead, d*101+uint32(i%97))
		}
		a.Packs = append(a.Packs, p)
	}
	if err := meta.Adopt(tb.Context(), a); err != nil {
		tb.Fatal(err)
	}
	return meta.View()
}

// BenchmarkBackup is what a backup of 8,192 packs, 134 million files of 16 KiB,
// costs its node beside the one PUT.
func BenchmarkBackup(b *testing.B) {
	v := manyPacks(b, 8192)
	var size int
	for b.Loop() {
		body, _, err := encode(v, time.Unix(0, 0))
		if err != nil {
			b.Fatal(err)
		}
		size = len(body)
	}
	b.ReportMetric(float64(size), "object-bytes")
}

// BenchmarkLoad is what reading that backup costs a restore beside the one GET.
func BenchmarkLoad(b *testing.B) {
	body, e, err := encode(manyPacks(b, 8192), time.Unix(0, 0))
	if err != nil {
		b.Fatal(err)
	}
	s := storetest.NewFake(b)
	if _, err := s.Put(b.Context(), e.Key, bytes.NewReader(body), int64(len(body))); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Load(b.Context(), s, e.Key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStillTheSame is what it costs to find that nothing has changed.
func BenchmarkStillTheSame(b *testing.B) {
	v := manyPacks(b, 8192)
	for b.Loop() {
		if _, err := v.Digest(isList); err != nil {
			b.Fatal(err)
		}
	}
}
