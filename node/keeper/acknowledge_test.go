package keeper

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

func TestRowNotMarkedAtThatVersionIsDead(t *testing.T) {
	w := newWorld(t)
	w.register("stays", "changes")
	p := w.pack()
	// Changed and marked again after it was packed: the pack holds version 1.
	w.registerAgainAt("changes", 2*time.Second)
	w.mark(w.rows)
	if v := w.row("changes").Version; v != 2 {
		t.Fatalf("version = %d, want 2", v)
	}
	w.check(w.keeper(nil).Acknowledge(t.Context(), p))
	w.wantRow("stays", source.Packed, "")
	w.wantRow("changes", source.Marked, "")
	p = w.meta.View().Pack(p.ID)
	if !p.Acknowledged || len(p.Dead) != 1 {
		t.Fatalf("acknowledged %t, dead %v; want one dead record", p.Acknowledged, p.Dead)
	}
	if _, err := w.stored(p, "changes"); err == nil {
		t.Error("the record of the changed row is live")
	}
	if got, err := w.stored(p, "stays"); got != "content of stays" || err != nil {
		t.Errorf("stored = %q, %v", got, err)
	}
}

// registerAgainAt tells the source that a file's time has moved on.
func (w *world) registerAgainAt(name string, by time.Duration) {
	w.t.Helper()
	r := w.row(name)
	res, err := w.rows.Register(w.t.Context(), []source.File{{Name: name, Path: r.Path, Size: r.Size, ModTime: r.ModTime.Add(by), FileID: r.FileID}})
	w.check(err)
	if res[0] != source.RegisteredChanged {
		w.t.Fatalf("Register = %v, want changed", res[0])
	}
}

func TestUnknownSourceLeavesThePackUnacknowledged(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	k := w.keeper(func(c *Config) { c.Sources = nil })
	if err := k.Acknowledge(t.Context(), p); !errors.Is(err, ErrUnknownSource) {
		t.Errorf("Acknowledge = %v, want ErrUnknownSource", err)
	}
	if p := w.meta.View().Pack(p.ID); p.Acknowledged {
		t.Error("the pack is acknowledged, its row dead")
	}
	w.wantRow("a", source.Marked, "")
}

func TestAcknowledgeReadsTheBytesAtHand(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	f := objectFetcher{w.folder, p.Copies[0].Key, p.Copies[0].Version}
	w.faults.reset()
	err := w.keeper(nil).AcknowledgeFrom(t.Context(), p, f, nil)
	w.check(err)
	w.wantRow("a", source.Packed, "")
	if slices.ContainsFunc(w.faults.calls, func(op string) bool { return strings.HasPrefix(op, "store.") }) {
		t.Errorf("calls = %q: the store was asked", w.faults.calls)
	}
}

func TestCutCatalogAcknowledgesNothing(t *testing.T) {
	w := newWorld(t)
	w.register("a", "b")
	p := w.pack()
	w.spoil(p, p.Catalog.Offset+5)
	if err := w.keeper(nil).Acknowledge(t.Context(), p); !errors.Is(err, desformat.ErrCorrupt) {
		t.Errorf("Acknowledge = %v, want ErrCorrupt", err)
	}
	if w.meta.View().Pack(p.ID).Acknowledged {
		t.Error("a pack whose catalog can't be read was acknowledged")
	}
}

func TestManyRowsAreAcknowledgedInBatches(t *testing.T) {
	w := newWorld(t)
	const n = source.MaxBatch + 7
	table := &countingAcks{Table: w.src.Rows}
	k := w.keeper(func(c *Config) { c.Sources = []source.Source{{Name: "files", Rows: table, Files: w.src.Files}} })
	a := acknowledging{k: k, pack: &raftmeta.Pack{}, acks: map[string]*batch{}}
	for i := range uint32(n) {
		e := desformat.Entry{Record: desformat.Record{Type: desformat.TypeFile, Source: "files"}, Location: desformat.Location{Ordinal: i}}
		w.check(a.add(t.Context(), e))
	}
	for _, typ := range []desformat.RecordType{desformat.TypeTombstone, desformat.TypeVoid} {
		w.check(a.add(t.Context(), desformat.Entry{Record: desformat.Record{Type: typ}}))
	}
	w.check(a.flush(t.Context(), "files"))
	if !slices.Equal(table.batches, []int{source.MaxBatch, 7}) || a.records != n+2 {
		t.Errorf("batches = %v of %d records", table.batches, a.records)
	}
}

// Only the packer acknowledges while it holds the packing lease; a keeper
// takes over when that is gone.
func TestAbandonedPackIsTakenUp(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	k := w.keeper(nil)
	k.countAck(p.ID, 1) // the packer of this node is at it
	if tasks, _ := k.find(); len(tasks) != 1 || tasks[0].kind != raftmeta.JobVerify {
		t.Errorf("tasks = %v, want the verification alone", tasks)
	}
	k.countAck(p.ID, -1)
	if tasks, _ := k.find(); len(tasks) != 2 || tasks[0].kind != raftmeta.JobAck {
		t.Errorf("tasks = %v, want the acknowledgement first", tasks)
	}
	w.check(k.Once(t.Context()))
	w.wantRow("a", source.Packed, "")
	if !w.meta.View().Pack(p.ID).Acknowledged {
		t.Error("the pack is not acknowledged")
	}
}
