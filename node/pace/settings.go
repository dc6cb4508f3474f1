package pace

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits is how fast and when work may be done; 0 and empty: no limit. The
// zero value limits nothing.
type Limits struct {
	FilesPerSecond int64    `json:"files_per_second,omitempty"`
	FilesPerDay    int64    `json:"files_per_day,omitempty"`
	BytesPerSecond int64    `json:"bytes_per_second,omitempty"`
	BytesPerDay    int64    `json:"bytes_per_day,omitempty"`
	Windows        []string `json:"windows,omitempty"` // see ParseWindow; none: always
	Zone           string   `json:"zone,omitempty"`    // whose midnight ends a day; default UTC
	For            []Kind   `json:"for,omitempty"`     // the work that they hold for; default Mark
}

// maxWindows bounds what each look at the clock costs.
const maxWindows = 32

// limits is Limits, parsed.
type limits struct {
	Limits
	windows []Window
	zone    *time.Location
}

// parse checks l.
func (l Limits) parse() (*limits, error) {
	p := &limits{Limits: l, zone: time.UTC}
	if min(l.FilesPerSecond, l.FilesPerDay, l.BytesPerSecond, l.BytesPerDay) < 0 {
		return nil, fmt.Errorf("%w: a limit is negative; 0 is none", ErrInvalid)
	}
	if len(l.Windows) > maxWindows {
		return nil, fmt.Errorf("%w: %d windows, at most %d", ErrInvalid, len(l.Windows), maxWindows)
	}
	for _, text := range l.Windows {
		w, err := ParseWindow(text)
		if err != nil {
			return nil, err
		}
		p.windows = append(p.windows, w)
	}
	if l.Zone != "" {
		loc, err := loadZone(l.Zone)
		if err != nil {
			return nil, fmt.Errorf("%w: zone: %w", ErrInvalid, err)
		}
		p.zone = loc
	}
	if err := checkKinds(l.For); err != nil {
		return nil, err
	}
	if len(l.For) == 0 {
		p.For = []Kind{Mark}
	}
	return p, nil
}

// of returns the limits that hold for a kind of work: l, or none at all.
func (l *limits) of(kind Kind) *limits {
	if slices.Contains(l.For, kind) {
		return l
	}
	return &limits{zone: l.zone}
}

func (l *limits) daily() bool { return l.FilesPerDay > 0 || l.BytesPerDay > 0 }

// Pause stops one kind of work.
type Pause struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is resumed
}

// maxReason is the longest reason or name of a pause, in bytes.
const maxReason = 500

// check refuses what would not stand well in a log line or on a terminal.
func (p Pause) check(now time.Time) error {
	for what, s := range map[string]string{"reason": p.Reason, "by": p.By} {
		if len(s) > maxReason || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%w: %s: at most %d bytes of one printable line", ErrInvalid, what, maxReason)
		}
	}
	if strings.TrimSpace(p.Reason) == "" {
		return fmt.Errorf("%w: a pause needs a reason", ErrInvalid)
	}
	if !p.Until.IsZero() && !p.Until.After(now) {
		return fmt.Errorf("%w: the pause would end at %s, which is over", ErrInvalid, p.Until.Format(time.RFC3339))
	}
	return nil
}

// record is what is replicated under settingsKey.
type record struct {
	Limits *Limits        `json:"limits,omitempty"` // nil: those of the configuration
	Pauses map[Kind]Pause `json:"pauses,omitempty"`
}

// Keys of the replicated settings.
const (
	settingsKey = "throttle"
	usedKey     = "pace/used"
)

// settings is a record, parsed, with the limits in force.
type settings struct {
	limits *limits
	isSet  bool // the limits were set, not configured
	pauses map[Kind]Pause

	unreadable error // why nothing is known; holds all work
}

func decodeRecord(b []byte) (r record, err error) {
	if len(b) == 0 {
		return r, nil
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("setting %s: %w: %w", settingsKey, ErrInvalid, err)
	}
	return r, nil
}

// parse returns the settings of a record; configured holds where none are set.
func (r record) parse(configured *limits) (*settings, error) {
	s := &settings{limits: configured, pauses: r.Pauses}
	if r.Limits != nil {
		l, err := r.Limits.parse()
		if err != nil {
			return nil, fmt.Errorf("setting %s: %w", settingsKey, err)
		}
		s.limits, s.isSet = l, true
	}
	return s, nil
}

// held says what keeps a kind of work from beginning now, its day's budget
// apart; nil: nothing.
func (s *settings) held(kind Kind, now time.Time) *Held {
	if s.unreadable != nil {
		return &Held{Kind: kind, Cause: CauseSettings, Text: s.unreadable.Error()}
	}
	if p, ok := s.pauses[kind]; ok && (p.Until.IsZero() || now.Before(p.Until)) {
		return &Held{Kind: kind, Cause: CausePause, Until: p.Until, Text: p.Reason, By: p.By}
	}
	if w := s.limits.of(kind).windows; !anyOpen(w, now) {
		return &Held{Kind: kind, Cause: CauseWindow, Until: nextChange(w, now)}
	}
	return nil
}

// live returns the pauses that are not over.
func (r record) live(now time.Time) map[Kind]Pause {
	live := maps.Clone(r.Pauses)
	maps.DeleteFunc(live, func(_ Kind, p Pause) bool { return !p.Until.IsZero() && !now.Before(p.Until) })
	return live
}
