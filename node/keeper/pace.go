package keeper

import (
	"context"

	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
)

// Pacer says when and how fast originals may be deleted; *pace.Work is one. Its
// methods may be called at once.
type Pacer interface {
	// Held says why no original may be deleted now, a *pace.Held, or returns nil.
	Held() error
	// Take waits for the rate and returns how much may be deleted, the first
	// file at least; a *pace.Held when nothing may. What is granted is recorded
	// before.
	Take(ctx context.Context, want pace.Want) (*pace.Grant, error)
}

// deletionHeld reports whether no deletion may begin now, and has the survey
// look again when that may have ended.
func (s *survey) deletionHeld() bool {
	err := s.k.cfg.Pace.Held()
	if h := pace.AsHeld(err); h != nil && !h.Until.IsZero() {
		s.wake(h.Until)
	}
	return err != nil
}

// paced calls f for the rows, in steps of what their pace grants, until f
// returns false. It returns why not all rows were granted.
func (k *Keeper) paced(ctx context.Context, rows []source.Row, f func(source.Row) bool) error {
	for len(rows) > 0 {
		step := rows[:min(len(rows), source.MaxBatch)]
		want := pace.Want{First: step[0].Size}
		for _, r := range step {
			want.Files++
			want.Bytes += r.Size
		}
		grant, err := k.cfg.Pace.Take(ctx, want)
		if err != nil {
			return err
		}
		var done pace.Amount
		goOn := true
		for _, r := range step {
			next := pace.Amount{Files: done.Files + 1, Bytes: done.Bytes + r.Size}
			if done.Files > 0 && (next.Files > grant.Files || next.Bytes > grant.Bytes) {
				break
			}
			if goOn = f(r); !goOn {
				break
			}
			done = next
		}
		grant.End(done)
		if !goOn {
			return nil
		}
		rows = rows[done.Files:]
	}
	return nil
}
