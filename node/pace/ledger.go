package pace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/raftmeta"
)

// Settings are the cluster's replicated settings.
type Settings interface {
	// Setting returns a value as this node has applied it, and the index of its
	// last change.
	Setting(key string) (value []byte, modIndex uint64, ok bool)
	// Changed is closed at the next change of any setting, or later.
	Changed() <-chan struct{}
	// Set changes a setting that was last changed at ifModIndex (0: there is
	// none); durable in a quorum when it returns nil.
	// raftmeta.ErrConflict: somebody was faster. After any other error it may
	// have happened.
	Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error
}

// conflictPause is how long a node that lost a race waits, at most, until it
// has applied what won.
const conflictPause = 100 * time.Millisecond

// update replaces a setting by what change makes of it, as often as others are
// faster. What change returns with an error, or unchanged, is not stored.
func update(ctx context.Context, s Settings, key string, change func(old []byte) ([]byte, error)) error {
	for {
		changed := s.Changed() // before the look, so that no change is missed
		old, modIndex, _ := s.Setting(key)
		value, err := change(old)
		if err != nil || string(value) == string(old) {
			return err
		}
		err = s.Set(ctx, key, value, modIndex)
		if !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
		timer := time.NewTimer(conflictPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// usage is what is replicated under usedKey: what was reserved on one day.
type usage struct {
	Day  string          `json:"day"` // YYYY-MM-DD in the settings' zone
	Used map[Kind]Amount `json:"used"`
}

// readUsage decodes b for today. A day that is over counts no more. One that
// has not come yet was written by a clock ahead of ours, or in another zone: up
// to a day ahead it counts as today, so that no budget is given out twice.
func readUsage(b []byte, today date) (usage, error) {
	fresh := usage{Day: today.String(), Used: map[Kind]Amount{}}
	if len(b) == 0 {
		return fresh, nil
	}
	var u usage
	if err := json.Unmarshal(b, &u); err != nil {
		return fresh, fmt.Errorf("setting %s: %w: %w", usedKey, ErrInvalid, err)
	}
	day, err := parseDate(u.Day)
	if err != nil {
		return fresh, fmt.Errorf("setting %s: %w: %w", usedKey, ErrInvalid, err)
	}
	if day.before(today) || today.add(1).before(day) || u.Used == nil {
		return fresh, nil
	}
	return u, nil
}

// used returns what this kind of work has used of the day, without what this
// node has reserved and not spent yet.
func (w *Work) used(l *limits, now time.Time) (Amount, error) {
	b, modIndex, _ := w.p.cfg.Settings.Setting(usedKey)
	today := dateOf(now.In(l.zone))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.modIndex != modIndex || w.seen.today != today {
		u, err := readUsage(b, today)
		if err != nil {
			return Amount{}, err
		}
		w.seen = seenUsage{modIndex, today, u}
	}
	used := w.seen.usage.Used[w.kind]
	if w.credit.day == w.seen.usage.Day {
		used = used.minus(w.credit.amount)
	}
	return Amount{max(0, used.Files), max(0, used.Bytes)}, nil
}

// seenUsage is the usage as last decoded.
type seenUsage struct {
	modIndex uint64
	today    date
	usage    usage
}

// credit is what one kind of work has reserved of a day and not spent yet. It
// is not replicated: after a crash it counts as used.
type credit struct {
	day    string
	amount Amount
}

// holds reports whether the credit covers a.
func (c credit) holds(a Amount, l *limits) bool {
	return (l.FilesPerDay == 0 || c.amount.Files >= a.Files) && (l.BytesPerDay == 0 || c.amount.Bytes >= a.Bytes)
}

// reserve returns what may be done of step, from what is reserved already or
// else after reserving as much of want as the day still has; the caller holds
// w.taking. A *Held: nothing that makes sense.
func (w *Work) reserve(ctx context.Context, l *limits, want Want, step Amount, now time.Time) (Amount, string, error) {
	if !l.daily() {
		return step, "", nil
	}
	today := dateOf(now.In(l.zone))
	w.mu.Lock()
	have := w.credit
	w.mu.Unlock()
	if have.day == today.String() && have.holds(step, l) {
		return step, have.day, nil
	}
	err := update(ctx, w.p.cfg.Settings, usedKey, func(old []byte) ([]byte, error) {
		u, err := readUsage(old, today)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		have = w.credit
		w.mu.Unlock()
		if have.day != u.Day {
			have = credit{day: u.Day}
		}
		more := w.affordable(l, u.Used[w.kind], have.amount, want)
		if more == (Amount{}) {
			return old, nil
		}
		u.Used[w.kind] = u.Used[w.kind].plus(more)
		have.amount = have.amount.plus(more)
		return json.Marshal(u)
	})
	switch {
	case errors.Is(err, ErrInvalid):
		return Amount{}, "", &Held{Kind: w.kind, Cause: CauseSettings, Text: err.Error()}
	case err != nil:
		return Amount{}, "", fmt.Errorf("reserve the day's budget: %w", err)
	}
	w.mu.Lock()
	w.credit = have
	w.mu.Unlock()
	if l.FilesPerDay > 0 {
		step.Files = min(step.Files, have.amount.Files)
	}
	if l.BytesPerDay > 0 {
		step.Bytes = min(step.Bytes, have.amount.Bytes)
	}
	if step.Files < 1 || l.BytesPerDay > 0 && (have.amount.Bytes < want.First || have.amount.Bytes < 1 && want.Bytes > 0) {
		return Amount{}, "", w.heldForDay(l, now)
	}
	return step, have.day, nil
}

// affordable returns how much more to reserve, so that the credit becomes want
// as far as the day's limits go. The first file of a day goes whatever its
// size: it would never go else.
func (w *Work) affordable(l *limits, used, have Amount, want Want) Amount {
	more := want.Amount.minus(have)
	if l.FilesPerDay > 0 {
		more.Files = min(more.Files, l.FilesPerDay-used.Files)
	}
	if l.BytesPerDay > 0 {
		left := l.BytesPerDay - used.Bytes
		if used.Bytes-have.Bytes <= 0 {
			left = max(left, want.First-have.Bytes)
		}
		more.Bytes = min(more.Bytes, left)
	}
	more = Amount{max(0, more.Files), max(0, more.Bytes)}
	if l.FilesPerDay > 0 && have.Files+more.Files < 1 {
		return Amount{} // bytes alone are of no use
	}
	return more
}
