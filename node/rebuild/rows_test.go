package rebuild

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// Groups hold every pack once, and each record of a group is newer than all of
// the groups behind it.
func TestGroupsFallBySeq(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var packs []*raftmeta.Pack
		for range rapid.IntRange(0, 30).Draw(t, "packs") {
			low := rapid.Uint64Range(1, 100).Draw(t, "low")
			high := low + rapid.SampledFrom([]uint64{0, 0, 0, 1, 7}).Draw(t, "span")
			packs = append(packs, &raftmeta.Pack{
				MinSeq: desformat.Token{Generation: 1, Index: low}, MaxSeq: desformat.Token{Generation: 1, Index: high},
			})
		}
		slices.SortStableFunc(packs, func(a, b *raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) })
		groups := bySeq(packs)
		if flat := slices.Concat(groups...); !slices.Equal(flat, packs) {
			t.Fatalf("%d of %d packs", len(flat), len(packs))
		}
		for i, g := range groups {
			for _, later := range groups[i+1:] {
				for _, p := range g {
					for _, q := range later {
						if q.MaxSeq.Compare(p.MinSeq) >= 0 {
							t.Fatalf("seqs %s to %s stand behind %s to %s", q.MinSeq, q.MaxSeq, p.MinSeq, p.MaxSeq)
						}
					}
				}
			}
		}
		if single := slices.IndexFunc(packs, func(p *raftmeta.Pack) bool { return p.MinSeq != p.MaxSeq }) < 0; single {
			for _, g := range groups {
				for _, p := range g {
					if p.MaxSeq != g[0].MaxSeq {
						t.Fatalf("packs that were never merged share a group: %s and %s", p.MaxSeq, g[0].MaxSeq)
					}
				}
			}
		}
	})
}

// rec is a record of a row, as it lists it.
type rec struct {
	name    string
	seq     uint64
	version uint32
	typ     desformat.RecordType
}

// merged puts a pack of such records, by name and then as given.
func (w *world) merged(index uint64, recs ...rec) desformat.PackID {
	w.t.Helper()
	f, id := &memFile{}, desformat.PackID{byte(index)}
	token := desformat.Token{Generation: 1, Index: index}
	dw, err := desformat.NewWriter(f, desformat.WriterConfig{Pack: id, Cluster: ofCluster(), Token: token, Created: w.clock.Now()})
	w.check(err)
	slices.SortStableFunc(recs, func(a, b rec) int {
		x, y := desformat.HashName(a.name), desformat.HashName(b.name)
		return bytes.Compare(x[:], y[:])
	})
	for _, r := range recs {
		row := w.row(r.name)
		record := desformat.Record{
			Type: r.typ, Name: r.name, Seq: desformat.Token{Generation: 1, Index: r.seq}, Source: "files", ID: row.ID, Version: r.version,
			ModTime: row.ModTime, SourceSize: row.Size, SourceTime: row.ModTime,
		}
		body := bytes.NewReader(content(r.name, 1))
		if r.typ == desformat.TypeTombstone {
			body = bytes.NewReader(nil)
		}
		_, err = dw.Append(record, body)
		w.check(err)
	}
	_, err = dw.Seal()
	w.check(err)
	w.put(desformat.PackKey(desformat.Range{}, token, id), string(f.b))
	return id
}

// Of several records of a row the newest counts, wherever it stands: in a pack
// of its own, beside others in a merged one, before or behind them.
func TestTheNewestRecordWritesTheRow(t *testing.T) {
	const file, tomb = desformat.TypeFile, desformat.TypeTombstone
	w := newWorld(t)
	w.write(1, "apart", "inside", "buried", "removed", "back", "dead", "version")
	w.merged(10, rec{"apart", 10, 1, file}, rec{"buried", 10, 1, file}, rec{"removed", 10, 1, file}, rec{"back", 10, 1, file}, rec{"dead", 10, 1, file})
	apart := w.merged(30, rec{"apart", 30, 3, file}, rec{"removed", 30, 2, tomb})
	big := w.merged(40, rec{"apart", 20, 2, file}, rec{"inside", 5, 1, file}, rec{"inside", 25, 2, file}, rec{"buried", 35, 2, file},
		rec{"back", 15, 2, tomb}, rec{"version", 22, 2, file}, rec{"version", 22, 1, file})
	back := w.merged(50, rec{"back", 50, 3, file}, rec{"dead", 50, 2, file})

	w.claim("node-2", nil) // the life that the base is of
	w.claim("node-3", nil)
	p := w.rebuild(func(c *Config) {
		c.Source, c.Acknowledge = true, nil
		c.Base = "dead"
		c.OpenBase = func(context.Context, string) (*raftmeta.View, error) { return w.baseWithDead(back, "dead") }
	})
	for name, want := range map[string]struct {
		pack    desformat.PackID
		version uint32
	}{
		"apart": {apart, 3}, "inside": {big, 2}, "buried": {big, 2}, "removed": {}, "back": {back, 3},
		"dead": {desformat.PackID{10}, 1}, "version": {big, 2},
	} {
		if r := w.row(name); r.Pack != want.pack || r.Version != want.version {
			t.Errorf("%s has version %d of pack %s, want %d of %s", name, r.Version, r.Pack, want.version, want.pack)
		}
	}
	if p.RowsRestored != 6 {
		t.Errorf("progress %+v", p)
	}
}

// baseWithDead is a state in which the record of that name is dead.
func (w *world) baseWithDead(id desformat.PackID, name string) (*raftmeta.View, error) {
	w.t.Helper()
	for _, key := range w.store.Keys() {
		r, token, found, err := desformat.ParsePackKey(key)
		if err != nil || found != id {
			continue
		}
		b := w.store.Bytes(key)
		pack, err := desformat.OpenPack(w.t.Context(), desformat.FetchReaderAt(bytes.NewReader(b)), int64(len(b)))
		w.check(err)
		f := pack.Footer()
		l, err := raftmeta.OpenLocal(raftmeta.LocalConfig{Node: "x", Cluster: ofCluster(), Journal: &raftmeta.Journal{}, Generation: 2})
		w.check(err)
		var dead []uint32
		for e, err := range pack.Catalog(w.t.Context()) {
			w.check(err)
			if e.Name == name {
				dead = append(dead, e.Ordinal)
			}
		}
		w.check(l.Adopt(w.t.Context(), raftmeta.Adoption{Packs: []raftmeta.Pack{{
			ID: id, Token: token, Range: r, Size: f.Size, SHA256: f.SHA256, Records: f.Records, PayloadBytes: f.PayloadBytes,
			Catalog: f.Catalog, Index: f.Index, MinSeq: f.MinSeq, MaxSeq: f.MaxSeq, Created: f.Created,
			Acknowledged: true, Dead: dead, Copies: []raftmeta.Copy{{Key: key}},
		}}}))
		return l.View(), nil
	}
	return nil, errors.New("no such pack")
}

// An original is gone only where its root is there, and nothing hides it.
func TestAbsentOriginals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(w *world, path string) error
		want   source.State
	}{
		{"there", func(*world, string) error { return nil }, source.Packed},
		{"gone", func(_ *world, path string) error { return os.Remove(path) }, source.DeletedSource},
		{"gone with its folder", func(w *world, _ string) error { return os.RemoveAll(w.path("dir")) }, source.DeletedSource},
		{"hidden by a cut deletion", func(w *world, path string) error { return w.src().Files.Hide(w.t.Context(), path) }, source.Packed},
		{"a folder in its place", func(_ *world, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, source.Packed},
		{"an empty root", func(w *world, _ string) error { return errors.Join(os.RemoveAll(w.root), os.Mkdir(w.root, 0o700)) }, source.Packed},
		{"no root", func(w *world, _ string) error { return os.RemoveAll(w.root) }, source.Packed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.write(1, "dir/x")
			w.archive()
			w.newRows("lost.db")
			w.register(1, "dir/x")
			w.check(tc.change(w, w.path("dir/x")))
			w.claim("node-2", nil)
			w.rebuild(func(c *Config) { c.Source = true })
			if r := w.row("dir/x"); r.State != tc.want || r.Pack.IsZero() {
				t.Errorf("the row is %s of pack %s, want %s", r.State, r.Pack, tc.want)
			}
		})
	}
}

// What the rows say by now is not overwritten.
func TestRowsThatWentOnAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.write(1, "same", "changed", "gone", "other")
	w.archive()
	states := w.states()
	w.newRows("lost.db")
	for _, n := range []string{"same", "changed", "other"} { // ids are given by the order
		w.register(1, n)
	}
	w.write(2, "changed")
	w.order = []string{"same", "changed", "other"}
	w.claim("node-2", nil)
	p := w.rebuild(func(c *Config) { c.Source = true })
	if got := w.states(); got["same"] != states["same"] || w.row("changed").State != source.Active || w.row("other").State != source.Active {
		t.Errorf("rows are %v", got)
	}
	// "other" has the id that "gone" had, which is another row for that.
	if p.RowsRestored != 1 || p.RowsNewer != 2 || p.RowsMissing != 1 {
		t.Errorf("progress %+v", p)
	}
}

// A catalog that can't be read is no reason to wait for ever; a store that does
// not answer is.
func TestCatalogsThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.write(1, names(30, "a")...)
		w.archive()
		var damaged string
		for p := range w.life.View().Packs() {
			damaged = p.Copies[0].Key
			w.store.Damage(damaged, func(b []byte) []byte { b[p.Catalog.Offset+20] ^= 1; return b })
			break
		}
		w.newRows("lost.db")
		w.register(1, w.order...)
		w.claim("node-2", nil)
		up := time.Now().Add(time.Minute)
		w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
			if c.Kind == store.KindGet && c.N != 4096 && time.Now().Before(up) && c.Key != damaged {
				return storetest.Fault{Err: storetest.ErrInjected}
			}
			return storetest.Fault{}
		})
		p := w.rebuild(func(c *Config) { c.Source, c.Acknowledge = true, nil })
		if left := int64(len(w.order)) - p.RowsRestored; left == 0 || left == int64(len(w.order)) || time.Now().Before(up) {
			t.Errorf("%d rows left after %s: %+v", left, time.Until(up), p)
		}
	})
}
