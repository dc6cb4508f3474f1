package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

func TestAcknowledgingWhenAsked(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	k := w.keeper(nil)
	if err := k.AcknowledgeNow(t.Context(), desformat.PackID{9}); !errors.Is(err, ErrNotLive) {
		t.Errorf("an unknown pack: %v", err)
	}
	for range 2 {
		w.check(k.AcknowledgeNow(t.Context(), p.ID))
	}
	if !w.meta.View().Pack(p.ID).Acknowledged {
		t.Error("not acknowledged")
	}
	w.wantRow("a", source.Packed, "")
}

// TestTroubleIsTold until what was asked for has mended it.
func TestTroubleIsTold(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	away := errors.New("the database is away")
	k := w.keeper(func(c *Config) { c.Sources[0].Rows = deafTable{c.Sources[0].Rows, &away} })
	if err := k.Once(t.Context()); !errors.Is(err, away) {
		t.Fatalf("once: %v", err)
	}
	if err := k.Trouble(raftmeta.JobAck, p.ID); !errors.Is(err, away) {
		t.Errorf("trouble: %v", err)
	}
	if err := k.AcknowledgeNow(t.Context(), p.ID); !errors.Is(err, away) {
		t.Errorf("acknowledged: %v", err)
	}
	lost := away
	away = nil
	w.check(k.AcknowledgeNow(t.Context(), p.ID))
	if err := k.Trouble(raftmeta.JobAck, p.ID); err != nil {
		t.Errorf("trouble after %v is over: %v", lost, err)
	}
}

// deafTable refuses to acknowledge while err says so.
type deafTable struct {
	source.Table
	err *error
}

func (d deafTable) Acknowledge(ctx context.Context, acks []source.Ack, most int, at time.Time) ([]source.AckResult, error) {
	if *d.err != nil {
		return nil, *d.err
	}
	return d.Table.Acknowledge(ctx, acks, most, at)
}

// TestCollectingWhenAsked keeps to the rules of age and fence, and stands in the
// audit log.
func TestCollectingWhenAsked(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("torn"))
	k := w.keeper(nil)
	w.check(k.CollectNow(t.Context()))
	if n := len(w.meta.View().Uploads()); n != 1 {
		t.Fatalf("young garbage was collected: %d uploads", n)
	}
	w.clock.advance(25 * time.Hour)
	w.check(k.CollectNow(t.Context()))
	list, err := k.Quarantined(w.meta.View())
	w.check(err)
	if len(list) != 1 || list[0].Key != key || list[0].Kept != "" || list[0].Expires.Sub(list[0].Since) != quarantineAge {
		t.Fatalf("in quarantine: %+v", list)
	}
	if _, err := w.folder.Head(t.Context(), list[0].Place, ""); err != nil {
		t.Errorf("not there: %v", err)
	}
	w.clock.advance(quarantineAge + time.Hour)
	w.check(k.CollectNow(t.Context()))
	if _, err := w.folder.Head(t.Context(), list[0].Place, ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	w.wantAudited(auditCollected, key)
	w.wantAudited(auditExpired, key)
}

func (w *world) wantAudited(event, key string) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "data", auditName))
	w.check(err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, `"event":"`+event+`"`) && strings.Contains(line, key) {
			return
		}
	}
	w.t.Errorf("the audit log has no %s of %s:\n%s", event, key, b)
}

// TestAbortingWhenAsked ends no upload that may yet become a pack.
func TestAbortingWhenAsked(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	old := w.clock.Now().Add(-25 * time.Hour)
	key := p.Copies[0].Key
	newer := errors.New("a newer generation lives")
	for _, tc := range []struct {
		name string
		u    store.Upload
		edit func(*Config)
		err  error
	}{
		{"left open by a crash", store.Upload{Key: key, ID: "1", Begun: old}, nil, nil},
		{"young", store.Upload{Key: key, ID: "1", Begun: w.clock.Now()}, nil, errKept},
		{"its lease may live", store.Upload{Key: desformat.PackKey(desformat.Range{}, desformat.Token{Generation: 1, Index: 1 << 40}, p.ID), ID: "1", Begun: old}, nil, errKept},
		{"of a later generation", store.Upload{Key: desformat.PackKey(desformat.Range{}, desformat.Token{Generation: 2, Index: 1}, p.ID), ID: "1", Begun: old}, nil, errKept},
		{"no pack's key", store.Upload{Key: "packs/x", ID: "1", Begun: old}, nil, desformat.ErrBadID},
		{"superseded", store.Upload{Key: key, ID: "1", Begun: old}, func(c *Config) { c.Current = func(context.Context) error { return newer } }, newer},
		{"a store without uploads", store.Upload{Key: key, ID: "1", Begun: old}, func(c *Config) { c.Uploads = nil }, errors.ErrUnsupported},
	} {
		t.Run(tc.name, func(t *testing.T) {
			open := &openUploads{open: []store.Upload{tc.u}}
			k := w.keeper(func(c *Config) {
				c.Uploads = open
				if tc.edit != nil {
					tc.edit(c)
				}
			})
			if err := k.AbortNow(t.Context(), tc.u); !errors.Is(err, tc.err) {
				t.Errorf("err = %v, want %v", err, tc.err)
			}
			if ended := len(open.aborted) == 1; ended != (tc.err == nil) {
				t.Errorf("ended: %v", ended)
			}
		})
	}
	w.wantAudited(auditAborted, key)
}

// TestSettlingWhenAsked deletes nothing: what is hidden comes back.
func TestSettlingWhenAsked(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a", "b")
	cut := errors.New("killed")
	k := w.keeper(func(c *Config) { c.Sources[0].Files = killedFiles{c.Sources[0].Files, cut} })
	if err := k.Once(t.Context()); !errors.Is(err, cut) {
		t.Fatalf("once: %v", err)
	}
	if n := len(k.CutDeletions()); n == 0 || len(w.hidden()) != n {
		t.Fatalf("%d deletions cut, %d files hidden", n, len(w.hidden()))
	}
	w.check(k.SettleNow(t.Context(), p.ID))
	if cut := k.CutDeletions(); len(cut) != 0 {
		t.Errorf("left: %+v", cut)
	}
	for _, name := range []string{"a", "b"} {
		w.wantFile(w.path(name), "content of "+name)
		w.wantRow(name, source.Packed, "")
	}
	w.check(k.SettleNow(t.Context(), p.ID))
	w.check(k.SettleNow(t.Context(), desformat.PackID{9}))
}

// killedFiles are originals whose removal is cut.
type killedFiles struct {
	source.Originals
	err error
}

func (f killedFiles) Remove(context.Context, string, source.Info) error { return f.err }
