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
	for _, k := range Kinds() {
		l, w := s.limits.of(k), p.works[k]
		ws := WorkStatus{Kind: k, Limited: l == s.limits, Held: w.held(s, now), Waiting: w.Waiting()}
		if l.daily() {
			ws.Used, _ = w.used(l, now) // Held has the error
		}
		if len(l.windows) > 0 {
			ws.NextWindow = nextChange(l.windows, now)
		}
		st.Work = append(st.Work, ws)
	}
	return st
}
