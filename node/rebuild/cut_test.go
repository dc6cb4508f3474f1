package rebuild

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// Every effect of a rebuild on the store, the manifest and the source, in its
// order, × {not applied and errored, applied and errored, crash before, crash
// after}. After an error the rebuild goes on by itself; after a crash a fresh
// process does, without being told what was asked for. Either ends with the
// same manifest and the same rows as a rebuild that nothing disturbed.

type fault int

const (
	notApplied fault = iota
	appliedErrored
	crashBefore
	crashAfter
)

func faultNames() []string {
	return []string{"not applied", "applied and errored", "crash before", "crash after"}
}

var errCut = errors.New("cut") //nolint:gochecknoglobals // a constant

// cuts lets one effect fail. Effects are counted one at a time: the rebuild has
// one worker.
type cuts struct {
	calls []string
	at    int // 1: the first; 0: none
	mode  fault
	dead  bool
	crash context.CancelFunc
}

// reads change nothing: whether they were applied makes no difference.
func isRead(call string) bool {
	return strings.HasPrefix(call, "store.") || strings.HasPrefix(call, "rows.By") || call == "meta.confirm" || call == "files.Open"
}

func (c *cuts) hit(call string, do func() error) error {
	if c.dead {
		return errCut
	}
	c.calls = append(c.calls, call)
	if len(c.calls) != c.at {
		return do()
	}
	switch c.mode {
	case notApplied:
		return fmt.Errorf("%s: %w", call, errCut)
	case appliedErrored:
		return errors.Join(fmt.Errorf("%s: %w", call, errCut), do())
	case crashBefore:
		c.dead = true
		c.crash()
		return errCut
	default:
		err := do()
		c.dead = true
		c.crash()
		return errors.Join(errCut, err)
	}
}

// cutRows are a source's rows behind the cuts.
type cutRows struct {
	*source.SQLite
	c *cuts
}

func (r cutRows) Acknowledge(ctx context.Context, acks []source.Ack, limit int, at time.Time) (out []source.AckResult, err error) {
	err = r.c.hit("rows.Acknowledge", func() (err error) { out, err = r.SQLite.Acknowledge(ctx, acks, limit, at); return err })
	return out, err
}

func (r cutRows) Restore(ctx context.Context, rows []source.Restored) (out []source.RestoreResult, err error) {
	err = r.c.hit("rows.Restore", func() (err error) { out, err = r.SQLite.Restore(ctx, rows); return err })
	return out, err
}

func (r cutRows) ByIDs(ctx context.Context, ids []string) (out []source.Row, err error) {
	err = r.c.hit("rows.ByIDs", func() (err error) { out, err = r.SQLite.ByIDs(ctx, ids); return err })
	return out, err
}

func (r cutRows) ByID(ctx context.Context, id string) (out source.Row, err error) {
	err = r.c.hit("rows.ByID", func() (err error) { out, err = r.SQLite.ByID(ctx, id); return err })
	return out, err
}

// impatient is a life whose leader ends leases that nobody knows of as soon as
// they are in the way: real ones run out by its timers.
type impatient struct{ *life }

func (m impatient) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	err := m.life.WithLease(ctx, job, work)
	if errors.Is(err, raftmeta.ErrClash) {
		for _, l := range m.View().Leases() {
			if l.Job.Kind == job.Kind {
				err = errors.Join(err, m.Expire(l.Token))
			}
		}
	}
	return err
}

// cut runs the rebuild with one fault, and then, after a crash, a fresh process
// to its end.
func (w *world) cut(c *cuts, edit func(*Config)) {
	w.t.Helper()
	run := func(edit func(*Config)) error {
		ctx, cancel := context.WithCancel(w.t.Context())
		defer cancel()
		c.crash, c.dead = cancel, false
		w.open(func(_ context.Context, what string, do func() error) error { return c.hit("meta."+what, do) })
		w.store.SetHook(func(_ context.Context, call storetest.Call) storetest.Fault {
			return storetest.Fault{Err: c.hit(fmt.Sprintf("store.%s %s", call.Kind, call.Key), func() error { return nil })}
		})
		src := w.src()
		src.Rows = cutRows{w.rows, c}
		k := w.keeper(func(cfg *keeper.Config) { cfg.Sources, cfg.Manifest = []source.Source{src}, impatient{w.life} })
		r, err := New(w.config(func(cfg *Config) {
			cfg.Sources, cfg.Footers, cfg.Manifest = []source.Source{src}, 1, impatient{w.life}
			cfg.Acknowledge, cfg.Quarantined = k.AcknowledgeAgain, k.NoteQuarantined
			edit(cfg)
		}))
		w.check(err)
		return r.Run(ctx)
	}
	err := run(edit)
	if err != nil && c.dead {
		// What was asked for is known from the plan, unless that was not kept yet.
		if _, begun, _ := PlanOf(w.life.View()); begun {
			ask := edit
			edit = func(cfg *Config) { ask(cfg); cfg.Base, cfg.Source = "", false }
		}
		err = run(edit)
	}
	w.check(err)
	w.store.SetHook(nil)
}

// ruins is what is left of a cluster: a store, a base, originals, and a table
// whose rows have lost what desnode wrote to them.
type ruins struct {
	world   *world // whose originals all share
	base    *raftmeta.View
	objects map[string][]byte
	tables  map[string][]byte // files of the database
}

// ruin makes them: packs before and after the base, deleted originals, a changed
// file, an upload that is known to be dead, and what nobody knows.
func ruin(t *testing.T) *ruins {
	w := newWorld(t)
	r := &ruins{world: w, objects: map[string][]byte{}, tables: map[string][]byte{}}
	w.write(1, names(12, "a")...)
	w.archive()
	w.deleteOriginals()
	w.write(1, names(6, "b")...)
	w.mark()
	w.abandon("b/file-003.txt")
	r.base = w.base()
	w.clock.advance(time.Minute)
	w.pack()
	w.write(2, names(2, "b")...)
	w.archive()
	w.put("quarantine/2026-02-01/packs/0-0/1-3-0123456789abcdef0123456789abcdef.des", "something")
	w.put("packs/readme.txt", "something")
	w.newRows("lost.db")
	for _, n := range w.order {
		w.register(version(n), n)
	}
	for _, key := range w.store.Keys() {
		r.objects[key] = w.store.Bytes(key)
	}
	for _, name := range []string{"lost.db", "lost.db-wal"} {
		b, err := os.ReadFile(filepath.Join(w.dir, name))
		w.check(err)
		r.tables[name] = b
	}
	return r
}

// version is that of a file of the ruins.
func version(name string) int {
	if slices.Contains(names(2, "b"), name) {
		return 2
	}
	return 1
}

// copy returns a world of its own.
func (r *ruins) copy(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), root: r.world.root, order: r.world.order, store: storetest.NewFake(t)}
	w.clock = &clock{now: r.world.clock.now}
	for _, key := range slices.Sorted(maps.Keys(r.objects)) {
		w.put(key, string(r.objects[key]))
	}
	for name, b := range r.tables {
		w.check(os.WriteFile(filepath.Join(w.dir, name), b, 0o600))
	}
	w.newRows("lost.db")
	return w
}

func TestCutEverywhere(t *testing.T) {
	left := ruin(t)
	look := func(w *world) (lines []string) {
		for id, p := range w.snapshot() {
			lines = append(lines, fmt.Sprintf("pack %s: %+v", id, p))
		}
		for n, state := range w.states() {
			lines = append(lines, n+": "+state)
		}
		for _, u := range w.life.View().Uploads() {
			lines = append(lines, "upload "+u.Key)
		}
		for key, value := range w.life.View().Settings("") {
			if key == "keeper/quarantine" {
				value = nil // it holds a time
			}
			lines = append(lines, "setting "+key+": "+string(value))
		}
		slices.Sort(lines)
		return lines
	}
	run := func(t *testing.T, at int, mode fault) (calls, end []string) {
		synctest.Test(t, func(t *testing.T) {
			w := left.copy(t)
			c := &cuts{}
			w.claim("node-2", nil)
			c.at, c.mode = at, mode
			w.cut(c, func(cfg *Config) {
				from(left.base)(cfg)
				cfg.Source = true
				cfg.RestoreSetting = func(key string) bool { return key == "roots" }
			})
			calls, end = c.calls, look(w)
			for _, n := range w.order {
				w.wantServed(n, version(n))
			}
		})
		return calls, end
	}
	calls, want := run(t, 0, notApplied)
	t.Logf("%d effects", len(calls))
	if len(calls) < 30 {
		t.Fatalf("the rebuild does little: %q", calls)
	}
	schedules := 0
	for i, call := range calls {
		for mode, name := range faultNames() {
			if isRead(call) && fault(mode) != notApplied && fault(mode) != crashBefore {
				continue
			}
			schedules++
			if testing.Short() && i%8 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%03d %s %s", i+1, strings.ReplaceAll(call, "/", " "), name), func(t *testing.T) {
				t.Parallel()
				_, got := run(t, i+1, fault(mode))
				for _, line := range got {
					if !slices.Contains(want, line) {
						t.Errorf("ends with %s", line)
					}
				}
				for _, line := range want {
					if !slices.Contains(got, line) {
						t.Errorf("ends without %s", line)
					}
				}
			})
		}
	}
	t.Logf("%d schedules", schedules)
	if schedules < 108 {
		t.Errorf("%d schedules, there were 108", schedules)
	}
}
