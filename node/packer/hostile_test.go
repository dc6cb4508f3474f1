package packer

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/hostiletest"
	"github.com/datavision/desnode/raftmeta"
)

// Rows and files that mean harm, through marker and packer: each ends FAILED
// with its code, the others go on, nothing outside of the roots is opened.
func TestHostileRows(t *testing.T) {
	w := newWorld(t)
	h := hostiletest.Plant(t, t.TempDir())
	w.sources[0].Files = source.NewOriginals(func() []source.Root { return h.Roots },
		func(string) (source.Objects, error) { return nil, errors.New("no bucket may be asked for") })
	planted := w.plant("files", h.Cases)
	if len(planted) < 50 {
		t.Fatalf("the table took %d rows only", len(planted))
	}
	watchdog := time.AfterFunc(2*time.Minute, func() { panic("a hostile row blocks the others") })
	defer watchdog.Stop()
	w.markAll()
	w.drain(w.packer(func(c *Config) { c.MaxAttempts = 1; c.SmallFile = 12 })) // read whole, and streamed
	for id, c := range planted {
		row, err := w.tables["files"].ByID(t.Context(), id)
		if err != nil {
			t.Errorf("%s: %v", c.What, err)
			continue
		}
		if c.Code != "" {
			if row.State != source.Failed || row.ErrorCode != c.Code {
				t.Errorf("%s: %s %q (%s), want FAILED %q", c.What, row.State, row.ErrorCode, row.ErrorText, c.Code)
			}
			continue
		}
		if row.State != source.Packed {
			t.Errorf("%s: %s %q (%s), want PACKED", c.What, row.State, row.ErrorCode, row.ErrorText)
			continue
		}
		if got, header := w.read(c.Name); string(got) != c.Body || hostiletest.Secret(got) || header.Meta.ContentType != c.Content {
			t.Errorf("%s: served is %q of type %q, want %q of %q", c.What, got, header.Meta.ContentType, c.Body, c.Content)
		}
	}
	h.Untouched()
}

// plant inserts the rows as the customer's system would, past every check but
// the table's own, and returns those that it took, by id.
func (w *world) plant(src string, cases []hostiletest.Case) map[string]hostiletest.Case {
	w.t.Helper()
	db, err := sql.Open("sqlite", w.dbs[src]+"?_pragma=busy_timeout(10000)")
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	planted := make(map[string]hostiletest.Case)
	for _, c := range cases {
		values := map[string]any{"name": c.Name, "path": c.Path, "size": c.Size, "modified_at": c.Modified.UnixNano()}
		for _, column := range c.Null {
			values[column] = nil
		}
		var contentType any
		if c.Content != "" {
			contentType = c.Content
		}
		var id string
		err := db.QueryRowContext(w.t.Context(), `INSERT INTO files (name, path, size, modified_at, checksum, content_type, eligible)
			VALUES (?, ?, ?, ?, ?, ?, 1) RETURNING id`,
			values["name"], values["path"], values["size"], values["modified_at"], c.SHA256, contentType).Scan(&id)
		switch {
		case err == nil:
			planted[id] = c
		case !c.Refusable || !strings.Contains(err.Error(), "constraint"):
			w.t.Errorf("%s: %v", c.What, err)
		}
	}
	return planted
}

// markAll runs the marker over all sources, as a node does.
func (w *world) markAll() {
	w.t.Helper()
	m, err := marker.New(marker.Config{Sources: func() []source.Source { return w.sources }, Leases: anyLease{}, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := m.Once(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// anyLease grants every marking lease.
type anyLease struct{}

func (anyLease) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	return work(ctx, raftmeta.Lease{Job: job})
}
