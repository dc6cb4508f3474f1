package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/source"
)

// wantSafe holds the first promise at any moment: the content stands at the
// path, or in quarantine, or it can be read from a verified pack.
func (w *world) wantSafe(name, content string) {
	w.t.Helper()
	if b, err := os.ReadFile(w.path(name)); err == nil && string(b) == content {
		return
	}
	for _, h := range w.hidden() {
		if b, err := os.ReadFile(h); err == nil && string(b) == content {
			return
		}
	}
	p := w.meta.View().Pack(w.row(name).Pack)
	if p == nil || verifiedAt(p).IsZero() || !undamaged(p) {
		w.t.Errorf("%s is gone and its pack is not proven", name)
		return
	}
	if got, err := w.stored(p, name); got != content || err != nil {
		w.t.Errorf("%s is gone and its pack gives %q, %v", name, got, err)
	}
}

// crashModes are the ways to fail: a crash before a call is one after the call
// before it.
var crashModes = map[string]fault{
	"not applied": notApplied, "applied but failed": appliedFailed, "crash after": crashAfter,
}

// reads change nothing: whether they were applied makes no difference.
var reads = []string{
	"rows.Deletable", "rows.Sharing", "rows.ByID", "files.Open", "files.OpenHidden", "files.Same", "files.VersionGone",
	"store.Get", "store.Head", "meta.Confirm", "meta.AppliedEverywhere",
}

// failureTable runs job once to learn its calls, then in a fresh world for
// each call and each way it can fail, and then again, with a fresh keeper and
// no fault.
func failureTable(t *testing.T, prepare, job, during, end func(w *world)) {
	t.Helper()
	w := newWorld(t)
	prepare(w)
	w.faults.reset()
	job(w)
	calls := slices.Clone(w.faults.calls)
	end(w)
	if testing.Short() {
		t.Log("-short: only the run without faults")
		return
	}
	if len(calls) < 3 {
		t.Fatalf("calls = %q: the job does nothing", calls)
	}
	for i, op := range calls {
		for mode, f := range crashModes {
			if f == appliedFailed && slices.Contains(reads, op) {
				continue
			}
			t.Run(fmt.Sprintf("%02d %s %s", i+1, op, mode), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				prepare(w)
				w.faults.reset()
				w.faults.after = func(string) { during(w) }
				w.faults.at, w.faults.mode = i+1, f
				job(w)
				during(w)
				w.faults.reset()
				w.faults.after = func(string) { during(w) }
				job(w)
				w.faults.reset()
				end(w)
			})
		}
	}
}

// tryOnce runs a fresh keeper, whatever comes of it but errors of its own.
func tryOnce(w *world) {
	w.t.Helper()
	k, err := New(w.config())
	w.check(err)
	err = k.Once(w.t.Context())
	w.check(k.Close())
	if err != nil && !errors.Is(err, errInjected) && !errors.Is(err, errCrashed) &&
		!errors.Is(err, errNotSafe) && !errors.Is(err, errHalfDone) {
		w.t.Errorf("Once = %v", err)
	}
}

func TestDeletionSurvivesEveryFault(t *testing.T) {
	failureTable(t,
		func(w *world) { w.archived("sub/a") },
		tryOnce,
		func(w *world) { w.wantSafe("sub/a", "content of sub/a") },
		func(w *world) {
			w.wantFile(w.path("sub/a"), "")
			w.wantRow("sub/a", source.DeletedSource, "")
			if h := w.hidden(); len(h) > 0 {
				w.t.Errorf("left behind: %q", h)
			}
			w.wantNoIntents()
		})
}

func TestPutBackSurvivesEveryFault(t *testing.T) {
	const edited = "CONTENT of sub/a"
	failureTable(t,
		func(w *world) {
			w.archived("sub/a")
			w.edit(w.path("sub/a"), edited)
		},
		tryOnce,
		func(w *world) {
			at, err := os.ReadFile(w.path("sub/a"))
			hidden := ""
			for _, h := range w.hidden() {
				b, err := os.ReadFile(h)
				w.check(err)
				hidden = string(b)
			}
			if (err != nil || string(at) != edited) && hidden != edited {
				w.t.Errorf("the edited original is lost: %q, %v", at, err)
			}
		},
		func(w *world) {
			w.wantFile(w.path("sub/a"), edited)
			w.wantRow("sub/a", source.Packed, source.CodeDiffers)
			w.wantNoIntents()
		})
}

// wantNoIntents holds the audit log against half-done deletions.
func (w *world) wantNoIntents() {
	w.t.Helper()
	k := w.keeper(nil)
	if open := k.audit.packs(); len(open) > 0 {
		w.t.Errorf("open intents: %v", k.audit.open)
	}
}

// A row that the source system changed while its original was hidden by a
// deletion that was cut: the file must be at its path again.
func TestOriginalOfAChangedRowLeavesQuarantine(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(w *world)
		edit   func(*Config)
		state  source.State
		code   string
	}{
		{"row is ACTIVE again", func(w *world) {
			res, err := w.rows.Register(w.t.Context(), []source.File{{Name: "sub/a", Path: w.path("sub/a"), Size: 5, ModTime: w.clock.Now()}})
			w.check(err)
			if res[0] != source.RegisteredChanged {
				w.t.Fatalf("Register = %v", res[0])
			}
		}, nil, source.Active, ""},
		{"deletion was switched off", func(*world) {}, func(c *Config) { c.DeleteSource = false }, source.Packed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("sub/a")
			w.faults.reset()
			w.dieAfter("files.Hide")
			tryOnce(w)
			if h := w.hidden(); len(h) != 1 {
				t.Fatalf("hidden = %q, want the original", h)
			}
			w.faults.reset()
			tc.change(w)
			w.once(tc.edit)
			w.wantFile(w.path("sub/a"), "content of sub/a")
			w.wantRow("sub/a", tc.state, tc.code)
			if r := w.row("sub/a"); r.Claim != "" {
				t.Errorf("the row is still claimed by %s", r.Claim)
			}
			w.wantNoIntents()
		})
	}
}

// dieAfter makes the process die right after the first such call.
func (w *world) dieAfter(op string) {
	w.faults.after = func(o string) {
		if o == op {
			w.faults.mu.Lock()
			w.faults.dead = true
			w.faults.mu.Unlock()
		}
	}
}

func TestSettlingOverwritesNothing(t *testing.T) {
	w := newWorld(t)
	w.archived("sub/a")
	w.faults.reset()
	w.dieAfter("files.Hide")
	tryOnce(w)
	w.faults.reset()
	w.write(w.path("sub/a"), "a new file")
	w.once(func(c *Config) { c.DeleteSource = false })
	w.wantFile(w.path("sub/a"), "a new file")
	w.wantFile(w.path("sub/a.desnode-kept-1"), "content of sub/a")
	if h := w.hidden(); len(h) > 0 {
		t.Errorf("still hidden: %q", h)
	}
	w.wantNoIntents()
}

func TestAcknowledgingSurvivesEveryFault(t *testing.T) {
	failureTable(t,
		func(w *world) {
			w.register("a", "b")
			w.pack()
		},
		func(w *world) {
			w.noDelete = true
			tryOnce(w)
		},
		func(*world) {},
		func(w *world) {
			w.wantRow("a", source.Packed, "")
			w.wantRow("b", source.Packed, "")
			p := w.meta.View().Pack(w.row("a").Pack)
			if !p.Acknowledged || len(p.Dead) != 0 || verifiedAt(p).IsZero() || !undamaged(p) {
				w.t.Errorf("pack = %+v", p)
			}
		})
}

// A file system gives the inode of a removed file to the next one. While the
// row of the removed file is not moved on yet, the new file's row seems to
// share it: that is no reason to keep the new file for ever.
func TestReusedInodeIsNotASharedFile(t *testing.T) {
	w := newWorld(t)
	w.src.Files = oneInode{w.src.Files}
	w.oneInode = true
	w.archived("sub/a")
	w.faults.reset()
	w.faults.on = func(op string) error {
		if op == "rows.Deleted" {
			return errInjected
		}
		return nil
	}
	tryOnce(w)
	w.wantFile(w.path("sub/a"), "")
	w.wantRow("sub/a", source.Packed, "")
	w.archived("sub/b")
	if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, errHalfDone) {
		t.Errorf("Once = %v, want errHalfDone", err)
	}
	w.wantFile(w.path("sub/b"), "content of sub/b")
	w.wantRow("sub/b", source.Packed, "")
	if r := w.row("sub/b"); r.Claim != "" {
		t.Errorf("sub/b is claimed by %s", r.Claim)
	}
	w.faults.reset()
	tryOnce(w) // in either order
	tryOnce(w)
	w.wantRow("sub/a", source.DeletedSource, "")
	w.wantRow("sub/b", source.DeletedSource, "")
	w.wantNoIntents()
}

// oneInode says that every file has the same inode.
type oneInode struct{ source.Originals }

const theInode = "1:1"

func (o oneInode) Open(ctx context.Context, path string) (source.Original, error) {
	return withInode(o.Originals.Open(ctx, path))
}

func (o oneInode) OpenHidden(ctx context.Context, path string) (source.Original, error) {
	return withInode(o.Originals.OpenHidden(ctx, path))
}

// Remove gives the file its own inode back.
func (o oneInode) Remove(ctx context.Context, path string, judged source.Info) error {
	f, err := o.Originals.OpenHidden(ctx, path)
	if err != nil {
		return err
	}
	judged.FileID = f.Info().FileID
	return errors.Join(f.Close(), o.Originals.Remove(ctx, path, judged))
}

func withInode(o source.Original, err error) (source.Original, error) {
	if err != nil {
		return nil, err
	}
	return inodeOriginal{o}, nil
}

type inodeOriginal struct{ source.Original }

func (o inodeOriginal) Info() source.Info {
	i := o.Original.Info()
	i.FileID = theInode
	return i
}

// The row was moved on, the audit log does not say so yet.
func TestAuditLogCatchesUpWithTheRow(t *testing.T) {
	w := newWorld(t)
	w.archived("sub/a")
	k := w.keeper(nil)
	ro, err := os.Open(filepath.Join(w.dir, "data", auditName))
	w.check(err)
	w.faults.after = func(op string) {
		if op == "files.Remove" { // what follows can't be written
			w.check(k.audit.f.Close())
			k.audit.f = ro
		}
	}
	if err := k.Once(t.Context()); err == nil {
		t.Error("Once found nothing wrong")
	}
	w.wantRow("sub/a", source.DeletedSource, "")
	w.faults.reset()
	w.once(nil)
	audit, err := os.ReadFile(filepath.Join(w.dir, "data", auditName))
	w.check(err)
	if n := strings.Count(string(audit), `"event":"deleted"`); n != 1 {
		t.Errorf("%d deletions in the audit log, want 1", n)
	}
	w.wantNoIntents()
}
