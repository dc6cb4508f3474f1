package marker

import (
	"context"
	"math"

	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
)

// Pacer says when and how fast rows may be marked; *pace.Work is one. Its
// methods may be called at once.
type Pacer interface {
	// Held says why no row may be marked now, a *pace.Held, or returns nil.
	Held() error
	// Waiting reports whether some Take waits now.
	Waiting() bool
	// Take waits for the rate and returns what may be marked, the first file at
	// least; a *pace.Held when nothing may. What is granted is recorded before.
	Take(ctx context.Context, want pace.Want) (*pace.Grant, error)
}

// mark marks the rows in as many steps as their pace allows.
func (r *round) mark(ctx context.Context, rows []source.Row) error {
	for len(rows) > 0 {
		want := pace.Want{First: rows[0].Size}
		for _, row := range rows {
			want.Files++
			want.Bytes += min(row.Size, math.MaxInt64-want.Bytes)
		}
		grant, err := r.cfg.Pace.Take(ctx, want)
		if err != nil {
			return err
		}
		n := fitting(rows, grant.Amount)
		done, err := r.markStep(ctx, rows[:n])
		grant.End(done)
		if err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// fitting returns how many of the first rows, one at least, a grant covers.
func fitting(rows []source.Row, grant pace.Amount) int {
	n := 0
	for n < len(rows) && (n == 0 || grant.Files >= 1 && grant.Bytes >= rows[n].Size) {
		grant.Files--
		grant.Bytes -= rows[n].Size
		n++
	}
	return n
}

// markStep marks the rows and counts those that were as listed. After an error
// nobody knows how many were: all count.
func (r *round) markStep(ctx context.Context, rows []source.Row) (done pace.Amount, err error) {
	moved, err := r.source.Rows.Mark(ctx, rows, source.Marking{At: r.cfg.Now(), Cluster: r.cfg.Cluster, ShardBits: r.cfg.ShardBits})
	for i, row := range rows {
		if err == nil && !moved[i] {
			r.metrics.moved.Inc()
			continue
		}
		done.Files++
		done.Bytes += row.Size
		if err != nil {
			continue
		}
		r.marked++
		r.backlogRows++
		r.backlogBytes += row.Size
		r.metrics.rows.Inc()
		r.metrics.bytes.Add(float64(row.Size))
	}
	return done, err
}
