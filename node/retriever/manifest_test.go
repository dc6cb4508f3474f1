package retriever

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// startMeta runs a real state machine, alone and in memory but for its log.
func startMeta(tb testing.TB) *raftmeta.Meta {
	tb.Helper()
	m, err := raftmeta.Open(tb.Context(), raftmeta.Config{
		Dir: filepath.Join(tb.TempDir(), "raft"), Node: "node-a", Cluster: desformat.ClusterID{1},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	if err := m.Ready(ctx); err != nil {
		tb.Fatal(err)
	}
	return m
}

// commit packs versions, all of which get the lease's token as their seq, and
// adds the pack to m as a packer does.
func (w *world) commit(tb testing.TB, m *raftmeta.Meta, dead []uint32, versions ...version) *raftmeta.Pack {
	tb.Helper()
	w.packs++
	cfg := desformat.WriterConfig{Pack: desformat.PackID{byte(w.packs)}, Created: epoch}
	var added *raftmeta.Pack
	err := m.WithLease(tb.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		cfg.Token = l.Token
		for i := range versions {
			versions[i].seq = l.Token.Index
		}
		b, footer := buildPack(tb, cfg, versions)
		key := desformat.PackKey(cfg.Range, cfg.Token, cfg.Pack)
		if err := m.BeginUpload(ctx, raftmeta.Upload{Key: key, Pack: cfg.Pack, Token: cfg.Token, BeganAt: epoch}); err != nil {
			return err
		}
		object, err := w.store.Put(ctx, key, bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return err
		}
		p := entryOf(footer, key, object.Version)
		p.Acknowledged = false
		added, err = m.AddPack(ctx, *p)
		return err
	})
	if err = errors.Join(err, m.AckPack(tb.Context(), cfg.Pack, dead)); err != nil {
		tb.Fatal(err)
	}
	return added
}

// What the fake manifest stands for holds with the real one.
func TestReadsFollowTheRealManifest(t *testing.T) {
	m := startMeta(t)
	w := newWorld(t)
	r := w.retriever(func(c *Config) { c.Manifest = FromMeta(m) })
	wantError(t, r, "a", ErrNotFound)

	changed := FromMeta(m).Changed()
	w.commit(t, m, nil, version{name: "a", content: "first"}, version{name: "b", content: "B"})
	<-changed
	wantRead(t, r, "a", "first")
	w.commit(t, m, nil, version{name: "a", content: "second"})
	wantRead(t, r, "a", "second")
	w.commit(t, m, []uint32{0}, version{name: "a", content: "dead"})
	wantRead(t, r, "a", "second")
	wantRead(t, r, "b", "B")
	w.commit(t, m, nil, version{name: "b", kind: desformat.TypeTombstone})
	wantError(t, r, "b", ErrGone)

	fresh := w.retriever(func(c *Config) { c.Manifest = FromMeta(m) })
	if err := fresh.Prewarm(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if s := fresh.Stats(); s.Indexes != 4 {
		t.Errorf("%d indexes loaded ahead, want 4", s.Indexes)
	}
	if n := w.gets(func() { wantRead(t, fresh, "a", "second") }); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}
