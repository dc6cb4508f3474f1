package pace

import "time"

// Amount counts files and their bytes.
type Amount struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (a Amount) plus(b Amount) Amount  { return Amount{a.Files + b.Files, a.Bytes + b.Bytes} }
func (a Amount) minus(b Amount) Amount { return Amount{a.Files - b.Files, a.Bytes - b.Bytes} }

// bucket is a token bucket that may go into debt: a step that cannot be cut
// is made whole, and the next waits for what it took too much. It holds at
// most one second's tokens, so that an idle hour is no licence for a burst.
type bucket struct {
	tokens float64
	at     time.Time // of tokens; zero: full
}

// burst is how much the bucket holds.
func burst(perSecond int64) float64 { return max(1, float64(perSecond)) }

// fill adds what has come since, at rate a second.
func (b *bucket) fill(perSecond int64, factor float64, now time.Time) {
	if b.at.IsZero() {
		b.tokens = burst(perSecond)
	} else if dt := now.Sub(b.at).Seconds(); dt > 0 {
		b.tokens += dt * float64(perSecond) * factor
	}
	b.tokens = min(b.tokens, burst(perSecond))
	b.at = now
}

// wait returns how long it is until want, or all that the bucket holds, is
// there. The bucket is filled.
func (b *bucket) wait(want, perSecond int64, factor float64) time.Duration {
	missing := min(float64(want), burst(perSecond)) - b.tokens
	if missing <= 1e-6 { // what rounding leaves
		return 0
	}
	return max(time.Duration(missing/(float64(perSecond)*factor)*float64(time.Second)), time.Microsecond)
}

// rates is the two buckets of one kind of work.
type rates struct{ files, bytes bucket }

// wait fills the buckets and returns how long to wait for want.
func (r *rates) wait(l *limits, want Amount, factor float64, now time.Time) time.Duration {
	var d time.Duration
	if l.FilesPerSecond > 0 {
		r.files.fill(l.FilesPerSecond, factor, now)
		d = r.files.wait(want.Files, l.FilesPerSecond, factor)
	}
	if l.BytesPerSecond > 0 {
		r.bytes.fill(l.BytesPerSecond, factor, now)
		d = max(d, r.bytes.wait(want.Bytes, l.BytesPerSecond, factor))
	}
	return d
}

// cut returns what of want is there now, the first file at least.
func (r *rates) cut(l *limits, want Want) Amount {
	got := want.Amount
	if want.Whole {
		return got
	}
	if l.FilesPerSecond > 0 {
		got.Files = min(got.Files, max(1, int64(r.files.tokens+1e-6)))
	}
	if l.BytesPerSecond > 0 {
		got.Bytes = min(got.Bytes, max(want.First, int64(r.bytes.tokens+1e-6)))
	}
	return got
}

// spend takes a from the buckets; negative amounts are given back.
func (r *rates) spend(l *limits, a Amount) {
	if l.FilesPerSecond > 0 {
		r.files.tokens -= float64(a.Files)
	}
	if l.BytesPerSecond > 0 {
		r.bytes.tokens -= float64(a.Bytes)
	}
}
