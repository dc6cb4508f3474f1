package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

var faults = map[string]fault{
	"not applied": notApplied, "applied but failed": appliedFailed, "crash before": crashBefore, "crash after": crashAfter,
}

// table makes one backup in the world that prepare leaves, once without a
// fault to learn its effects, and then with each effect and each way to fail.
// Afterwards the node starts again and makes the backup, or has made it; a day
// later nothing is left of what was cut.
func table(t *testing.T, want []string, prepare func(w *world)) {
	begin := func(t *testing.T) *world {
		w := newWorld(t)
		prepare(w)
		w.add()
		w.now = w.now.Add(time.Hour)
		w.start()
		w.during = func(string) { w.wantWhole() }
		return w
	}
	w := begin(t)
	if _, err := w.try(); err != nil {
		t.Fatal(err)
	}
	effects := slices.Clone(w.effects)
	if !slices.Equal(effects, want) {
		t.Fatalf("the effects are %q, not %q", effects, want)
	}
	for i, op := range effects {
		for name, f := range faults {
			t.Run(fmt.Sprintf("%02d %s %s", i+1, op, name), func(t *testing.T) {
				t.Parallel()
				w := begin(t)
				before := w.list()
				w.at, w.fault = i+1, f
				made, err := w.try()
				if err != nil && !errors.Is(err, errInjected) && !errors.Is(err, errCrashed) {
					t.Errorf("it says %v", err)
				}
				w.wantWhole()
				if err == nil && !slices.Contains(keys(w.list().Backups), made.Key) {
					t.Errorf("%s was made, and is not listed", made.Key)
				}
				if len(before.Backups) > 0 && !slices.Contains(w.inStore(), w.list().Backups[0].Key) {
					t.Error("the newest backup is gone")
				}

				w.start() // what it held is released
				if _, err := w.try(); err != nil {
					t.Errorf("the next try: %v", err)
				}
				w.wantWhole()
				newest := w.list().Backups[0]
				if digest, err := w.meta.View().Digest(isList); err != nil || newest.Digest != digest {
					t.Errorf("the newest backup is not of this state: %v", err)
				}

				w.now = w.now.Add(lateWrites)
				last := w.made()
				if got, want := w.inStore(), keys(w.list().Backups); !slices.Equal(got, want) || w.list().Doomed != nil || !slices.Contains(got, last.Key) {
					t.Errorf("in the store %q, listed %q, doomed %v", got, want, w.list().Doomed)
				}
			})
		}
	}
}

func TestBackupSurvivesEveryFault(t *testing.T) {
	table(t, []string{
		"meta.grant", "meta.set", "store.put", "store.head", "meta.set", // announced, written, listed
		"store.delete", "meta.set", "meta.release", // and the oldest forgotten
	}, func(w *world) {
		w.made()
		w.made()
	})
}

func TestFirstBackupSurvivesEveryFault(t *testing.T) {
	table(t, []string{"meta.grant", "meta.set", "store.put", "store.head", "meta.set", "meta.release"}, func(*world) {})
}

// TestFirstBackupOfANewLifeSurvivesEveryFault: what the life before left is
// listed first.
func TestFirstBackupOfANewLifeSurvivesEveryFault(t *testing.T) {
	table(t, []string{
		"meta.grant", "store.list", "meta.set", "store.put", "store.head", "meta.set",
		"store.delete", "meta.set", "meta.release",
	}, func(w *world) {
		w.made()
		w.made()
		w.nextLife()
	})
}

// nextLife loses the state, and goes on in the next generation, whose rebuild
// is done.
func (w *world) nextLife() {
	w.t.Helper()
	w.during = func(string) {}
	w.generation++
	w.journal = &raftmeta.Journal{}
	w.start()
	w.unseen(func() {
		if err := w.meta.RecordRebuild(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	})
}

// TestLateWriteIsDeleted: the node that was cut off did write in the end, and
// its successor had deleted the key before.
func TestLateWriteIsDeleted(t *testing.T) {
	w := newWorld(t)
	w.made()
	w.add()
	w.now = w.now.Add(time.Hour)
	w.start()
	w.at, w.fault = 3, crashBefore
	if _, err := w.try(); !errors.Is(err, errCrashed) || w.effects[2] != "store.put" {
		t.Fatal(err, w.effects)
	}
	late := w.list().Doomed[0].Key
	w.start()
	w.made() // which deletes it, though it is not there
	w.unseen(func() {
		if _, err := w.store.Put(t.Context(), late, body("a late write"), int64(len("a late write"))); err != nil {
			t.Fatal(err)
		}
	})
	w.wantWhole()
	w.made()
	if slices.Contains(w.inStore(), late) {
		t.Error("it stays")
	}
	if len(w.list().Doomed) != 1 {
		t.Errorf("doomed: %v", w.list().Doomed)
	}
	w.now = w.now.Add(lateWrites)
	w.made()
	if l := w.list(); l.Doomed != nil {
		t.Errorf("doomed for ever: %v", l.Doomed)
	}
}

// TestNodeThatStoodStillListsNothing: while it wrote, its lease ran out, another
// node took what it had announced for lost, and deleted it.
func TestNodeThatStoodStillListsNothing(t *testing.T) {
	for _, when := range []string{"store.put", "store.head"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			w.made()
			w.add()
			w.now = w.now.Add(time.Hour)
			w.start()
			slow := w.meta
			var next Entry
			w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
				if "store."+c.Kind.String() != when {
					return storetest.Fault{}
				}
				w.store.SetHook(nil)
				w.start() // another process, which first ends what this one held
				w.add()
				w.now = w.now.Add(time.Hour)
				var err error
				if next, err = w.try(); err != nil || next.Key == "" {
					t.Errorf("the successor made %+v, %v", next, err)
				}
				if err := slow.CatchUp(); err != nil {
					t.Error(err)
				}
				return storetest.Fault{}
			})
			_, err := w.try()
			if when == "store.put" && !errors.Is(err, errOvertaken) {
				t.Errorf("it says %v", err)
			}
			if err == nil || next.Key == "" {
				t.Fatalf("%v, and its successor made %+v", err, next)
			}
			w.wantWhole()
			if got := w.list().Backups[0].Key; got != next.Key {
				t.Errorf("the newest is %s, not %s", got, next.Key)
			}
			w.now = w.now.Add(lateWrites)
			w.made()
			if got, want := w.inStore(), keys(w.list().Backups); !slices.Equal(got, want) {
				t.Errorf("in the store %q, listed %q", got, want)
			}
		})
	}
}

type body string

func (b body) ReadAt(p []byte, off int64) (int, error) { return copy(p, b[off:]), nil }

// TestSupersededNodeNeitherWritesNorDeletes: a newer life may need what is there.
func TestSupersededNodeNeitherWritesNorDeletes(t *testing.T) {
	errSuperseded := errors.New("superseded")
	for name, tc := range map[string]struct {
		from int // the call of Current that says so first
		want []string
	}{
		"before it writes":  {1, []string{"meta.grant", "meta.release"}},
		"before it deletes": {2, []string{"meta.grant", "meta.set", "store.put", "store.head", "meta.set", "meta.release"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.made()
			w.made()
			w.add()
			w.now = w.now.Add(time.Hour)
			w.start()
			w.asked, w.current = 0, func(n int) error {
				if n >= tc.from {
					return errSuperseded
				}
				return nil
			}
			_, err := w.try()
			if tc.from == 1 && !errors.Is(err, errSuperseded) {
				t.Errorf("got %v", err)
			}
			if !slices.Equal(w.effects, tc.want) {
				t.Errorf("effects %q, want %q", w.effects, tc.want)
			}
		})
	}
}

// TestTornObjectIsNotListed: a store that says yes and keeps half.
func TestTornObjectIsNotListed(t *testing.T) {
	w := newWorld(t)
	first := w.made()
	w.add()
	w.now = w.now.Add(time.Hour)
	b, err := New(Config{Manifest: w.meta, Store: halving{w.store}, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Now(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if got := keys(w.list().Backups); !slices.Equal(got, []string{first.Key}) {
		t.Errorf("listed %q", got)
	}
}

type halving struct{ Store }

func (h halving) Put(ctx context.Context, key string, b store.Body, size int64) (store.Object, error) {
	return h.Store.Put(ctx, key, b, size/2)
}
