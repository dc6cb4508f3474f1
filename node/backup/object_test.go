package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

func snapshot(t *testing.T, v *raftmeta.View) string {
	t.Helper()
	var b bytes.Buffer
	if err := v.WriteSnapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBackupIsReadBackWhole(t *testing.T) {
	w := newWorld(t)
	for range 300 {
		w.add()
	}
	want := ""
	w.during = func(op string) {
		if op == "meta.grant" { // which is the moment that the backup is of
			want = snapshot(t, w.meta.View())
		}
	}
	e := w.made()
	v, err := Load(t.Context(), w.store, e.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, v); got != want {
		t.Errorf("read as\n%s\nnot\n%s", got, want)
	}
	if e.Packs != 301 || e.Bytes != int64(len(w.store.Bytes(e.Key))) || e.Bytes*2 > int64(len(want)) || e.Index != v.Applied() {
		t.Errorf("%+v of %d bytes of text", e, len(want))
	}
	if digest, err := v.Digest(isList); err != nil || digest != e.Digest {
		t.Errorf("its digest is another: %v", err)
	}
	again, same, err := encode(v, e.At)
	if err != nil || !bytes.Equal(again, w.store.Bytes(e.Key)) || same != e {
		t.Errorf("the same state gives other bytes: %v", err)
	}
}

// TestDamagedBackupIsNamedAndRefused: any byte changed, any end cut off, bytes
// behind it: never a state that is not the one that was written.
func TestDamagedBackupIsNamedAndRefused(t *testing.T) {
	w := newWorld(t)
	e := w.made()
	whole := w.store.Bytes(e.Key)
	v, err := Load(t.Context(), w.store, e.Key)
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot(t, v)
	refused := 0
	try := func(what string, at int, b []byte) {
		t.Helper()
		w.store.Damage(e.Key, func([]byte) []byte { return b })
		v, err := Load(t.Context(), w.store, e.Key)
		switch {
		case err == nil && what == "flipped" && snapshot(t, v) == want: // a bit of the frame's header that says nothing
		case err == nil:
			t.Fatalf("%s at %d: read", what, at)
		case !errors.Is(err, ErrDamaged) && !errors.Is(err, raftmeta.ErrUnknownCommand) || !strings.Contains(err.Error(), e.Key):
			t.Fatalf("%s at %d: %v", what, at, err)
		default:
			refused++
		}
	}
	for n := range whole {
		try("cut", n, whole[:n])
		for _, bit := range []byte{1, 0x10, 0x80} {
			bad := bytes.Clone(whole)
			bad[n] ^= bit
			try("flipped", n, bad)
		}
	}
	try("longer", len(whole), append(bytes.Clone(whole), 0))
	try("twice", len(whole), append(bytes.Clone(whole), whole...))
	try("no backup", 0, []byte("hello"))
	if refused < 3*len(whole) {
		t.Errorf("%d refused of %d", refused, 4*len(whole))
	}
}

func TestBackupUnderAnothersKeyIsRefused(t *testing.T) {
	w := newWorld(t)
	a, b := w.made(), w.made()
	older := w.store.Bytes(a.Key)
	w.store.Damage(b.Key, func([]byte) []byte { return older })
	if _, err := Load(t.Context(), w.store, b.Key); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	for _, key := range []string{"", "cluster.json", "backups/", "backups/1", "backups/1-2", "packs/1-00000000000000000008", "backups/01-00000000000000000008"} {
		if _, err := Load(t.Context(), w.store, key); !errors.Is(err, errNoKey) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// TestStoreErrorIsNoDamage: who is told that a backup is damaged takes an older
// one, or none.
func TestStoreErrorIsNoDamage(t *testing.T) {
	w := newWorld(t)
	e := w.made()
	whole := w.store.Bytes(e.Key)
	for n := range whole {
		cut := getter(func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(errInjected))), nil
		})
		if _, err := Load(t.Context(), cut, e.Key); !errors.Is(err, errInjected) || errors.Is(err, ErrDamaged) {
			t.Fatalf("the connection ends after %d bytes: %v", n, err)
		}
	}
	refuses := getter(func() (io.ReadCloser, error) { return nil, errInjected })
	if _, err := Load(t.Context(), refuses, e.Key); !errors.Is(err, errInjected) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	w.store.Lose(e.Key)
	if _, err := Load(t.Context(), w.store, e.Key); !errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrDamaged) {
		t.Errorf("lost: %v", err)
	}
}

type getter func() (io.ReadCloser, error)

func (g getter) Get(context.Context, string, string, int64, int64) (io.ReadCloser, error) { return g() }

func TestFindListsTheStore(t *testing.T) {
	w := newWorld(t)
	w.keep = 10
	want := []string{w.made().Key, w.made().Key, w.made().Key}
	w.nextLife()
	want = append(want, w.made().Key)
	w.unseen(func() {
		for _, key := range []string{"backups/readme", "backups/1-7", "backupsother/1-00000000000000000008", "packs/x"} {
			if _, err := w.store.Put(t.Context(), key, body("x"), 1); err != nil {
				t.Fatal(err)
			}
		}
	})
	slices.Reverse(want)
	found, err := Find(t.Context(), w.store)
	var got []string
	for _, e := range found {
		got = append(got, e.Key)
		if e.Bytes != int64(len(w.store.Bytes(e.Key))) || e.At.IsZero() || e.Index == 0 || e.Generation == 0 {
			t.Errorf("found %+v", e)
		}
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("found %q, not %q: %v", got, want, err)
	}
	w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault { return storetest.Fault{Err: errInjected} })
	if _, err := Find(t.Context(), w.store); !errors.Is(err, errInjected) {
		t.Errorf("got %v", err)
	}
}

func TestKeysSortAsBackupsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, i := rapid.Uint64().Draw(t, "generation"), rapid.Uint64().Draw(t, "index")
		key := Key(g, i)
		if g2, i2, ok := parseKey(key); !ok || g2 != g || i2 != i {
			t.Fatalf("%s is %d, %d, %v", key, g2, i2, ok)
		}
		other := rapid.Uint64().Draw(t, "other")
		if (Key(g, other) < key) != (other < i) {
			t.Fatalf("%s and %s", key, Key(g, other))
		}
	})
}

func TestRetention(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	hourly := func(n int) (all []Entry) { // the newest first
		for i := range n {
			all = append(all, Entry{Key: Key(1, uint64(n-i)), Generation: 1, Index: uint64(n - i), At: now.Add(-time.Duration(i) * time.Hour)})
		}
		return all
	}
	for name, tc := range map[string]struct {
		have       []Entry
		keep, days int
		want       int // kept
		oldest     time.Duration
	}{
		"fewer than are kept":  {hourly(5), 48, 30, 5, 4 * time.Hour},
		"the newest only":      {hourly(100), 48, -1, 48, 47 * time.Hour},
		"and one a day":        {hourly(24 * 60), 48, 30, 48 + 27, 29*24*time.Hour - 11*time.Hour},
		"days more than hours": {hourly(24 * 60), 1, 30, 30, 29*24*time.Hour - 11*time.Hour},
		"never none":           {hourly(3), 0, -1, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := list{Backups: slices.Clone(tc.have)}
			l.expire(now, tc.keep, tc.days)
			if len(l.Backups) != tc.want || len(l.Doomed) != len(tc.have)-tc.want || l.Backups[0] != tc.have[0] {
				t.Fatalf("%d kept, %d doomed", len(l.Backups), len(l.Doomed))
			}
			if got := now.Sub(l.Backups[len(l.Backups)-1].At); got != tc.oldest {
				t.Errorf("the oldest is of %v ago, not %v", got, tc.oldest)
			}
			seen := map[string]bool{}
			for _, e := range l.Backups[min(max(tc.keep, 1), len(l.Backups)):] {
				if seen[e.At.Format(time.DateOnly)] || e.At.Hour() != 23 {
					t.Errorf("of %v one was kept already, or it is not the day's last", e.At)
				}
				seen[e.At.Format(time.DateOnly)] = true
			}
			before := slices.Clone(l.Backups)
			l.expire(now.Add(time.Minute), tc.keep, tc.days)
			if !slices.Equal(before, l.Backups) {
				t.Error("repeated, it drops more")
			}
		})
	}
}

// TestRetentionKeepsTheNewest whatever the clocks of those were who made them.
func TestRetentionKeepsTheNewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
		var l list
		for i := range rapid.IntRange(1, 60).Draw(t, "backups") {
			at := now.Add(time.Duration(rapid.Int64Range(-100, 50).Draw(t, "hours")) * time.Hour)
			e := Entry{Key: Key(1, uint64(i)), Generation: 1, Index: uint64(i), At: at}
			l.announce(e.Key, now)
			if err := l.add(e); err != nil {
				t.Fatal(err)
			}
		}
		all := slices.Clone(l.Backups)
		keep, days := rapid.IntRange(0, 10).Draw(t, "keep"), rapid.IntRange(-1, 10).Draw(t, "days")
		l.expire(now, keep, days)
		least := min(len(all), max(keep, 1))
		if !slices.Equal(l.Backups[:least], all[:least]) || len(l.Backups)+len(l.Doomed) != len(all) {
			t.Fatalf("of %v the kept are %v", all, l.Backups)
		}
		for _, d := range l.Doomed {
			if slices.ContainsFunc(l.Backups, func(e Entry) bool { return e.Key == d.Key }) {
				t.Fatalf("%s is kept and doomed", d.Key)
			}
		}
	})
}
