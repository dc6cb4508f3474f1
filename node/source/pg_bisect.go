package source

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// bisect applies a batch inside a transaction though the database refuses some
// of its rows: what is refused as a whole is tried in halves. n bad rows of a
// batch cost at most about 2 n log2(batch) statements.
type bisect struct {
	s *session
	// apply builds the statement for rows [from, to).
	apply func(from, to int) request
	// done is told of each row that the statement changed.
	done func(i int)
	// alone is told of a row that is refused.
	alone func(ctx context.Context, i int, why *pgconn.PgError) error
}

func (b *bisect) run(ctx context.Context, from, to int) error {
	if from == to {
		return nil
	}
	var changed []int64 // 1 is from
	refused, err := b.s.try(ctx, func(c pgCells) error {
		n, err := c.integer(0)
		changed = append(changed, n)
		return err
	}, b.apply(from, to))
	if err != nil {
		return err
	}
	if refused == nil {
		for _, n := range changed {
			b.done(from + int(n) - 1)
		}
		return nil
	}
	if to-from == 1 {
		return b.alone(ctx, from, refused)
	}
	middle := (from + to) / 2
	if err := b.run(ctx, from, middle); err != nil {
		return err
	}
	return b.run(ctx, middle, to)
}
