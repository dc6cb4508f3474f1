package pace

import "time"

// Status is the pace at one moment.
type Status struct {
	Limits     Limits // in force
	Configured bool   // they are those of the configuration
	Factor     float64
	Reasons    []Reason // why Factor is below 1
	Work       []WorkStatus
}

// WorkStatus is the pace of one kind of work.
type WorkStatus struct {
	Kind    Kind
	Limited bool   // the limits hold for it
	Held    *Held  // why it stands still; nil: it does not
	Waiting bool   // on this node, for the rate or the slow-down
	Used    Amount // of the day's budget, while there is one
	// NextWindow is when the windows open, or when they close while one is open;
	// zero: they never change.
	NextWindow time.Time
}

// Status returns the pace now.
func (p *Pacer) Status() Status {
	now := p.cfg.Now()
	st := Status{Factor: p.cfg.Governor.Factor(), Reasons: p.cfg.Governor.Reasons()}
	s := p.settings()
	st.Limits, st.Configured = s.limits.Limits, !s.isSet
	b, _, _ := p.cfg.Settings.Setting(usedKey)
	u, err := readUsage(b, dateOf(now.In(s.limits.zone)))
	for _, k := range Kinds() {
		l, w := s.limits.of(k), p.works[k]
		ws := WorkStatus{Kind: k, Limited: l == s.limits, Held: s.held(k, now), Waiting: w.Waiting(), Used: w.used(u, l)}
		if len(l.windows) > 0 {
			ws.NextWindow = nextChange(l.windows, now)
		}
		if ws.Held == nil && l.daily() && usedUp(l, ws.Used) {
			ws.Held = &Held{Kind: k, Cause: CauseDay, Until: dateOf(now.In(l.zone)).add(1).begins(l.zone)}
		}
		if ws.Held == nil && l.daily() && err != nil {
			ws.Held = &Held{Kind: k, Cause: CauseSettings, Text: err.Error()}
		}
		st.Work = append(st.Work, ws)
	}
	return st
}

// used returns what was reserved of the day, less what this node has not spent
// yet.
func (w *Work) used(u usage, l *limits) Amount {
	if !l.daily() {
		return Amount{}
	}
	used := u.Used[w.kind]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.credit.day == u.Day {
		used = used.minus(w.credit.amount)
	}
	return Amount{max(0, used.Files), max(0, used.Bytes)}
}

func usedUp(l *limits, used Amount) bool {
	return l.FilesPerDay > 0 && used.Files >= l.FilesPerDay || l.BytesPerDay > 0 && used.Bytes >= l.BytesPerDay
}
