package keeper

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

func openTestAudit(t *testing.T, path string) *auditLog {
	t.Helper()
	c := &clock{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	l, err := openAudit(folder(filepath.Dir(path)), c.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() }) // may be closed by the test
	return l
}

func mustAppend(t *testing.T, l *auditLog, event string, rec auditRecord) {
	t.Helper()
	if err := l.append(event, "", rec); err != nil {
		t.Fatal(err)
	}
}

func TestAuditLogRemembersOpenIntents(t *testing.T) {
	path := filepath.Join(t.TempDir(), auditName)
	l := openTestAudit(t, path)
	one, two := desformat.PackID{1}, desformat.PackID{2}
	a := auditRecord{Source: "s", ID: "1", Path: "/<a>&\n", Pack: one}
	b := auditRecord{Source: "s", ID: "2", Path: "/b", Pack: one}
	c := auditRecord{Source: "t", ID: "1", Path: "/<a>&\n", Pack: two}
	for _, r := range []auditRecord{a, b, c} {
		mustAppend(t, l, auditIntent, r)
	}
	for i, event := range []string{auditDeleted, auditGone, auditPutBack, auditKept, auditVoid} {
		r := auditRecord{Source: "u", ID: strconv.Itoa(i), Pack: two}
		mustAppend(t, l, auditIntent, r)
		mustAppend(t, l, event, r)
	}
	mustAppend(t, l, auditDeleted, b)
	again := openTestAudit(t, path)
	for _, l := range []*auditLog{l, again} {
		if got := l.intents(one); len(got) != 1 || got[0].key() != a.key() {
			t.Errorf("intents of pack 1 = %v", got)
		}
		if got := l.packs(); len(got) != 2 || !got[one] || !got[two] {
			t.Errorf("packs = %v", got)
		}
		if !l.isOpen(a) || l.isOpen(b) || !l.isOpen(c) {
			t.Errorf("open = %v", l.open)
		}
	}
}

func TestTornAuditLineIsCutAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), auditName)
	l := openTestAudit(t, path)
	a := auditRecord{Source: "s", ID: "1", Path: "/a"}
	mustAppend(t, l, auditIntent, a)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - 1 {
		torn := append(slices.Clone(whole), whole[:n+1]...)
		if n+1 == len(whole)-1 {
			torn = torn[:len(torn)-1] // never the newline: that would be a whole line
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openTestAudit(t, path)
		mustAppend(t, l, auditDeleted, a)
		again := openTestAudit(t, path)
		if len(again.open) != 0 {
			t.Fatalf("torn after %d bytes: open = %v", n+1, again.open)
		}
		_ = l.close()
		_ = again.close()
	}
}

func TestForeignAuditLogIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), auditName)
	if err := os.WriteFile(path, []byte("{}\nnot JSON\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAudit(folder(filepath.Dir(path)), time.Now); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("openAudit = %v, want line 2", err)
	}
}

func TestAuditLogRotatesOnlyWithoutOpenIntents(t *testing.T) {
	path := filepath.Join(t.TempDir(), auditName)
	l := openTestAudit(t, path)
	a := auditRecord{Source: "s", ID: "1", Path: "/a"}
	files := func() []string {
		f, err := filepath.Glob(path + "*")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	rotate := func(limit int64, want int) {
		t.Helper()
		if err := l.rotate(limit); err != nil {
			t.Fatal(err)
		}
		if f := files(); len(f) != want {
			t.Errorf("files = %q, want %d", f, want)
		}
	}
	mustAppend(t, l, auditIntent, a)
	rotate(1, 1)
	mustAppend(t, l, auditDeleted, a)
	rotate(1<<20, 1)
	rotate(1, 2)
	mustAppend(t, l, auditIntent, a)
	if l.emptied("") || l.emptied("1:2") {
		t.Error("a root is known below which nothing was deleted")
	}
	if lines := readLines(t, path); len(lines) != 1 || lines[0].Event != auditIntent {
		t.Errorf("new log = %v", lines)
	}
	if lines := readLines(t, files()[1]); len(lines) != 2 {
		t.Errorf("old log = %v", lines)
	}
}

// A root below which originals were deleted is known for ever, through
// restarts and rotations.
func TestAuditLogRemembersEmptiedRoots(t *testing.T) {
	path := filepath.Join(t.TempDir(), auditName)
	l := openTestAudit(t, path)
	for i, root := range []string{"1:2", "1:3", "", "1:2"} {
		rec := auditRecord{Source: "s", ID: strconv.Itoa(i), Path: "/a", Root: root}
		mustAppend(t, l, auditIntent, rec)
		if root == "1:3" {
			mustAppend(t, l, auditPutBack, rec)
		} else {
			mustAppend(t, l, auditDeleted, rec)
		}
	}
	check := func(l *auditLog, when string) {
		t.Helper()
		if !l.emptied("1:2") || l.emptied("1:3") || l.emptied("") {
			t.Errorf("%s: emptied roots %v", when, l.roots)
		}
	}
	check(l, "at once")
	if err := l.rotate(1); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, auditIntent, auditRecord{Source: "s", ID: "9", Path: "/a"})
	check(openTestAudit(t, path), "after a rotation and a restart")
	if lines := readLines(t, path); len(lines) != 2 || lines[0].Event != auditRoot || lines[1].Event != auditIntent {
		t.Errorf("the new log: %v", lines)
	}
}

func readLines(t *testing.T, path string) (out []auditRecord) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		var r auditRecord
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestConcurrentAuditAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), auditName)
	l := openTestAudit(t, path)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				rec := auditRecord{Source: "s", ID: strconv.Itoa(g*100 + i)}
				if err := l.append(auditIntent, "", rec); err != nil {
					t.Error(err)
				}
				if !l.isOpen(rec) {
					t.Errorf("%s is not open", rec.ID)
				}
			}
		})
	}
	wg.Wait()
	if n := len(readLines(t, path)); n != 80 || l.synced != 80 {
		t.Errorf("%d lines, %d durable, want 80", n, l.synced)
	}
}

// What can't be audited is not done.
func TestDeletionNeedsItsAuditLog(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	w.once(noDelete) // verified
	k := w.keeper(nil)
	ro, err := os.Open(filepath.Join(w.dir, "data", auditName))
	w.check(err)
	w.check(k.audit.f.Close())
	k.audit.f = ro
	w.faults.reset()
	if err := k.Once(t.Context()); err == nil {
		t.Error("Once found nothing wrong")
	}
	if count(w.faults.calls, "files.Hide") != 0 {
		t.Error("hidden without an intent in the audit log")
	}
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	if err := k.audit.append(auditIntent, "", auditRecord{}); err != nil {
		t.Errorf("the next record does not begin another log: %v", err)
	}
}
