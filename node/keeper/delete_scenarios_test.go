package keeper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// importFile registers a file as an import finds it, without its inode, as a
// source system does.
func (w *world) importFile(name string) source.Registered {
	w.t.Helper()
	path := w.path(name)
	fi, err := os.Stat(path)
	w.check(err)
	r, err := w.rows.Register(w.t.Context(), []source.File{{Name: name, Path: path, Size: fi.Size(), ModTime: fi.ModTime()}})
	w.check(err)
	return r[0]
}

func (w *world) appendTo(path, line string) {
	w.t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	w.check(err)
	_, err = f.WriteString(line)
	w.check(errors.Join(err, f.Close()))
}

// Whoever has a file open may write to it at any moment, after the last look
// at its bytes as well.
func TestOriginalOpenForWritingStays(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "zz")
	f, err := os.OpenFile(w.path("a"), os.O_APPEND|os.O_WRONLY, 0)
	w.check(err)
	w.once(nil)
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "") // it may be closed unwritten: asked again later
	w.wantRow("zz", source.DeletedSource, "")
	w.wantNoIntents()
	w.check(f.Close())
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}

func TestOriginalOpenedBetweenHashAndUnlink(t *testing.T) {
	for _, tc := range []struct {
		name  string
		close bool
		want  string
		code  string
	}{
		{"still open", false, "content of a", ""},
		{"written and closed", true, "content of a, a late line", source.CodeDiffers},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			w.faults.on = func(op string) error {
				if op != "files.Remove" {
					return nil
				}
				f, err := os.OpenFile(w.hidden()[0], os.O_APPEND|os.O_WRONLY, 0)
				w.check(err)
				late := func() { // a late line, and done
					_, err := f.WriteString(", a late line")
					w.check(errors.Join(err, f.Close()))
				}
				if tc.close {
					late()
				} else {
					t.Cleanup(func() {
						late()
						w.wantFile(w.path("a"), "content of a, a late line")
					})
				}
				return nil
			}
			w.once(nil)
			w.wantFile(w.path("a"), tc.want)
			w.wantRow("a", source.Packed, tc.code)
			if c := w.row("a").Claim; c != "" {
				t.Errorf("the row is still claimed by %s", c)
			}
			w.wantNoIntents()
		})
	}
}

// A file that grew since it was archived is never renamed away: whoever writes
// to it by name would make a new one meanwhile.
func TestAppendedOriginalIsNotHidden(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "zz")
	w.appendTo(w.path("a"), ", line 2")
	w.faults.reset()
	w.once(nil)
	w.wantFile(w.path("a"), "content of a, line 2")
	w.wantRow("a", source.Packed, source.CodeDiffers)
	if n := count(w.faults.calls, "files.Hide"); n != 1 {
		t.Errorf("%d files were hidden, want zz alone", n)
	}
	// The next version has its own life, to its end.
	if r := w.importFile("a"); r != source.RegisteredChanged {
		t.Fatalf("Register = %v", r)
	}
	w.mark(w.rows)
	p := w.archive()
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
	w.wantFile(w.path("a"), "")
	if got, err := w.stored(p, "a"); got != "content of a, line 2" || err != nil {
		t.Errorf("stored a = %q, %v", got, err)
	}
}

// Touched and imported while its deletion is under way: the row lists another
// version by now, which is archived anew.
func TestOriginalTouchedWhileDeletingStays(t *testing.T) {
	for _, at := range []string{"files.Hide", "files.OpenHidden"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			w.faults.on = func(op string) error {
				if op != at || len(w.hidden()) > 0 {
					return nil
				}
				w.faults.on = nil
				now := time.Now().Add(-time.Minute)
				w.check(os.Chtimes(w.path("a"), now, now))
				if r := w.importFile("a"); r != source.RegisteredChanged {
					t.Errorf("Register = %v", r)
				}
				return nil
			}
			w.once(nil)
			w.wantFile(w.path("a"), "content of a")
			w.wantRow("a", source.Active, "")
			w.wantNoIntents()
		})
	}
}

// Touched after it was hidden, by whoever has it open to read: the next import
// would take it for a new version, so it must still be there.
func TestHiddenOriginalThatWasTouchedIsPutBack(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.faults.after = func(op string) {
		if op == "files.Hide" {
			now := time.Now().Add(-time.Minute)
			w.check(os.Chtimes(w.hidden()[0], now, now))
		}
	}
	w.once(nil)
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, source.CodeDiffers)
	w.wantNoIntents()
}

// The source system moves the row on while the hidden file is being read.
func TestRowThatMovedOnAfterTheHashKeepsItsOriginal(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	claims := 0
	w.faults.on = func(op string) error {
		if op != "rows.Claim" {
			return nil
		}
		if claims++; claims == 2 { // the last question before the unlink
			r := w.row("a")
			_, err := w.rows.Register(t.Context(), []source.File{{Name: "a", Path: r.Path, Size: r.Size, ModTime: r.ModTime.Add(time.Hour)}})
			w.check(err)
		}
		return nil
	}
	w.once(nil)
	if claims != 2 {
		t.Errorf("the row was asked for %d times, want twice", claims)
	}
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Active, "")
	w.wantNoIntents()
}

// Two rows reach one file through a linked folder, and the source system, which
// added the second, knows nothing of inodes.
func TestRowBehindALinkedFolderSharesTheFile(t *testing.T) {
	w := newWorld(t)
	w.archived("d/f", "other")
	w.check(os.Symlink("d", w.path("e")))
	w.importFile("e/f")
	w.once(nil)
	w.wantFile(w.path("d/f"), "content of d/f")
	w.wantRow("d/f", source.Packed, source.CodeShared)
	w.wantRow("other", source.DeletedSource, "")
	if id := w.row("e/f").FileID; id == "" || id != w.row("d/f").FileID {
		t.Errorf("e/f has the file id %q, d/f %q", id, w.row("d/f").FileID)
	}
}

// Which file a row reaches is forgotten when the row comes back: the file may
// have been replaced since.
func TestRowBehindALinkedFolderSharesTheFileThatReplacedIt(t *testing.T) {
	w := newWorld(t)
	w.archived("d/f")
	w.check(os.Symlink("d", w.path("e")))
	w.importFile("e/f")
	w.once(nil)
	w.wantRow("d/f", source.Packed, source.CodeShared)
	was := w.row("e/f").FileID

	w.write(w.path("d/new"), "what replaced d/f")
	w.check(os.Rename(w.path("d/new"), w.path("d/f")))
	if r := w.importFile("e/f"); r != source.RegisteredChanged {
		t.Fatalf("registered: %v", r)
	}
	if id := w.row("e/f").FileID; id != "" {
		t.Errorf("e/f has the file id %q still", id)
	}
	w.registerIn(w.rows, w.root, "d/f")
	w.archive()
	w.once(nil)
	w.wantFile(w.path("d/f"), "what replaced d/f")
	w.wantRow("d/f", source.Packed, source.CodeShared)
	if id := w.row("e/f").FileID; id == "" || id == was || id != w.row("d/f").FileID {
		t.Errorf("e/f has the file id %q, d/f %q", id, w.row("d/f").FileID)
	}
}

// A link that comes after the row: nothing about the row says so.
func TestRowBehindALinkThatCameLaterSharesTheFile(t *testing.T) {
	w := newWorld(t)
	w.archived("d/f")
	w.write(w.path("e/f"), "for a moment")
	w.importFile("e/f")
	w.check(os.RemoveAll(w.path("e")))
	w.check(w.rows.Identify(t.Context(), []source.Row{w.row("e/f")}, []string{source.NoFileID}))
	w.check(os.Symlink("d", w.path("e")))
	w.once(nil)
	w.wantFile(w.path("d/f"), "content of d/f")
	w.wantRow("d/f", source.Packed, source.CodeShared)
}

// A row whose file can't be told from others' keeps all originals; one without
// a file keeps none.
func TestRowsOfUnknownFilesKeepOriginals(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.write(w.path("new"), "")
	w.importFile("new")
	w.check(os.Remove(w.path("new")))
	other := w.mkdir("other")
	s, rows := w.newSource("more", w.root, other)
	w.more = append(w.more, s)
	_, err := rows.Register(t.Context(), []source.File{{Name: "x", Path: other + "/x", ModTime: w.clock.Now()}})
	w.check(err)
	if err := w.keeper(nil).Once(t.Context()); err == nil { // its root is empty: not mounted?
		t.Error("Once found nothing wrong")
	}
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	w.write(other+"/y", "")
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
	for _, r := range []source.Row{w.row("new"), w.rowIn(rows, "x")} {
		if r.FileID != source.NoFileID {
			t.Errorf("row %s has the file id %q", r.Name, r.FileID)
		}
	}
}

// A row that was marked again, found unchanged and acknowledged by its old
// record: its version is higher than the record's.
func TestRowAcknowledgedAgainIsDeletable(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	was := w.row("a")
	sum := w.catalog(p, "a").SHA256
	for _, at := range []time.Time{was.ModTime.Add(time.Hour), was.ModTime} { // touched, and touched back
		w.check(os.Chtimes(w.path("a"), at, at))
		if r := w.importFile("a"); r != source.RegisteredChanged {
			t.Fatalf("Register = %v", r)
		}
	}
	w.mark(w.rows)
	r := w.row("a")
	res, err := w.rows.Acknowledge(t.Context(), []source.Ack{{
		ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, SHA256: sum, Pack: p.ID,
	}}, 1, w.clock.Now())
	w.check(err)
	if res[0] != source.AckDone || r.Version != was.Version+1 {
		t.Fatalf("Acknowledge = %v, version %d after %d", res, r.Version, was.Version)
	}
	w.clock.advance(2 * time.Hour)
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
	w.wantFile(w.path("a"), "")
}

// catalog returns the entry of a name in a pack.
func (w *world) catalog(p *raftmeta.Pack, name string) desformat.Entry {
	w.t.Helper()
	for e, err := range desformat.ReadCatalog(w.t.Context(), objectFetcher{w.folder, p.Copies[0].Key, p.Copies[0].Version}, p.Catalog) {
		w.check(err)
		if e.Name == name {
			return e
		}
	}
	w.t.Fatalf("no record of %s", name)
	return desformat.Entry{}
}

// The last original of a flat root was removed, its row not yet moved on: the
// root is empty, and the same folder as when the original was hidden.
func TestLastOriginalOfARootEndsAfterACrash(t *testing.T) {
	for _, tc := range []struct {
		name    string
		remount bool
	}{{"the same folder", false}, {"another empty folder: an unmounted disk", true}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			w.faults.on = func(op string) error {
				if op == "rows.Deleted" {
					return errInjected
				}
				return nil
			}
			if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, errInjected) {
				t.Fatalf("Once = %v", err)
			}
			w.wantFile(w.path("a"), "")
			w.faults.reset()
			if tc.remount {
				w.check(os.Rename(w.root, w.root+".away"))
				w.check(os.Mkdir(w.root, 0o700))
				if err := w.keeper(nil).Once(t.Context()); err == nil {
					t.Error("Once found nothing wrong")
				}
				w.wantRow("a", source.Packed, "")
				w.check(os.Remove(w.root))
				w.check(os.Rename(w.root+".away", w.root))
			}
			w.once(nil)
			w.wantRow("a", source.DeletedSource, "")
			w.wantNoIntents()
		})
	}
}

// Originals that were replaced by links have errors of their own: they do not
// hold up the rest of their pack.
func TestUnfitOriginalsStarveNoOthers(t *testing.T) {
	w := newWorld(t)
	var links []string
	for i := range maxRowErrors + 1 {
		links = append(links, fmt.Sprintf("a%02d", i))
	}
	w.archived(append(links, "good")...)
	for _, n := range links {
		w.check(os.Rename(w.path(n), w.path("orig-"+n)))
		w.check(os.Symlink("orig-"+n, w.path(n)))
	}
	w.once(nil)
	w.wantRow("good", source.DeletedSource, "")
	for _, n := range links {
		w.wantRow(n, source.Packed, source.CodeNotRegular)
		w.wantFile(w.path("orig-"+n), "content of "+n)
	}
	w.wantNoIntents()
}

// A row that was put back to an older state, with its file, lists what a pack
// holds; but under its name another version is served.
func TestOriginalOfAnOlderVersionStays(t *testing.T) {
	for _, tc := range []struct {
		name  string
		newer *desformat.Header
		err   error
		state source.State
		code  string
	}{
		{"nothing newer", nil, nil, source.DeletedSource, ""},
		{"newer, other content", &desformat.Header{Record: desformat.Record{Type: desformat.TypeFile}}, nil, source.Packed, source.CodeDiffers},
		{"a tombstone", &desformat.Header{Record: desformat.Record{Type: desformat.TypeTombstone}}, nil, source.Packed, source.CodeDiffers},
		{"newer, the same content", &desformat.Header{
			Record: desformat.Record{Type: desformat.TypeFile, SHA256: sha256.Sum256([]byte("content of a"))},
		}, nil, source.DeletedSource, ""},
		{"nobody can tell", nil, store.ErrUnavailable, source.Packed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a")
			err := w.keeper(func(c *Config) {
				c.Newer = func(_ context.Context, name string, than desformat.Token) (*desformat.Header, error) {
					if name != "a" || than != p.Token {
						t.Errorf("asked for %q, newer than %s", name, than)
					}
					return tc.newer, tc.err
				}
			}).Once(t.Context())
			if !errors.Is(err, tc.err) {
				t.Errorf("once: %v, want %v", err, tc.err)
			}
			w.wantRow("a", tc.state, tc.code)
			if _, err := os.Stat(w.path("a")); tc.code != "" && err != nil {
				t.Errorf("at its path: %v", err)
			}
			w.once(nil) // now nobody is asked
			if tc.err != nil {
				w.wantRow("a", source.DeletedSource, "")
			}
			if h := w.hidden(); len(h) > 0 {
				t.Errorf("still hidden: %q", h)
			}
		})
	}
}
