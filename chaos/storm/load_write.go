package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// written counts what the customer has done.
type written struct {
	files, changes int
	bytes          int64
	retries        int // transactions that failed and were tried again
}

// Limits of the customer's statements.
const (
	statementWithin = 15 * time.Second
	retryAfter      = 500 * time.Millisecond
)

// writeAll makes new files and changes old ones, wave by wave. A wave waits
// for no other: while the database is down they pile up.
func (l *load) writeAll(ctx context.Context, rnd *rand.Rand) error {
	waves := newGroup(ctx)
	for n := 0; sleep(waves.ctx, l.timeline.start.Add(time.Duration(n)*l.cfg.Wave)); n++ {
		files, err := l.ledger.add(burst(rnd, l.cfg.Files*l.cfg.Wave.Seconds()))
		if err != nil {
			return errors.Join(err, waves.wait())
		}
		waves.start(func(ctx context.Context) error { return l.deliver(ctx, files, 0) })
		// Half of the changes hit files that are about to be archived, or whose
		// originals are about to be deleted.
		for _, among := range []int{0, recently} {
			changed, err := l.ledger.change(l.ledger.sample(rnd, burst(rnd, l.cfg.Changes*l.cfg.Wave.Seconds()/2), among))
			if err != nil {
				return errors.Join(err, waves.wait())
			}
			dawdle := time.Duration(max(0, rnd.Int64N(int64(2*dawdles))-int64(dawdles)))
			waves.start(func(ctx context.Context) error { return l.deliver(ctx, changed, dawdle) })
		}
	}
	return waves.wait()
}

const (
	// recently is how many of the last files count as young.
	recently = 200

	// dawdles is the longest time between a change of files and that of their
	// rows. Half of the waves take none.
	dawdles = 6 * time.Second
)

// burst is a number around mean: seldom much more, often less.
func burst(rnd *rand.Rand, mean float64) int {
	return int(mean*rnd.ExpFloat64()*0.5 + mean*0.5 + rnd.Float64())
}

// deliver puts the last versions of files at their paths and, after dawdle, has
// the customer's table say so, however long that takes.
func (l *load) deliver(ctx context.Context, files []*file, dawdle time.Duration) error {
	for _, f := range l.ledger.unplaced(files) {
		if err := l.ledger.place(f, l.src, l.incoming); err != nil {
			return fmt.Errorf("place %s: %w", f.name, err)
		}
	}
	if dawdle > 0 && !sleep(ctx, time.Now().Add(dawdle)) {
		return nil // finish does the rest
	}
	for told := false; len(files) > 0; {
		err := l.transact(ctx, files)
		files = l.ledger.unlisted(files)
		if len(files) == 0 {
			return nil
		}
		if err == nil {
			err = errNotTaken
		}
		if !told && ctx.Err() == nil {
			l.logf("the customer tries again: %v", err)
			told = true
		}
		l.mu.Lock()
		l.wrote.retries++
		l.mu.Unlock()
		if !sleep(ctx, time.Now().Add(retryAfter)) {
			return nil // likewise
		}
	}
	return nil
}

// errNotTaken: the statements succeeded, and yet the rows are not as they say.
var errNotTaken = errors.New("rows are not as they were written")

// transact inserts the rows of new files and updates those of changed ones.
// Whatever was committed before is left alone, so that it can be repeated when
// the outcome of a try is unknown. What is known to be committed is noted.
func (l *load) transact(ctx context.Context, files []*file) error {
	ctx, cancel := context.WithTimeout(ctx, statementWithin)
	defer cancel()
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	err = l.write(ctx, conn, files)
	return errors.Join(err, l.lookUp(ctx, conn, files), closeConn(conn))
}

// connect opens the customer's own connection. What it commits outlives the
// death of the server.
func (s *scene) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(s.database)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["synchronous_commit"] = "on"
	cfg.ConnectTimeout = 3 * time.Second
	return pgx.ConnectConfig(ctx, cfg)
}

func closeConn(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return conn.Close(ctx)
}

func (l *load) write(ctx context.Context, conn *pgx.Conn, files []*file) error {
	var names, paths []string
	var sizes []int64
	var times []time.Time
	for _, f := range files {
		v := l.ledger.current(f)
		if v.number == 1 {
			names, paths, sizes, times = append(names, f.name), append(paths, f.path(l.src)), append(sizes, v.size), append(times, v.modified)
			continue
		}
		// One row a transaction, as an application does when a user saves a file.
		_, err := conn.Exec(ctx, `UPDATE `+l.table+` SET size = $2, modified_at = $3, status = 'ACTIVE'
			WHERE name = $1 AND (size, modified_at) IS DISTINCT FROM ($2, $3)`, f.name, v.size, v.modified)
		if err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	_, err := conn.Exec(ctx, `INSERT INTO `+l.table+` (name, path, size, modified_at)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[]) ON CONFLICT DO NOTHING`, names, paths, sizes, times)
	return err
}

// lookUp notes which of the files have rows that say what was written.
func (l *load) lookUp(ctx context.Context, conn *pgx.Conn, files []*file) error {
	byName := map[string]*file{}
	names := make([]string, len(files))
	for i, f := range files {
		names[i], byName[f.name] = f.name, f
	}
	rows, err := conn.Query(ctx, `SELECT name, id, size, modified_at FROM `+l.table+` WHERE name = ANY($1)`, names)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var id, size int64
		var modified time.Time
		if err := rows.Scan(&name, &id, &size, &modified); err != nil {
			return err
		}
		f := byName[name]
		if v := l.ledger.current(f); v.size == size && v.modified.Equal(modified) && l.ledger.list(f, id, time.Now()) {
			l.delivered(v)
		}
	}
	return rows.Err()
}

func (l *load) delivered(v version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrote.bytes += v.size; v.number == 1 {
		l.wrote.files++
	} else {
		l.wrote.changes++
	}
}

// finish delivers what was cut when run ended. It is called once all faults
// are healed.
func (l *load) finish(ctx context.Context) error {
	files := l.ledger.unlisted(l.ledger.all())
	if err := l.deliver(ctx, files, 0); err != nil {
		return err
	}
	if left := l.ledger.unlisted(files); len(left) > 0 {
		return fmt.Errorf("%d rows could not be written: %w", len(left), context.Cause(ctx))
	}
	return nil
}
