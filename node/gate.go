package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// gate keeps work from a source until it has been proven to be this cluster's
// and as the contract wants it, and heeds what the source says of a newer
// generation of the cluster. The proof is asked for again, at most every
// gatePause, until it is given, and holds for gateHolds: tables are altered
// while a node runs. Reads pass: what they find is held against the record's
// own identity.
type gate struct {
	source.Table
	prove func(context.Context) error // nil: it is
	heed  func(error) error           // passes errors on

	mu    sync.Mutex // guards what follows
	open  bool
	asked time.Time // when prove was asked last
	why   error     // what it said
}

// gatePause is the least time between two attempts to prove a source.
const gatePause = 5 * time.Second

// gateHolds is how long a proof holds.
const gateHolds = time.Hour

// errUnproven: a source was not proven to be as it must be.
var errUnproven = errors.New("no work before the source is proven")

// pass returns nil once the source is proven.
func (g *gate) pass(ctx context.Context) error {
	if g.prove == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	wait := gatePause
	if g.open {
		wait = gateHolds
	}
	if g.asked.IsZero() || time.Since(g.asked) >= wait {
		g.why = g.heed(g.prove(ctx))
		g.asked = time.Now()
		g.open = g.why == nil
	}
	if g.open {
		return nil
	}
	return fmt.Errorf("%w: %w", errUnproven, g.why)
}

// gated runs f behind the gate.
func gated[T any](ctx context.Context, g *gate, f func() (T, error)) (T, error) {
	if err := g.pass(ctx); err != nil {
		var none T
		return none, err
	}
	v, err := f()
	return v, g.heed(err)
}

// do is gated for what returns an error alone.
func (g *gate) do(ctx context.Context, f func() error) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.heed(f())
}

func (g *gate) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	return gated(ctx, g, func() ([]source.Row, error) { return g.Table.Eligible(ctx, before, after, limit) })
}

func (g *gate) Mark(ctx context.Context, rows []source.Row, m source.Marking) ([]bool, error) {
	return gated(ctx, g, func() ([]bool, error) { return g.Table.Mark(ctx, rows, m) })
}

func (g *gate) Refuse(ctx context.Context, row source.Row, code, text string, at time.Time) error {
	return g.do(ctx, func() error { return g.Table.Refuse(ctx, row, code, text, at) })
}

func (g *gate) Marked(ctx context.Context, r desformat.Range, after source.After, due source.Due, limit int) ([]source.Row, error) {
	return gated(ctx, g, func() ([]source.Row, error) { return g.Table.Marked(ctx, r, after, due, limit) })
}

func (g *gate) Attempt(ctx context.Context, row source.Row, code, text string, limit int, at time.Time) (bool, error) {
	return gated(ctx, g, func() (bool, error) { return g.Table.Attempt(ctx, row, code, text, limit, at) })
}

func (g *gate) Acknowledge(ctx context.Context, acks []source.Ack, limit int, at time.Time) ([]source.AckResult, error) {
	return gated(ctx, g, func() ([]source.AckResult, error) { return g.Table.Acknowledge(ctx, acks, limit, at) })
}

func (g *gate) Deletable(ctx context.Context, pack desformat.PackID, packedBefore time.Time, after string, limit int) ([]source.Row, error) {
	return gated(ctx, g, func() ([]source.Row, error) { return g.Table.Deletable(ctx, pack, packedBefore, after, limit) })
}

func (g *gate) Claim(ctx context.Context, row source.Row, claim string) (bool, error) {
	return gated(ctx, g, func() (bool, error) { return g.Table.Claim(ctx, row, claim) })
}

func (g *gate) Unclaim(ctx context.Context, row source.Row, claim, code, text string, at time.Time) error {
	return g.do(ctx, func() error { return g.Table.Unclaim(ctx, row, claim, code, text, at) })
}

func (g *gate) Deleted(ctx context.Context, row source.Row, claim string, at time.Time) (bool, error) {
	return gated(ctx, g, func() (bool, error) { return g.Table.Deleted(ctx, row, claim, at) })
}

func (g *gate) Sharing(ctx context.Context, row source.Row, fileID string, paths []string) (int, error) {
	return gated(ctx, g, func() (int, error) { return g.Table.Sharing(ctx, row, fileID, paths) })
}

func (g *gate) Unidentified(ctx context.Context, after string, limit int) ([]source.Row, error) {
	return gated(ctx, g, func() ([]source.Row, error) { return g.Table.Unidentified(ctx, after, limit) })
}

func (g *gate) Identify(ctx context.Context, rows []source.Row, fileIDs []string) error {
	return g.do(ctx, func() error { return g.Table.Identify(ctx, rows, fileIDs) })
}

func (g *gate) ForgetMissing(ctx context.Context) error {
	return g.do(ctx, func() error { return g.Table.ForgetMissing(ctx) })
}

func (g *gate) ForgetFiles(ctx context.Context) error {
	return g.do(ctx, func() error { return g.Table.ForgetFiles(ctx) })
}

func (g *gate) Restore(ctx context.Context, rows []source.Restored) ([]source.RestoreResult, error) {
	return gated(ctx, g, func() ([]source.RestoreResult, error) { return g.Table.Restore(ctx, rows) })
}

func (g *gate) Register(ctx context.Context, files []source.File) ([]source.Registered, error) {
	return gated(ctx, g, func() ([]source.Registered, error) { return g.Table.Register(ctx, files) })
}

func (g *gate) Retry(ctx context.Context, which source.Selection, at time.Time) (int64, error) {
	return gated(ctx, g, func() (int64, error) { return g.Table.Retry(ctx, which, at) })
}
