package pace

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind is a kind of work that has a pace.
type Kind string

// The kinds of work.
const (
	Mark   Kind = "mark"
	Pack   Kind = "pack"
	Delete Kind = "delete"
)

// Kinds returns every kind of work.
func Kinds() []Kind { return []Kind{Mark, Pack, Delete} }

// checkKinds refuses words that are no kind, and repeated ones.
func checkKinds(kinds []Kind) error {
	for i, k := range kinds {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("%w: %q is none of mark, pack, delete", ErrInvalid, k)
		}
		if slices.Contains(kinds[:i], k) {
			return fmt.Errorf("%w: %q stands there twice", ErrInvalid, k)
		}
	}
	return nil
}

// Errors of this package, returned wrapped.
var (
	// ErrInvalid: a window, a limit, a pause or a setting makes no sense.
	ErrInvalid = errors.New("invalid pace")
	// ErrHeld is what every *Held is, by errors.Is.
	ErrHeld = errors.New("held")
)

// Cause is why work stands still.
type Cause string

// The causes.
const (
	CausePause  Cause = "pause"  // an operator paused it
	CauseWindow Cause = "window" // no window is open
	CauseDay    Cause = "day"    // the day's budget is used up
	// CauseSettings: the replicated settings cannot be read, so that nobody knows
	// whether an operator wants it to go on. To set them anew is the way out.
	CauseSettings Cause = "settings"
)

// Held says why no work of a kind may begin.
type Held struct {
	Kind  Kind
	Cause Cause
	Until time.Time // zero: until somebody resumes it
	Text  string    // of a pause: the operator's reason; of settings: what is wrong
	By    string    // of a pause: who
}

// Error returns one sentence for an operator.
func (h *Held) Error() string {
	until := ""
	if !h.Until.IsZero() {
		until = " until " + h.Until.UTC().Format(time.RFC3339)
	}
	switch h.Cause {
	case CausePause:
		by := ""
		if h.By != "" {
			by = " by " + h.By
		}
		return fmt.Sprintf("%s is paused%s%s: %s", h.Kind, until, by, h.Text)
	case CauseWindow:
		return fmt.Sprintf("%s waits for its window%s", h.Kind, until)
	case CauseSettings:
		return fmt.Sprintf("%s is held: %s; set the throttle anew", h.Kind, h.Text)
	default:
		return fmt.Sprintf("%s has used up the day's budget, held%s", h.Kind, until)
	}
}

// Is makes every Held an ErrHeld.
func (h *Held) Is(target error) bool { return target == ErrHeld }

// Causes returns every cause.
func Causes() []Cause { return []Cause{CausePause, CauseWindow, CauseDay, CauseSettings} }

// AsHeld returns err as a *Held, or nil when it is none.
func AsHeld(err error) *Held {
	h, _ := errors.AsType[*Held](err)
	return h
}
