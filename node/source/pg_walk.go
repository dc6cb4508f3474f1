package source

import (
	"context"
	"sync"
	"time"

	"github.com/datavision/desnode/migrations"
)

// A search through a table that no index answers goes by windows of its ids:
// one statement finds where the next so many rows end, another looks at those.
// Both are short however large the table is.
const (
	// windowRows is how many rows a window holds at first, and at least.
	windowRows = 5000
	// mostWindowRows is how far a window grows while it is looked at quickly.
	mostWindowRows = 16 * windowRows
	windowQuick    = 100 * time.Millisecond
	windowSlow     = time.Second
)

// What looks for rows to mark in one statement.
const (
	directLimit = 5 * time.Second        // it is given up after that
	directSlow  = 500 * time.Millisecond // from there on windows are better
	narrowFor   = 10 * time.Minute       // and are used for so long
)

// idleShare is how many times as long as a search took the rows that it passed
// are left alone.
const idleShare = 20

// among says which rows a window counts.
type among uint8

const (
	byKeys   among = iota // all, those outside of the filter included
	byActive              // the ACTIVE ones in scope, by their partial index
)

// window returns the id of the last of the next n rows behind after, "" when
// there are none, and whether there may be more.
func (p *Postgres) window(ctx context.Context, c call, after string, n int64, rows among) (upTo string, full bool, err error) {
	var wrong error
	_, err = collect(ctx, p, c, func(q *pgQueries) request {
		v := &params{}
		if wrong = q.place(after); wrong != nil {
			return request{sql: "SELECT WHERE false"}
		}
		upTo = ""
		id, from := q.col(migrations.ColID), " FROM "+q.keys+" WHERE true"
		if rows == byActive {
			from = q.from(q.is(Active))
		}
		return request{"SELECT w.id::text, count(*) OVER () FROM (SELECT " + id + " AS id" + from + q.behind(v, after) +
			" ORDER BY " + id + " LIMIT " + v.integer(n) + ") AS w ORDER BY w.id DESC LIMIT 1", *v}
	}, func(_ *pgQueries, row pgCells) (struct{}, error) {
		held, err := row.integer(1)
		upTo, full = row.text(0), held == n
		return struct{}{}, err
	})
	if wrong != nil {
		err = p.wrap(c.op, wrong)
	}
	return upTo, full, err
}

// search is one search for eligible rows.
type search struct {
	p      *Postgres
	before time.Time
	limit  int
}

func (s *search) eligible(q *pgQueries, v *params) string {
	return q.is(Active) + " AND " + q.eligible(v, s.before)
}

// walk goes from behind after to the first window that holds such rows, or to
// the end.
func (s *search) walk(ctx context.Context, after string) ([]Row, error) {
	p := s.p
	if after == "" {
		after = p.idle.start(p.cfg.Now())
	} else {
		p.idle.dealtWith(after)
	}
	for size := int64(windowRows); ; {
		began := p.cfg.Now()
		upTo, full, err := s.next(ctx, after, size)
		if err != nil || upTo == "" {
			return nil, err
		}
		c := call{role: RoleMarker, op: "eligible", narrow: true}
		found, err := p.list(ctx, c, after, s.limit, func(q *pgQueries, v *params) string {
			return s.eligible(q, v) + " AND " + q.col(migrations.ColID) + " <= " + v.text(upTo) + "::" + q.id.cast
		})
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			p.idle.found(after, found[len(found)-1].ID)
			return found, nil
		}
		if !full {
			return nil, nil
		}
		now := p.cfg.Now()
		took := now.Sub(began)
		p.idle.passed(after, upTo, took, now)
		switch {
		case took < windowQuick:
			size = min(2*size, mostWindowRows)
		case took > windowSlow:
			size = windowRows
		}
		after = upTo
	}
}

// next is the next window: of ACTIVE rows where an index knows them.
func (s *search) next(ctx context.Context, after string, size int64) (upTo string, full bool, err error) {
	p := s.p
	c := call{role: RoleMarker, op: "eligible", narrow: true}
	if !p.resolved.Side && !p.idle.keysOnly(p.cfg.Now()) {
		c.limit = min(p.cfg.StatementTimeout, directLimit)
		upTo, full, err = p.window(ctx, c, after, size, byActive)
		if sqlState(err) != queryCanceled || ctx.Err() != nil {
			return upTo, full, err
		}
		p.idle.keysUntil(p.cfg.Now().Add(narrowFor))
		c.limit = 0
	}
	return p.window(ctx, c, after, size, byKeys)
}

// idle remembers up to which id a walk has left nothing to mark. That holds for
// 20 times as long as the search took; meanwhile the next walk begins there. So
// rows are found late, but a large table that nothing happens in costs the
// database a twentieth of the time at most, and rows with higher ids than all
// others are found at once: the last window is never passed. It is forgotten
// when somebody asks how many rows are eligible and there are some (`desnode
// archive`), and when rows are retried.
type idle struct {
	mu      sync.Mutex // guards what follows
	upTo    string     // "": nothing is known
	until   time.Time  // how long that holds
	took    time.Duration
	last    string    // of the rows found right behind upTo; the caller has them
	windows time.Time // until when windows are used instead of one statement
	keys    time.Time // until when these count all rows
}

// start is the id behind which a walk from the beginning may begin.
func (i *idle) start(now time.Time) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last = ""
	if !now.Before(i.until) {
		i.upTo, i.took = "", 0
	}
	return i.upTo
}

// found notes the last of the rows that were found behind after.
func (i *idle) found(after, last string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.upTo == after {
		i.last = last
	}
}

// dealtWith notes that whoever was given the rows up to that id goes on behind
// them. What it left as it was, it will find later.
func (i *idle) dealtWith(upTo string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last == upTo {
		i.upTo, i.last = upTo, ""
	}
}

// passed notes that there was nothing between two ids. It counts when all
// before was passed too.
func (i *idle) passed(after, upTo string, took time.Duration, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.upTo != after {
		return
	}
	i.upTo, i.last, i.took = upTo, "", i.took+took
	i.until = now.Add(idleShare * i.took)
}

func (i *idle) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.upTo, i.last, i.until, i.took = "", "", time.Time{}, 0
}

func (i *idle) narrow(now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return now.Before(i.windows)
}

func (i *idle) narrowUntil(at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.windows = at
}

func (i *idle) keysOnly(now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return now.Before(i.keys)
}

func (i *idle) keysUntil(at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = at
}
