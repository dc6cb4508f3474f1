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

	"github.com/datavision/desnode/node/source"
)

var errOver = errors.New("a newer life has begun") //nolint:gochecknoglobals // a constant

func over(c *Config) { c.Current = func(context.Context) error { return errOver } }

// A life that is over, or may be, moves and deletes nothing; Problem says why.
func TestSupersededLifeDestroysNothing(t *testing.T) {
	t.Run("originals", func(t *testing.T) {
		w := newWorld(t)
		w.archived("x")
		k := w.keeper(over)
		if err := k.Once(t.Context()); !errors.Is(err, errOver) || !errors.Is(k.Problem(), errOver) {
			t.Errorf("Once = %v, Problem = %v", err, k.Problem())
		}
		w.wantFile(w.path("x"), "content of x")
		w.wantRow("x", source.Packed, "")
		w.once(func(c *Config) { c.Current = func(context.Context) error { return nil } })
		w.wantFile(w.path("x"), "")
	})
	t.Run("garbage", func(t *testing.T) {
		w := newWorld(t)
		key := w.abandoned([]byte("torn"))
		w.clock.advance(25 * time.Hour)
		k := w.keeper(over)
		if err := k.Once(t.Context()); !errors.Is(err, errOver) || !errors.Is(k.Problem(), errOver) {
			t.Errorf("Once = %v, Problem = %v", err, k.Problem())
		}
		w.wantKeys(key)
		w.once(nil)
		moved := w.keys()
		w.clock.advance(8 * 24 * time.Hour)
		if err := w.keeper(over).Once(t.Context()); !errors.Is(err, errOver) {
			t.Errorf("Once = %v", err)
		}
		if now := w.keys(); !slices.Equal(now, moved) || len(now) != 1 {
			t.Errorf("objects are %q, were %q", now, moved)
		}
	})
	t.Run("the word that comes in mid-collection", func(t *testing.T) {
		w := newWorld(t)
		w.abandoned([]byte("torn"))
		w.clock.advance(25 * time.Hour)
		w.once(nil)
		moved := w.keys()
		w.clock.advance(8 * 24 * time.Hour)
		asked := 0
		err := w.keeper(func(c *Config) {
			c.Current = func(context.Context) error {
				if asked++; asked > 1 {
					return errOver
				}
				return nil
			}
		}).Once(t.Context())
		if now := w.keys(); !errors.Is(err, errOver) || !slices.Equal(now, moved) {
			t.Errorf("Once = %v, objects are %q, were %q", err, now, moved)
		}
	})
	t.Run("forgotten when it is over", func(t *testing.T) {
		w := newWorld(t)
		w.archived("x")
		says := errOver
		k := w.keeper(func(c *Config) { c.Current = func(context.Context) error { return says } })
		_ = k.Once(t.Context())
		says = nil
		w.check(k.Once(t.Context()))
		if err := k.Problem(); err != nil {
			t.Errorf("Problem = %v", err)
		}
	})
}

// Each object that is moved away or deleted stands in the audit log, before.
func TestCollectingIsAudited(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("torn"))
	w.clock.advance(25 * time.Hour)
	w.once(nil)
	place := w.keys()[0]
	w.clock.advance(8 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys()
	b, err := os.ReadFile(filepath.Join(w.dir, "data", auditName))
	w.check(err)
	var events []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, key) && strings.Contains(line, place) && strings.Contains(line, "node-a") {
			_, rest, _ := strings.Cut(line, `"event":"`)
			event, _, _ := strings.Cut(rest, `"`)
			events = append(events, event)
		}
	}
	if !slices.Equal(events, []string{auditCollected, auditExpired}) {
		t.Errorf("the audit log says %q:\n%s", events, b)
	}
}

func TestAuditFailureKeepsObjects(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("torn"))
	w.clock.advance(25 * time.Hour)
	k := w.keeper(nil)
	w.check(k.audit.f.Close())
	if err := k.Once(t.Context()); err == nil {
		t.Error("collected without an audit log")
	}
	w.wantKeys(key)
	k.audit.f, _ = folder(k.cfg.Dir).Open(auditName)
}

// What a rebuild finds in quarantine is listed from then on, once, and deleted
// after its time there; what is needed stays.
func TestNoteQuarantined(t *testing.T) {
	w := newWorld(t)
	p := w.archived("x")
	whole := "quarantine/2026-01-01/" + p.Copies[0].Key
	w.check(w.folder.Move(t.Context(), p.Copies[0].Key, whole))
	torn := "quarantine/2026-01-02/packs/0-0/1-9-00112233445566778899aabbccddeeff.des"
	same := "quarantine/2026-01-03/packs/0-0/1-9-00112233445566778899aabbccddeeff.des"
	for _, key := range []string{torn, same} {
		_, err := w.folder.Put(t.Context(), key, strings.NewReader("torn"), 4)
		w.check(err)
	}
	keepOnly := func(c *Config) { c.DeleteSource = false }
	for range 2 {
		w.check(w.keeper(keepOnly).NoteQuarantined(t.Context(), []string{torn, same, whole}))
	}
	list, _, err := quarantineList(w.meta.View())
	w.check(err)
	if len(list) != 3 || list[0].place() != torn {
		t.Errorf("listed: %+v", list)
	}
	if err := w.keeper(keepOnly).NoteQuarantined(t.Context(), []string{"packs/x"}); err == nil {
		t.Error("noted an object that is not in quarantine")
	}
	w.clock.advance(6 * 24 * time.Hour)
	_ = w.keeper(keepOnly).Once(t.Context()) // the pack is missed
	w.wantKeys(whole, torn, same)
	w.clock.advance(2 * 24 * time.Hour)
	_ = w.keeper(keepOnly).Once(t.Context())
	w.wantKeys(whole)
	if err := w.keeper(keepOnly).Problem(); err == nil || !strings.Contains(err.Error(), "the manifest names it") {
		t.Errorf("Problem = %v, want the kept object", err)
	}
}
