package marker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// leaser grants each source's marking to one at a time.
type leaser struct {
	mu     sync.Mutex
	held   map[string]bool
	grants int
	inside func() // called while a lease is held
}

func (l *leaser) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	l.mu.Lock()
	if job.Kind != raftmeta.JobMark || l.held[job.Source] {
		l.mu.Unlock()
		return fmt.Errorf("%v: %w", job, raftmeta.ErrClash)
	}
	if l.held == nil {
		l.held = make(map[string]bool)
	}
	l.held[job.Source] = true
	l.grants++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.held, job.Source)
		l.mu.Unlock()
	}()
	if l.inside != nil {
		l.inside()
	}
	return work(ctx, raftmeta.Lease{Job: job})
}

func openTable(t *testing.T, name string) *source.SQLite {
	t.Helper()
	table, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: name, Path: filepath.Join(t.TempDir(), name+".db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

func register(t *testing.T, table source.Table, files ...source.File) {
	t.Helper()
	for len(files) > 0 {
		n := min(len(files), source.MaxBatch)
		if _, err := table.Register(t.Context(), files[:n]); err != nil {
			t.Fatal(err)
		}
		files = files[n:]
	}
}

func file(name string, size int64) source.File {
	return source.File{Name: name, Path: "/data/" + name, Size: size, ModTime: epoch}
}

func newMarker(t *testing.T, cfg Config, tables ...source.Table) *Marker {
	t.Helper()
	var sources []source.Source
	for i, table := range tables {
		sources = append(sources, source.Source{Name: fmt.Sprint("s", i), Rows: table})
	}
	cfg.Sources = func() []source.Source { return sources }
	if cfg.Leases == nil {
		cfg.Leases = &leaser{}
	}
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return epoch.Add(time.Hour) }
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func states(t *testing.T, table source.Table) map[source.State]int64 {
	t.Helper()
	counts, err := table.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[source.State]int64)
	for state, tally := range counts {
		if tally.Rows > 0 {
			rows[state] = tally.Rows
		}
	}
	return rows
}

func once(t *testing.T, m *Marker, wantMarked, wantRefused int) {
	t.Helper()
	marked, refused, err := m.Once(t.Context())
	if err != nil || marked != wantMarked || refused != wantRefused {
		t.Fatalf("marked %d, refused %d, error %v; want %d, %d and none", marked, refused, err, wantMarked, wantRefused)
	}
}

func TestMarksRowsUnderTheirServedName(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("a/b.txt", 5), file("ż.pdf", 0))
	cluster := desformat.ClusterID{1, 2, 3}
	m := newMarker(t, Config{Cluster: cluster, ShardBits: 12}, table)
	once(t, m, 2, 0)
	rows, err := table.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, 10)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		if row.DesName != row.Name || row.Version != 1 || !row.MarkedAt.Equal(epoch.Add(time.Hour)) {
			t.Errorf("marked as %+v", row)
		}
	}
	once(t, m, 0, 0)
	if rested, full, _ := m.Rested(); !rested || full {
		t.Errorf("rested %v, full %v after marking all", rested, full)
	}
}

func TestRowsThatCanNeverBeArchivedFail(t *testing.T) {
	tests := []struct {
		name, rowName, path string
		code                string
	}{
		{"good", "ok.txt", "/data/ok.txt", ""},
		{"backslash in the name", `a\b`, "/data/x", source.CodeInvalidName},
		{"name not NFC", "e\u0301", "/data/x", source.CodeInvalidName},
		{"name of 1025 bytes", strings.Repeat("n", 1025), "/data/x", source.CodeInvalidName},
		{"name not UTF-8", "a\xff", "/data/x", source.CodeInvalidName},
		{"empty name", "", "/data/x", source.CodeInvalidName},
		{"empty path", "ok", "", source.CodeInvalidPath},
		{"NUL in the path", "ok", "/data/a\x00b", source.CodeInvalidPath},
		{"path not UTF-8", "ok", "/data/\xfe", source.CodeInvalidPath},
		{"path leads out of its root", "ok", "../secret", source.CodeInvalidPath},
		{"path leads out of its root after cleaning", "ok", "a/../../secret", source.CodeInvalidPath},
		{"dots inside a segment", "ok", "a/..b/c", ""},
		{"dots that stay inside", "ok", "a/b/../c", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, text := check(source.Row{ID: "1", DesName: tt.rowName, Path: tt.path, ModTime: epoch})
			if code != tt.code {
				t.Errorf("code %q (%s), want %q", code, text, tt.code)
			}
			if (text == "") != (code == "") {
				t.Errorf("code %q goes with text %q", code, text)
			}
		})
	}
	for id, want := range map[string]string{"": source.CodeInvalidRow, strings.Repeat("i", 64): "", strings.Repeat("i", 65): source.CodeInvalidRow, "\xff": source.CodeInvalidRow} {
		if code, _ := check(source.Row{ID: id, DesName: "ok", Path: "p", ModTime: epoch}); code != want {
			t.Errorf("id of %d bytes: code %q, want %q", len(id), code, want)
		}
	}
}

func TestRefusedRowsDontStopTheOthers(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("a", 1), file(`b\c`, 1), file("d", 1))
	reg := prometheus.NewRegistry()
	m := newMarker(t, Config{Metrics: reg}, table)
	once(t, m, 2, 1)
	got := states(t, table)
	if got[source.Marked] != 2 || got[source.Failed] != 1 {
		t.Errorf("states %v", got)
	}
	failures, err := table.Failures(t.Context(), "", "", 10)
	if err != nil || len(failures) != 1 || failures[0].ErrorCode != source.CodeInvalidName || failures[0].ErrorText == "" {
		t.Errorf("failures %+v, %v", failures, err)
	}
	once(t, m, 0, 0)
	want := strings.NewReader(`
# HELP des_marker_refused_rows_total Rows that can never be archived, by failure code.
# TYPE des_marker_refused_rows_total counter
des_marker_refused_rows_total{code="invalid-name"} 1
des_marker_refused_rows_total{code="invalid-path"} 0
des_marker_refused_rows_total{code="invalid-row"} 0
# HELP des_marker_rows_total Rows moved to MARKED.
# TYPE des_marker_rows_total counter
des_marker_rows_total 2
`)
	if err := testutil.GatherAndCompare(reg, want, "des_marker_refused_rows_total", "des_marker_rows_total"); err != nil {
		t.Error(err)
	}
}

func TestBacklogStaysBelowItsLimit(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
		want int64
	}{
		// Rows are marked in batches of 1000, so a limit is overrun by less than one.
		{"rows", Config{BacklogRows: 1500}, 2000},
		{"bytes", Config{BacklogBytes: 10 * 900}, 1000},
		{"neither", Config{BacklogRows: 5000}, 3500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := openTable(t, "s0")
			var files []source.File
			for i := range 3500 {
				files = append(files, file(fmt.Sprintf("f%04d", i), 10))
			}
			register(t, table, files...)
			m := newMarker(t, tt.cfg, table)
			once(t, m, int(tt.want), 0)
			_, full, _ := m.Rested()
			if full != (tt.want < 3500) {
				t.Errorf("full %v after %d of 3500 rows", full, tt.want)
			}
			once(t, m, 0, 0)
		})
	}
}

func TestMarkingGoesOnWhenHalfTheBacklogIsPacked(t *testing.T) {
	table := openTable(t, "s0")
	var files []source.File
	for i := range 3000 {
		files = append(files, file(fmt.Sprintf("f%04d", i), 10))
	}
	register(t, table, files...)
	m := newMarker(t, Config{BacklogRows: 1000}, table)
	once(t, m, 1000, 0)
	pack(t, table, 400)
	once(t, m, 0, 0) // 600 are left: more than half
	if _, full, _ := m.Rested(); !full {
		t.Error("not full while the backlog is above half its limit")
	}
	pack(t, table, 200)
	once(t, m, 1000, 0) // 400 are left
}

// pack acknowledges n MARKED rows.
func pack(t *testing.T, table source.Table, n int) {
	t.Helper()
	rows, err := table.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, n)
	if err != nil || len(rows) != n {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	var acks []source.Ack
	for _, row := range rows {
		acks = append(acks, source.Ack{ID: row.ID, Name: row.DesName, Version: row.Version, Size: row.Size, ModTime: row.ModTime, Pack: desformat.PackID{1}})
	}
	if _, err := table.Acknowledge(t.Context(), acks, 5, epoch); err != nil {
		t.Fatal(err)
	}
}

func TestYoungRowsWait(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("imported", 1)) // eligible at once
	asked := &askedTable{Table: table}
	now := epoch.Add(time.Hour)
	m := newMarker(t, Config{MinAge: 2 * time.Hour, Now: func() time.Time { return now }}, asked)
	once(t, m, 1, 0)
	if want := epoch.Add(-time.Hour); !asked.before.Equal(want) {
		t.Errorf("asked for rows before %v, want %v", asked.before, want)
	}
}

type askedTable struct {
	source.Table
	before time.Time
}

func (a *askedTable) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	a.before = before
	return a.Table.Eligible(ctx, before, after, limit)
}

func TestMarksOnlyUnderTheSourcesLease(t *testing.T) {
	a, b := openTable(t, "s0"), openTable(t, "s1")
	register(t, a, file("a", 1))
	register(t, b, file("b", 1))
	l := &leaser{held: map[string]bool{"s0": true}} // another node marks s0
	m := newMarker(t, Config{Leases: l}, a, b)
	once(t, m, 1, 0)
	if got := states(t, a)[source.Active]; got != 1 {
		t.Error("marked a source whose lease another holds")
	}
	if rested, _, _ := m.Rested(); !rested {
		t.Error("work in other hands counts as unrest")
	}
	delete(l.held, "s0")
	once(t, m, 1, 0)
	once(t, m, 0, 0)
	if l.grants != 2 {
		t.Errorf("%d leases for two rounds with work, want 2: idle sources need none", l.grants)
	}
}

// brokenTable fails its first `broken` calls of Eligible.
type brokenTable struct {
	source.Table
	broken int
}

var errBroken = errors.New("database is away")

func (b *brokenTable) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	if b.broken > 0 {
		b.broken--
		return nil, errBroken
	}
	return b.Table.Eligible(ctx, before, after, limit)
}

func TestABrokenSourceDoesNotStopTheOthers(t *testing.T) {
	a, b := openTable(t, "s0"), openTable(t, "s1")
	register(t, a, file("a", 1))
	register(t, b, file("b", 1))
	m := newMarker(t, Config{}, &brokenTable{a, 1}, b)
	marked, _, err := m.Once(t.Context())
	if marked != 1 || !errors.Is(err, errBroken) {
		t.Fatalf("marked %d, error %v", marked, err)
	}
	if err := m.Problem(); !errors.Is(err, errBroken) {
		t.Errorf("problem %v", err)
	}
	if rested, _, _ := m.Rested(); !rested {
		t.Error("a source that can't be reached holds up the others' rows")
	}
	once(t, m, 1, 0)
	if err := m.Problem(); err != nil {
		t.Errorf("problem %v after recovery", err)
	}
}

// overtakenTable changes a row between its listing and its marking.
type overtakenTable struct {
	source.Table
	change func()
}

func (o *overtakenTable) Mark(ctx context.Context, rows []source.Row, mk source.Marking) ([]bool, error) {
	if o.change != nil {
		o.change()
		o.change = nil
	}
	return o.Table.Mark(ctx, rows, mk)
}

func TestARowThatChangedMeanwhileIsLeftForTheNextRound(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("a", 1), file("b", 1))
	changed := file("a", 2)
	m := newMarker(t, Config{}, &overtakenTable{table, func() { register(t, table, changed) }})
	once(t, m, 1, 0)
	once(t, m, 1, 0)
	rows, err := table.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, 10)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		if row.Name == "a" && row.Size != 2 {
			t.Errorf("marked with size %d, the row says 2", row.Size)
		}
	}
}

// memoryTable is a few rows in memory, for tests on virtual time.
type memoryTable struct {
	source.Table
	mu     sync.Mutex
	active []source.Row
	marks  []time.Time
	named  []string // what was marked, by the served name
}

func (m *memoryTable) Eligible(_ context.Context, _ time.Time, after string, limit int) ([]source.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if after != "" || len(m.active) == 0 {
		return nil, nil
	}
	return append([]source.Row(nil), m.active[:min(limit, len(m.active))]...), nil
}

func (m *memoryTable) Backlog(context.Context, uint8, source.Due) ([]source.Bucket, error) {
	return nil, nil
}

func (m *memoryTable) Mark(_ context.Context, rows []source.Row, mk source.Marking) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = nil
	moved := make([]bool, len(rows))
	for i := range moved {
		moved[i] = true
		m.marks = append(m.marks, mk.At)
		m.named = append(m.named, rows[i].DesName)
	}
	return moved, nil
}

func TestRunPollsAndIsWokenByKick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &memoryTable{}
		add := func() {
			table.mu.Lock()
			defer table.mu.Unlock()
			table.active = append(table.active, source.Row{ID: "1", Name: "a", Path: "a", ModTime: epoch, State: source.Active})
		}
		m := newMarker(t, Config{Poll: time.Minute, Now: time.Now}, table)
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		add()
		time.Sleep(time.Minute) // virtual
		synctest.Wait()
		add()
		m.Kick()
		m.Kick() // a second wake-up is not lost and does not block
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		if len(table.marks) != 2 || table.marks[0].Sub(began) != time.Minute || table.marks[1].Sub(began) != time.Minute {
			t.Errorf("marked at %v after a start at %v, want one minute later, twice", table.marks, began)
		}
	})
}

// blockedTable holds its first look at the rows until it is let go.
type blockedTable struct {
	memoryTable
	entered, free chan struct{}
}

func (b *blockedTable) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	if b.entered != nil {
		close(b.entered)
		b.entered = nil
		<-b.free
	}
	return b.memoryTable.Eligible(ctx, before, after, limit)
}

func TestRested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &blockedTable{entered: make(chan struct{}), free: make(chan struct{})}
		entered := table.entered
		m := newMarker(t, Config{}, table)
		want := func(want bool, when string) {
			t.Helper()
			if rested, full, _ := m.Rested(); rested != want || full {
				t.Errorf("%s: rested %v, full %v", when, rested, full)
			}
		}
		want(true, "without Run")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		<-entered
		want(false, "in the first round")
		close(table.free)
		synctest.Wait()
		want(true, "after the first round")
		m.Kick()
		want(false, "right after a kick")
		synctest.Wait()
		want(true, "after the round that was asked for")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		m.Kick()
		want(true, "when Run has ended")
	})
}

func TestOnceWaitsForTheRoundThatRuns(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("a", 1))
	var m *Marker
	inside := func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := m.Once(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a second round began beside the first: %v", err)
		}
	}
	m = newMarker(t, Config{Leases: &leaser{inside: inside}}, table)
	once(t, m, 1, 0)
}

func TestNewRefusesABadConfig(t *testing.T) {
	good := Config{Sources: func() []source.Source { return nil }, Leases: &leaser{}}
	tests := []struct {
		name   string
		change func(*Config)
		ok     bool
	}{
		{"good", func(*Config) {}, true},
		{"no sources", func(c *Config) { c.Sources = nil }, false},
		{"no leases", func(c *Config) { c.Leases = nil }, false},
		{"shards too narrow", func(c *Config) { c.ShardBits = 33 }, false},
		{"negative age", func(c *Config) { c.MinAge = -1 }, false},
		{"negative limit", func(c *Config) { c.BacklogRows = -1 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := New(cfg); (err == nil) != tt.ok {
				t.Errorf("New returned %v", err)
			}
		})
	}
}
