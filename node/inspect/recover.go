package inspect

import (
	"context"
	"errors"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Options say how far Recover may go. The zero value only tells.
type Options struct {
	Fix bool // do what is safe
	Yes bool // with Fix: do what moves objects away or deletes them, too
}

// What became of a finding, in the words of the API.
const (
	Fixed    = "fixed"     // done now
	Busy     = "busy"      // another does it at this moment
	NeedsYes = "needs-yes" // destructive, and Options have no Yes
	Failed   = "failed"    // tried; the text says why it is as it was
	Left     = "left"      // not to be done from here: the cure says how
)

// Outcome is one finding and what became of it.
type Outcome struct {
	Finding Finding
	Word    string // empty without Options.Fix
	Text    string // what was done, or why it was not
}

// Totals sum up a Recover.
type Totals struct {
	Found int64
	Fixed int64
	Left  int64 // repairable or at risk, and not fixed
}

// Recover looks for what is unfinished, mends of it what opts allow, and hands
// each finding to each, whose error ends it, with the totals so far. It may be
// repeated: what is done already is no finding any more.
func (i *Inspector) Recover(ctx context.Context, opts Options, each func(Outcome, Totals) error) (Totals, error) {
	ctx = store.WithCause(ctx, causeInspect)
	var t Totals
	all, err := i.look(ctx)
	if err != nil {
		return t, err
	}
	var superseded error
	if opts.Fix {
		superseded = i.cfg.Current(ctx)
	}
	for _, f := range all {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		o := Outcome{Finding: f.Finding}
		switch {
		case !opts.Fix:
		case superseded != nil:
			o.Word, o.Text = Left, superseded.Error()
		default:
			o = i.mend(ctx, opts, f)
		}
		t.Found++
		switch {
		case o.Word == Fixed:
			t.Fixed++
		case f.Severity != Note:
			t.Left++
		}
		if err := each(o, t); err != nil {
			return t, err
		}
	}
	return t, nil
}

// mend does what mends one finding, if opts allow it.
func (i *Inspector) mend(ctx context.Context, opts Options, f found) Outcome {
	o := Outcome{Finding: f.Finding}
	switch {
	case f.mend == nil:
		o.Word = Left
		return o
	case f.Destructive && !opts.Yes:
		o.Word, o.Text = NeedsYes, "it moves objects away or deletes them: say --yes"
		return o
	}
	done, err := f.mend(ctx)
	switch {
	case err == nil:
		o.Word, o.Text = Fixed, done
		i.log.InfoContext(ctx, "mended for an operator", "kind", f.Kind, "subject", f.Subject, "done", done)
	case errors.Is(err, raftmeta.ErrClash):
		o.Word, o.Text = Busy, err.Error()
	default:
		o.Word, o.Text = Failed, err.Error()
	}
	return o
}
