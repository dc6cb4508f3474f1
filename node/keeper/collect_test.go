package keeper

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// abandoned announces an upload, puts its object if body is not nil, and lets
// go of the lease: garbage but for its age.
func (w *world) abandoned(body []byte) (key string) {
	w.t.Helper()
	w.check(w.meta.WithLease(w.t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		if body == nil {
			key = w.upload(ctx, l, newPackID(), nil, 0)
		} else {
			key = w.upload(ctx, l, newPackID(), bytes.NewReader(body), int64(len(body)))
		}
		return nil
	}))
	return key
}

// keys lists the store's objects.
func (w *world) keys() (keys []string) {
	w.t.Helper()
	w.check(w.folder.List(w.t.Context(), "", "", func(o store.Object) error { keys = append(keys, o.Key); return nil }))
	slices.Sort(keys)
	return keys
}

func (w *world) wantKeys(want ...string) {
	w.t.Helper()
	if got := w.keys(); !slices.Equal(got, want) {
		w.t.Errorf("objects = %q, want %q", got, want)
	}
}

func TestGarbageSpendsAWeekInQuarantine(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("garbage"))
	w.clock.advance(23 * time.Hour)
	w.once(nil)
	w.wantKeys(key)
	w.clock.advance(2 * time.Hour)
	w.once(nil)
	place := "quarantine/2026-03-02/" + key
	w.wantKeys(place)
	if u := w.meta.View().Uploads(); len(u) != 0 {
		t.Errorf("uploads = %v, want none", u)
	}
	w.clock.advance(6 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys(place)
	w.clock.advance(2 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys()
	if list, _, err := quarantineList(w.meta.View()); len(list) != 0 || err != nil {
		t.Errorf("quarantine list = %v, %v", list, err)
	}
}

func TestUploadThatNeverBeganIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.abandoned(nil)
	w.clock.advance(25 * time.Hour)
	w.once(nil)
	if u := w.meta.View().Uploads(); len(u) != 0 {
		t.Errorf("uploads = %v, want none", u)
	}
	if list, _, err := quarantineList(w.meta.View()); len(list) != 1 || err != nil || !list[0].Absent {
		t.Errorf("quarantine list = %v, %v: a PUT may be on its way", list, err)
	}
	w.clock.advance(8 * 24 * time.Hour)
	w.once(nil)
	if list, _, err := quarantineList(w.meta.View()); len(list) != 0 || err != nil {
		t.Errorf("quarantine list = %v, %v", list, err)
	}
}

// A PUT that arrives after its key was found without an object brings an object
// that is known, and goes the way of all garbage.
func TestObjectThatComesAfterItsKeyWasCollectedIsCollectedToo(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned(nil)
	w.clock.advance(25 * time.Hour)
	w.once(nil)
	_, err := w.folder.Put(t.Context(), key, strings.NewReader("late"), 4)
	w.check(err)
	w.clock.advance(8 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys("quarantine/2026-03-10/" + key)
	w.clock.advance(8 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys()
}

// openUploads are the uploads that a store has open.
type openUploads struct {
	open    []store.Upload
	aborted []string
}

func (o *openUploads) Uploads(_ context.Context, prefix string, f func(store.Upload) error) error {
	for _, u := range o.open {
		if strings.HasPrefix(u.Key, prefix) {
			if err := f(u); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *openUploads) Abort(_ context.Context, u store.Upload) error {
	o.aborted = append(o.aborted, u.ID)
	return nil
}

// What a cut upload left in parts is freed with the garbage it would have
// become, not before, and nobody else's.
func TestOpenUploadsOfGarbageAreAborted(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned(nil)
	uploads := &openUploads{open: []store.Upload{{Key: key, ID: "ours"}, {Key: key + ".more", ID: "longer"}, {Key: "other", ID: "foreign"}}}
	with := func(c *Config) { c.Uploads = uploads }
	w.clock.advance(23 * time.Hour)
	w.once(with)
	if len(uploads.aborted) > 0 {
		t.Fatalf("aborted %q within a day", uploads.aborted)
	}
	w.clock.advance(2 * time.Hour)
	w.once(with)
	if !slices.Equal(uploads.aborted, []string{"ours"}) {
		t.Errorf("aborted %q", uploads.aborted)
	}
}

func TestUploadUnderALiveLeaseIsNotGarbage(t *testing.T) {
	w := newWorld(t)
	w.check(w.meta.WithLease(t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		key := w.upload(ctx, l, newPackID(), strings.NewReader("in work"), 7)
		w.clock.advance(100 * time.Hour)
		w.once(nil)
		w.wantKeys(key)
		return nil
	}))
}

func TestCommittedPackIsNeverGarbage(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	w.clock.advance(1000 * time.Hour)
	w.once(noDelete)
	w.wantKeys(p.Copies[0].Key)
	u := raftmeta.Upload{Key: p.Copies[0].Key, Pack: p.ID, Token: p.Token, BeganAt: p.Created}
	if isGarbage(w.meta.View(), u, w.clock.Now()) {
		t.Error("a committed pack is garbage")
	}
}

func TestStoreErrorNeverMeansMissing(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("garbage"))
	w.clock.advance(25 * time.Hour)
	fail := func(op string) {
		w.faults.reset()
		w.faults.on = func(o string) error {
			if o == op {
				return errInjected
			}
			return nil
		}
		if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, errInjected) {
			t.Errorf("%s fails: Once = %v", op, err)
		}
		if count(w.faults.calls, "meta.ForgetUpload") != 0 || op == "store.Head" && count(w.faults.calls, "store.Delete") != 0 {
			t.Errorf("%s fails: the object was taken for missing: %q", op, w.faults.calls)
		}
	}
	fail("store.Move")
	w.wantKeys(key)
	if u := w.meta.View().Uploads(); len(u) != 1 {
		t.Errorf("uploads = %v, want the object's", u)
	}
	w.faults.reset()
	w.once(nil)
	w.clock.advance(8 * 24 * time.Hour)
	fail("store.Head")
	fail("store.Delete")
	if list, _, err := quarantineList(w.meta.View()); len(list) != 1 || err != nil {
		t.Errorf("quarantine list = %v, %v; want the object", list, err)
	}
}

// A stalled upload that goes on after its object was collected makes a new one
// at the old key: it is found and quarantined too.
func TestLateObjectIsCollectedToo(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("early"))
	w.clock.advance(25 * time.Hour)
	w.once(nil)
	_, err := w.folder.Put(t.Context(), key, strings.NewReader("late"), 4)
	w.check(err)
	w.clock.advance(8 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys("quarantine/2026-03-10/" + key)
	w.clock.advance(8 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys()
}

func TestCollectingSurvivesEveryFault(t *testing.T) {
	failureTable(t,
		func(w *world) {
			w.garbage = w.abandoned([]byte("garbage"))
			w.clock.advance(25 * time.Hour)
		},
		tryOnce,
		func(w *world) { // at every moment the object can be named
			known := map[string]bool{}
			for _, u := range w.meta.View().Uploads() {
				known[u.Key] = true
			}
			list, _, err := quarantineList(w.meta.View())
			w.check(err)
			for _, q := range list {
				known[q.place()] = true
			}
			for _, k := range w.keys() {
				if !known[k] {
					w.t.Errorf("nobody knows of object %s", k)
				}
			}
		},
		func(w *world) {
			w.wantKeys("quarantine/2026-03-02/" + w.garbage)
			if u := w.meta.View().Uploads(); len(u) != 0 {
				w.t.Errorf("uploads = %v, want none", u)
			}
		})
}

func TestForeignSettingStopsCollecting(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("garbage"))
	w.check(w.meta.Set(t.Context(), quarantineSetting, []byte("{not a list"), 0))
	w.clock.advance(25 * time.Hour)
	if err := w.keeper(nil).Once(t.Context()); err == nil {
		t.Error("Once went on without the quarantine list")
	}
	w.wantKeys(key)
}
