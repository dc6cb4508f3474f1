package source

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/datavision/desnode/migrations"
)

// Unidentified lists rows without a file id, by rising id. A row's file id holds
// for its path, size and time: when one of them changes it has none.
func (p *Postgres) Unidentified(ctx context.Context, after string, limit int) ([]Row, error) {
	return p.unidentified(ctx, "unidentified", after, min(limit, MaxBatch), func(string) {})
}

// unidentified searches the table in windows, each a short statement, and tells
// passed the id up to which there was none.
func (p *Postgres) unidentified(ctx context.Context, op, after string, limit int, passed func(upTo string)) ([]Row, error) {
	c := call{role: RoleDeleter, op: op, narrow: true}
	for {
		upTo, full, err := p.window(ctx, c, after, windowRows, byKeys)
		if err != nil || upTo == "" {
			return nil, err
		}
		found, err := p.list(ctx, c, after, limit, func(q *pgQueries, v *params) string {
			return q.reaches() + " AND NOT EXISTS (SELECT 1" + q.identified() + ") AND " +
				q.col(migrations.ColID) + " <= " + v.text(upTo) + "::" + q.id.cast
		})
		if err != nil || len(found) > 0 {
			return found, err
		}
		passed(upTo)
		if !full {
			return nil, nil
		}
		after = upTo
	}
}

// reaches is the condition that the row's file may be there.
func (q *pgQueries) reaches() string { return "(" + q.is(DeletedSource) + ") IS NOT TRUE" }

// Identify writes the file ids of rows that have none, into a table of
// desnode's own: it costs the source's rows no update.
func (p *Postgres) Identify(ctx context.Context, rows []Row, fileIDs []string) error {
	const op = "identify"
	err := checkBatch(len(rows))
	if err == nil && len(rows) != len(fileIDs) {
		err = fmt.Errorf("%d rows, %d file ids", len(rows), len(fileIDs))
	}
	if err != nil || len(rows) == 0 {
		return p.wrap(op, err)
	}
	_, err = collect(ctx, p, call{role: RoleDeleter, op: op}, func(q *pgQueries) request { return q.identify(rows, fileIDs) }, noRow)
	return err
}

// identify writes what the rows hold now, as far as it is what was seen: when
// the source system changes a row, what stands here of it holds no longer.
func (q *pgQueries) identify(rows []Row, fileIDs []string) request {
	var batch []lastSeen
	var states, files []string
	for i := range rows {
		s := q.seen(i, &rows[i])
		word, known := q.wordOf(rows[i].State)
		if known && q.possible(s) && storable(fileIDs[i]) && fileIDs[i] != "" {
			batch, states, files = append(batch, s), append(states, word), append(files, fileIDs[i])
		}
	}
	v := &params{}
	table, among := q.batchSQL(v, batch, []string{v.texts(states), v.texts(files)})
	id, status := q.col(migrations.ColID), q.col(migrations.ColStatus)
	return request{"WITH k AS (" + table + ") INSERT INTO desnode.file_id AS f (source, id, path, size, modified_at, file_id) SELECT " +
		strings.Join([]string{q.source, id + "::text", q.path(), q.size, q.written(), "k.m2"}, ", ") +
		" FROM k, " + q.relation + " WHERE " + q.match(change{}, "k") + " AND " + status + "::text = k.m1 AND " + among + q.filter +
		" ORDER BY " + id + " ON CONFLICT (source, id) DO UPDATE SET path = excluded.path, size = excluded.size," +
		" modified_at = excluded.modified_at, file_id = excluded.file_id" +
		" WHERE (f.path, f.size, f.modified_at) IS DISTINCT FROM (excluded.path, excluded.size, excluded.modified_at)", *v}
}

// wordOf returns the table's word for a state.
func (q *pgQueries) wordOf(state State) (string, bool) {
	for word, s := range q.words {
		if s == state {
			return word, true
		}
	}
	return "", false
}

// ForgetMissing makes the rows that led to no file unknown again.
func (p *Postgres) ForgetMissing(ctx context.Context) error {
	return p.forget(ctx, "forget missing files", func(v *params) string { return "= " + v.text(NoFileID) })
}

// ForgetFiles makes the rows with a device and an inode unknown again.
func (p *Postgres) ForgetFiles(ctx context.Context) error {
	return p.forget(ctx, "forget files", func(v *params) string { return "NOT LIKE " + v.text(objectScheme+"%") })
}

// forget drops the file ids of which a condition holds, some at a time.
func (p *Postgres) forget(ctx context.Context, op string, condition func(*params) string) error {
	p.proof.forget()
	for {
		gone, err := collect(ctx, p, call{role: RoleDeleter, op: op}, func(q *pgQueries) request {
			v := &params{}
			return request{"WITH gone AS (DELETE FROM desnode.file_id AS f WHERE f.source = " + q.source +
				" AND f.id IN (SELECT m.id FROM desnode.file_id AS m WHERE m.source = " + q.source + " AND m.file_id " + condition(v) +
				" ORDER BY m.id LIMIT " + v.integer(windowRows) + ") RETURNING 1) SELECT count(*) FROM gone", *v}
		}, scanPlace)
		if err != nil || gone[0] < windowRows {
			p.proof.forget()
			return err
		}
	}
}

// proof remembers that every row of the source was found to be identified.
type proof struct {
	turn chan struct{} // holds one token while a pass is under way

	mu      sync.Mutex // guards what follows
	until   time.Time  // how long it holds
	last    string     // the last id that was looked at
	unknown string     // the id of the one row that was not identified; "": none
	age     int        // how often it was forgotten
}

func (f *proof) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = time.Time{}
	f.age++
}

// Sharing counts the other rows that reach the same file. A DELETED_SOURCE row
// reaches none: its file is gone, and the system gives its inode to others.
//
// Rows of equal paths are looked for in the whole table, those outside of the
// filter included, and rows of equal file ids among all that are known: both as
// of now. That no row is unknown takes a look at each of them. It is remembered
// for 20 times as long as the look took, at least a minute; meanwhile only rows
// with higher ids are looked at. So a row that the source system adds, or whose
// path it changes, below the highest id is seen that much later, unless its path
// is spelt as the file's own.
func (p *Postgres) Sharing(ctx context.Context, row Row, fileID string, paths []string) (int, error) {
	const op = "sharing"
	own := ""
	if row.Source == p.cfg.Mapping.Source {
		own = row.ID
	}
	n, err := p.sharing(ctx, call{role: RoleDeleter, op: op}, own, fileID, paths)
	if err != nil || n > 0 {
		return n, err
	}
	unknown, err := p.unknown(ctx, op, own)
	if err == nil && unknown {
		err = p.wrap(op, ErrUnidentified)
	}
	return 0, err
}

func (p *Postgres) sharing(ctx context.Context, c call, own, fileID string, paths []string) (int, error) {
	var known []string
	for _, path := range paths {
		if storable(path) {
			known = append(known, path)
		}
	}
	found, err := collect(ctx, p, c, func(q *pgQueries) request {
		v := &params{}
		id := q.col(migrations.ColID)
		others := " AND " + q.reaches()
		if q.id.holds(own) {
			others += " AND " + id + " <> " + v.text(own) + "::" + q.id.cast
		}
		arms := "SELECT " + id + "::text AS id FROM " + q.relation + " WHERE " + q.col(migrations.ColPath) + " = ANY (" + v.texts(known) + ")" + others
		if storable(fileID) && fileID != "" {
			file := v.text(fileID)
			arms += " UNION SELECT " + id + "::text FROM " + q.relation + " WHERE " + id +
				" = ANY (ARRAY(SELECT e.id FROM desnode.file_id AS e WHERE e.source = " + q.source + " AND e.file_id = " + file + ")::" + q.id.cast + "[])" +
				" AND EXISTS (SELECT 1" + q.identified() + " AND f.file_id = " + file + ")" + others
		}
		return request{"SELECT count(*) FROM (" + arms + ") AS reached", *v}
	}, scanPlace)
	if err != nil {
		return 0, err
	}
	return found[0], nil
}

// unknown reports whether a row other than own is not identified.
func (p *Postgres) unknown(ctx context.Context, op, own string) (bool, error) {
	f := &p.proof
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return false, p.wrap(op, ctx.Err())
	}
	began := p.cfg.Now()
	f.mu.Lock()
	last, but, valid, age := f.last, f.unknown, began.Before(f.until), f.age
	f.mu.Unlock()
	if !valid || but != "" && but != own {
		last, but, valid = "", "", false
	}
	for {
		found, err := p.unidentified(ctx, op, last, 2, func(upTo string) { last = upTo })
		if err != nil {
			return false, err
		}
		if len(found) == 0 {
			break
		}
		for _, r := range found {
			if r.ID != own {
				return true, nil
			}
		}
		but, last = own, own
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.age != age { // ForgetMissing was called meanwhile
		return false, nil
	}
	f.last, f.unknown = last, but
	if !valid {
		now := p.cfg.Now()
		f.until = now.Add(max(time.Minute, 20*now.Sub(began)))
	}
	return false, nil
}
