package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

func TestOriginalIsDeletedOnceProven(t *testing.T) {
	w := newWorld(t)
	names := []string{"a", "b/c", "empty"}
	w.register("a", "b/c")
	w.write(w.path("empty"), "")
	w.registerIn(w.rows, w.root, "empty")
	p := w.archive()
	w.once(nil)
	for _, n := range names {
		w.wantFile(w.path(n), "")
		w.wantRow(n, source.DeletedSource, "")
	}
	if got, err := w.stored(p, "b/c"); got != "content of b/c" || err != nil {
		t.Errorf("stored b/c = %q, %v", got, err)
	}
	if h := w.hidden(); len(h) > 0 {
		t.Errorf("left behind: %q", h)
	}
	if n := strings.Count(w.log.String(), `"msg":"source deleted"`); n != len(names) {
		t.Errorf("%d deletions logged, want %d", n, len(names))
	}
	audit, err := os.ReadFile(filepath.Join(w.dir, "data", auditName))
	w.check(err)
	for _, event := range []string{auditIntent, auditDeleted} {
		if n := strings.Count(string(audit), `"event":"`+event+`"`); n != len(names) {
			t.Errorf("%d audit events %s, want %d", n, event, len(names))
		}
	}
}

// Each case spoils one condition of DESIGN.md §4.9: the original must stand
// untouched, and go when the condition is met.
func TestDeletionWaitsFor(t *testing.T) {
	for _, tc := range []struct {
		name  string
		block func(w *world, c *Config)
		meet  func(w *world)
	}{
		{
			name:  "the switch",
			block: func(_ *world, c *Config) { c.DeleteSource = false },
		},
		{
			name:  "the grace",
			block: func(_ *world, c *Config) { c.DeleteGrace = 48 * time.Hour },
			meet:  func(w *world) { w.clock.advance(72 * time.Hour) },
		},
		{
			name: "every member to apply the pack",
			block: func(w *world, c *Config) {
				c.Manifest = laggingMember{c.Manifest}
			},
		},
		{
			name: "a verification",
			block: func(w *world, _ *Config) {
				w.faults.on = func(op string) error {
					if op == "store.Get" {
						return errInjected
					}
					return nil
				}
			},
			meet: func(w *world) { w.faults.reset() },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			k := w.keeper(func(c *Config) { tc.block(w, c) })
			if err := k.Once(t.Context()); err != nil && !errors.Is(err, errInjected) && !errors.Is(err, errNotSafe) {
				t.Fatal(err)
			}
			w.wantFile(w.path("a"), "content of a")
			w.wantRow("a", source.Packed, "")
			if slices.ContainsFunc(w.faults.calls, func(op string) bool { return op == "files.Hide" || op == "rows.Claim" }) {
				t.Error("the original was touched")
			}
			if tc.meet != nil {
				tc.meet(w)
			}
			w.once(nil)
			w.wantFile(w.path("a"), "")
			w.wantRow("a", source.DeletedSource, "")
		})
	}
}

type laggingMember struct{ Manifest }

func (laggingMember) AppliedEverywhere(uint64) bool { return false }

// A pack that was acknowledged late: the grace is the rows', not the pack's.
func TestGraceCountsFromWhenTheRowWasPacked(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	w.clock.advance(2 * time.Hour)
	w.check(w.keeper(nil).Acknowledge(t.Context(), p))
	w.once(nil)
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	w.clock.advance(61 * time.Minute)
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}

func TestDeletionNeedsVerificationWithin24h(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	k := w.keeper(nil)
	if _, err := k.verify(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(25 * time.Hour)
	if _, err := k.maySafelyDelete(p.ID); !errors.Is(err, errNotSafe) {
		t.Errorf("25 h after the verification: %v, want errNotSafe", err)
	}
	w.faults.reset()
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
	read, hid := slices.Index(w.faults.calls, "meta.VerifyPack"), slices.Index(w.faults.calls, "files.Hide")
	if read < 0 || read > hid {
		t.Errorf("verified at call %d, hidden at call %d: want a new verification first", read, hid)
	}
}

func TestVerificationThatRunsOutInMidPassStopsIt(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.faults.on = func(op string) error {
		if op == "files.Hide" {
			w.clock.advance(30 * time.Hour)
		}
		return nil
	}
	if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, errNotSafe) {
		t.Errorf("Once = %v, want errNotSafe", err)
	}
	if slices.Contains(w.faults.calls, "files.Remove") {
		t.Error("removed on a verification of 30 h ago")
	}
	w.wantFile(w.path("a"), "content of a")
	w.faults.reset()
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}

func TestDamagedPackKeepsItsOriginals(t *testing.T) {
	for _, when := range []string{"before", "meanwhile"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a", "b")
			switch when {
			case "before":
				w.spoil(p, p.Catalog.Offset-3)
			case "meanwhile":
				w.faults.on = func(op string) error {
					if op == "files.Hide" {
						seen := w.meta.View().Pack(p.ID).Copies[0]
						c := seen
						c.VerifiedAt, c.Damage = w.clock.Now(), "found by another node"
						w.check(w.meta.VerifyPack(t.Context(), p.ID, seen, c))
					}
					return nil
				}
			}
			err := w.keeper(nil).Once(t.Context())
			if (when == "meanwhile") != errors.Is(err, errNotSafe) {
				t.Errorf("Once = %v", err)
			}
			for _, n := range []string{"a", "b"} {
				w.wantFile(w.path(n), "content of "+n)
				w.wantRow(n, source.Packed, "")
			}
			if h := w.hidden(); len(h) > 0 {
				t.Errorf("still hidden: %q", h)
			}
			if d := w.meta.View().Pack(p.ID).Copies[0].Damage; d == "" {
				t.Error("the damage is not recorded")
			}
		})
	}
}

func TestEditedOriginalIsPutBack(t *testing.T) {
	for _, tc := range []struct{ name, content string }{
		{"same size and mtime", "CONTENT of a"},
		{"longer", "content of a and more"},
		{"empty", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a", "b")
			if len(tc.content) == len("content of a") {
				w.edit(w.path("a"), tc.content)
			} else {
				w.write(w.path("a"), tc.content)
			}
			w.once(nil)
			if b, err := os.ReadFile(w.path("a")); string(b) != tc.content || err != nil {
				t.Errorf("a holds %q, %v; want %q", b, err, tc.content)
			}
			w.wantRow("a", source.Packed, source.CodeDiffers)
			w.wantRow("b", source.DeletedSource, "")
			if got, err := w.stored(p, "a"); got != "content of a" || err != nil {
				t.Errorf("stored a = %q, %v", got, err)
			}
			if h := w.hidden(); len(h) > 0 {
				t.Errorf("still hidden: %q", h)
			}
		})
	}
}

func TestEditDuringQuarantineIsPutBack(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.faults.after = func(op string) {
		if op == "files.Hide" {
			w.edit(w.hidden()[0], "Xontent of a")
		}
	}
	w.once(nil)
	w.wantFile(w.path("a"), "Xontent of a")
	w.wantRow("a", source.Packed, source.CodeDiffers)
}

func TestEditWhileItIsReadIsPutBack(t *testing.T) {
	w := newWorld(t)
	w.archived("sub/a")
	w.src.Files = editedWhileRead{w.src.Files, func() { w.edit(w.hidden()[0], "CONTENT of sub/a") }}
	w.once(nil)
	w.wantFile(w.path("sub/a"), "CONTENT of sub/a")
	w.wantRow("sub/a", source.Packed, source.CodeDiffers)
}

// editedWhileRead edits a quarantined file after its bytes were read, before
// the reader looks at it again.
type editedWhileRead struct {
	source.Originals
	edit func()
}

func (e editedWhileRead) OpenHidden(ctx context.Context, path string) (source.Original, error) {
	o, err := e.Originals.OpenHidden(ctx, path)
	if err != nil {
		return nil, err
	}
	return &readThenEdited{Original: o, edit: e.edit}, nil
}

type readThenEdited struct {
	source.Original
	edit func()
}

func (r *readThenEdited) Read(b []byte) (int, error) {
	n, err := r.Original.Read(b)
	if n > 0 && r.edit != nil {
		r.edit()
		r.edit = nil
	}
	return n, err
}

func TestPutBackOverwritesNothing(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.edit(w.path("a"), "CONTENT of a")
	w.faults.after = func(op string) {
		if op == "files.Hide" {
			w.write(w.path("a"), "a new file")
		}
	}
	w.once(nil)
	w.wantFile(w.path("a"), "a new file")
	kept := w.path("a.desnode-kept-1") // where the next import finds it
	w.wantFile(kept, "CONTENT of a")
	if h := w.hidden(); len(h) > 0 {
		t.Errorf("still hidden: %q", h)
	}
	w.wantRow("a", source.Packed, "") // the verdict was on the file that is kept
	if audit, err := os.ReadFile(filepath.Join(w.dir, "data", auditName)); err != nil || !strings.Contains(string(audit), kept) {
		t.Errorf("the audit log does not say where the original is: %v", err)
	}
	w.faults.reset()
	w.once(nil)
	w.wantRow("a", source.Packed, source.CodeDiffers) // and this one is on the file at its path
	// And nothing later touches either.
	w.clock.advance(100 * time.Hour)
	w.once(nil)
	w.wantFile(w.path("a"), "a new file")
	w.wantFile(kept, "CONTENT of a")
}

// A node was killed after it had hidden the first version, and the customer put
// a second one in its place: what that node left is kept, and the second one is
// judged for itself.
func TestLeftoverOfAnEarlierVersionKeepsNoOther(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.check(w.src.Files.Hide(t.Context(), w.path("a"))) // by the other node: this one's log says nothing
	w.write(w.path("a"), "the second version")
	if r := w.importFile("a"); r != source.RegisteredChanged {
		t.Fatalf("Register = %v", r)
	}
	w.mark(w.rows)
	p := w.archive()
	w.once(nil)
	kept := w.path("a.desnode-kept-1")
	w.wantFile(kept, "content of a")
	w.wantFile(w.path("a"), "the second version") // not yet judged
	w.wantRow("a", source.Packed, "")
	w.once(nil)
	w.wantFile(w.path("a"), "")
	w.wantFile(kept, "content of a")
	w.wantRow("a", source.DeletedSource, "")
	w.wantNoIntents()
	if got, err := w.stored(p, "a"); got != "the second version" || err != nil {
		t.Errorf("stored a = %q, %v", got, err)
	}
	audit, err := os.ReadFile(filepath.Join(w.dir, "data", auditName))
	if err != nil || !strings.Contains(string(audit), kept) {
		t.Errorf("the audit log does not say where the leftover is: %v", err)
	}
}

func TestNewFileAtThePathIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.faults.after = func(op string) {
		if op == "files.Hide" {
			w.write(w.path("a"), "a new file")
		}
	}
	w.once(nil)
	w.wantFile(w.path("a"), "a new file")
	w.wantRow("a", source.DeletedSource, "")
	if h := w.hidden(); len(h) > 0 {
		t.Errorf("still hidden: %q", h)
	}
}

func TestOriginalGoneByItselfIsNotCalledDeleted(t *testing.T) {
	w := newWorld(t)
	w.archived("sub/a")
	w.check(os.Remove(w.path("sub/a")))
	w.once(nil)
	w.wantRow("sub/a", source.Packed, source.CodeNoFile)
}

func TestMissingRootIsNotAMissingFile(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	away := w.root + ".away"
	w.check(os.Rename(w.root, away))
	if err := w.keeper(nil).Once(t.Context()); err == nil {
		t.Error("Once found nothing wrong without the root")
	}
	w.wantRow("a", source.Packed, "")
	w.check(os.Rename(away, w.root))
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}

func TestDeadRecordProvesNothing(t *testing.T) {
	w := newWorld(t)
	w.register("a", "b")
	p := w.pack()
	w.check(w.keeper(nil).Acknowledge(t.Context(), p))
	w.clock.advance(2 * time.Hour)
	p = w.meta.View().Pack(p.ID)
	dead := *p
	dead.Dead = []uint32{0, 1}
	k := w.keeper(nil)
	d := &deletion{k: k, pack: p.ID, claim: "1-1"}
	rows, err := d.due(t.Context(), w.src, "")
	if err != nil || len(rows) != 2 {
		t.Fatalf("due = %d rows, %v", len(rows), err)
	}
	byID := map[string]*candidate{}
	for _, r := range rows {
		byID[r.ID] = &candidate{row: r}
	}
	w.check(d.match(t.Context(), &dead, "files", byID))
	for _, c := range byID {
		if c.found {
			t.Error("a dead record was taken for the row's")
		}
		if outcome, err := d.deleteOriginal(t.Context(), w.src, c); outcome != outcomeNoRecord || err != nil {
			t.Errorf("deleteOriginal = %s, %v", outcome, err)
		}
		w.wantRow(c.row.DesName, source.Packed, source.CodeNoRecord)
	}
	if rows, err := d.due(t.Context(), w.src, ""); err != nil || len(rows) != 0 {
		t.Errorf("due = %d rows, %v: they come up again with every pass", len(rows), err)
	}
	w.wantFile(w.path("a"), "content of a")
	w.check(d.match(t.Context(), p, "other", byID))
	for _, c := range byID {
		if c.found {
			t.Error("another source's record was taken for the row's")
		}
	}
}

func TestRowThatChangedSinceKeepsItsOriginal(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.faults.on = func(op string) error {
		if op == "rows.Claim" { // listed as PACKED, ACTIVE again before it is claimed
			w.faults.on = nil
			w.write(w.path("a"), "a newer version")
			w.registerAgain("a")
		}
		return nil
	}
	w.once(nil)
	w.wantFile(w.path("a"), "a newer version")
	w.wantRow("a", source.Active, "")
}

// registerAgain tells the source of a file's new size and time.
func (w *world) registerAgain(name string) {
	w.t.Helper()
	fi, err := os.Stat(w.path(name))
	w.check(err)
	res, err := w.rows.Register(w.t.Context(), []source.File{{Name: name, Path: w.path(name), Size: fi.Size(), ModTime: fi.ModTime().Add(time.Second)}})
	w.check(err)
	if res[0] != source.RegisteredChanged {
		w.t.Fatalf("Register = %v, want changed", res[0])
	}
}

func TestLostLeaseStopsDeletion(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	ctx, lose := context.WithCancelCause(t.Context())
	w.faults.after = func(op string) {
		if op == "files.Hide" {
			lose(raftmeta.ErrStale)
		}
	}
	if err := w.keeper(nil).Once(ctx); err == nil {
		t.Error("Once went on without a lease")
	}
	if slices.Contains(w.faults.calls, "files.Remove") {
		t.Error("removed without a lease")
	}
	w.faults.after = nil
	w.once(nil)
	w.wantFile(w.path("a"), "")
	w.wantRow("a", source.DeletedSource, "")
}

// A row that was edited by hand after its original was hidden matches its
// record no more: the original goes back, once, and the keeper comes to rest.
func TestHalfDoneDeletionWithoutARecordIsUndone(t *testing.T) {
	w := newWorld(t)
	w.archived("sub/a")
	w.dieAfter("files.Hide")
	tryOnce(w)
	w.faults.reset()
	w.src.Rows = otherSize{w.src.Rows}
	w.once(nil)
	w.wantFile(w.path("sub/a"), "content of sub/a")
	w.wantNoIntents()
}

type otherSize struct{ source.Table }

func (o otherSize) Deletable(ctx context.Context, p desformat.PackID, before time.Time, after string, n int) ([]source.Row, error) {
	rows, err := o.Table.Deletable(ctx, p, before, after, n)
	for i := range rows {
		rows[i].Size++
	}
	return rows, err
}
