package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a cluster's state and store, which outlive any node of it. Every
// call of a Backup passes effect.
type world struct {
	t       *testing.T
	journal *raftmeta.Journal
	store   *storetest.Fake
	now     time.Time
	meta    *raftmeta.Local
	packs   int

	generation uint64
	keep, days int

	mu      sync.Mutex
	quiet   bool            // effects are neither counted nor judged
	effects []string        // so far
	at      int             // the effect that a fault strikes, from 1; 0: none
	fault   fault           //
	crashed bool            // all effects fail until the next start
	during  func(op string) // called after each effect
	current func(int) error // Config.Current, by its call's number
	asked   int             // calls of current
}

type fault int

const (
	none fault = iota
	notApplied
	appliedFailed
	crashBefore
	crashAfter
)

var (
	errInjected = errors.New("injected fault")
	errCrashed  = errors.New("the node has crashed")
)

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, journal: &raftmeta.Journal{}, store: storetest.NewFake(t), generation: 1,
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), keep: 2, days: -1,
		during: func(string) {},
	}
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		var f storetest.Fault
		err := w.effect("store."+c.Kind.String(), func() error { f.Applied = true; return nil })
		f.Err = err
		return f
	})
	w.start()
	return w
}

// effect judges a call, carries it out or not, and tells what its caller hears.
func (w *world) effect(op string, do func() error) error {
	w.mu.Lock()
	if w.quiet {
		w.mu.Unlock()
		return do()
	}
	if w.crashed {
		w.mu.Unlock()
		return errCrashed
	}
	w.effects = append(w.effects, op)
	f := none
	if len(w.effects) == w.at {
		f = w.fault
	}
	w.mu.Unlock()
	var err error
	if f != notApplied && f != crashBefore {
		err = do()
	}
	switch f {
	case notApplied, appliedFailed:
		err = errInjected
	case crashBefore, crashAfter:
		w.mu.Lock()
		w.crashed = true
		w.mu.Unlock()
		err = errCrashed
	}
	return err
}

// start is a node's start on what is durable.
func (w *world) start() {
	w.t.Helper()
	w.mu.Lock()
	w.crashed, w.at, w.effects, w.quiet = false, 0, nil, true
	w.mu.Unlock()
	meta, err := raftmeta.OpenLocal(raftmeta.LocalConfig{
		Node: "node-a", Cluster: desformat.ClusterID{1}, Journal: w.journal, Generation: w.generation,
		Through: func(_ context.Context, what string, do func() error) error {
			err := w.effect("meta."+what, do)
			w.looked("meta." + what)
			return err
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.meta = meta
	w.mu.Lock()
	w.quiet = false
	w.mu.Unlock()
}

func (w *world) looked(op string) {
	w.mu.Lock()
	quiet := w.quiet
	w.mu.Unlock()
	if !quiet {
		w.during(op)
	}
}

// unseen does something that is none of a Backup's effects.
func (w *world) unseen(do func()) {
	w.mu.Lock()
	was := w.quiet
	w.quiet = true
	w.mu.Unlock()
	do()
	w.mu.Lock()
	w.quiet = was
	w.mu.Unlock()
}

func (w *world) config() Config {
	return Config{
		Manifest: w.meta, Store: w.store, Keep: w.keep, KeepDays: w.days,
		Now: func() time.Time { return w.now },
		Current: func(context.Context) error {
			w.asked++
			if w.current == nil {
				return nil
			}
			return w.current(w.asked)
		},
	}
}

func (w *world) backup() *Backup {
	w.t.Helper()
	b, err := New(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// try has a fresh Backup make one if it is due.
func (w *world) try() (Entry, error) {
	return w.backup().due(w.t.Context())
}

// add packs and acknowledges one pack, created now.
func (w *world) add() raftmeta.Pack {
	w.t.Helper()
	var p raftmeta.Pack
	w.unseen(func() {
		w.packs++
		r, err := desformat.ParseRange(fmt.Sprintf("%02x/8", w.packs%256))
		if err != nil {
			w.t.Fatal(err)
		}
		err = w.meta.WithLease(w.t.Context(), raftmeta.Job{Kind: raftmeta.JobPack, Range: r}, func(ctx context.Context, l raftmeta.Lease) error {
			p = pack(w.packs, l.Token, r, w.now)
			u := raftmeta.Upload{Key: p.Copies[0].Key, Pack: p.ID, Token: p.Token, BeganAt: w.now}
			err := w.meta.BeginUpload(ctx, u)
			if err == nil {
				_, err = w.meta.AddPack(ctx, p)
			}
			if err == nil {
				err = w.meta.AckPack(ctx, p.ID, []uint32{3})
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	})
	return p
}

func pack(n int, token desformat.Token, r desformat.Range, created time.Time) raftmeta.Pack {
	id := desformat.PackID{byte(n >> 8), byte(n), 1}
	return raftmeta.Pack{
		ID: id, Token: token, Range: r, Size: 1000, Records: 10, PayloadBytes: 500,
		Catalog: desformat.Section{Offset: 500, Length: 300}, Index: desformat.Section{Offset: 800, Length: 100},
		MinSeq: token, MaxSeq: token, Created: created,
		Copies: []raftmeta.Copy{{Key: desformat.PackKey(r, token, id)}},
	}
}

// made is a backup that must succeed, of a state that has changed an hour ago.
func (w *world) made() Entry {
	w.t.Helper()
	w.add()
	w.now = w.now.Add(time.Hour)
	e, err := w.try()
	if err != nil || e.Key == "" {
		w.t.Fatalf("made %+v, %v", e, err)
	}
	return e
}

func (w *world) list() list {
	w.t.Helper()
	l, err := readList(w.meta.View())
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// inStore returns the keys below Prefix.
func (w *world) inStore() []string {
	return slices.DeleteFunc(w.store.Keys(), func(k string) bool { return !strings.HasPrefix(k, Prefix) })
}

func keys(all []Entry) (out []string) {
	for _, e := range all {
		out = append(out, e.Key)
	}
	slices.Sort(out)
	return out
}

// wantWhole holds the package's invariants: what is listed is in the store,
// whole, and nothing is there that is not on the list; but that a life has not
// looked yet at what earlier ones left.
func (w *world) wantWhole() {
	w.t.Helper()
	l := w.list()
	there := w.inStore()
	for _, e := range l.Backups {
		v, err := decode(bytes.NewReader(w.store.Bytes(e.Key)))
		if err != nil {
			w.t.Errorf("%s is listed: %v", e.Key, err)
			continue
		}
		if n := len(slices.Collect(v.Packs())); v.Applied() != e.Index || v.Generation() != e.Generation || e.Packs != 0 && n != e.Packs {
			w.t.Errorf("%+v holds %d packs at index %d", e, n, v.Applied())
		}
	}
	known := keys(l.Backups)
	for _, d := range l.Doomed {
		known = append(known, d.Key)
	}
	for _, key := range there {
		generation, _, _ := parseKey(key)
		if !slices.Contains(known, key) && (len(known) > 0 || generation == w.generation) {
			w.t.Errorf("%s is in the store, and on no list", key)
		}
	}
}
