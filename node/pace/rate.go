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

// rate is how fast a bucket fills.
type rate struct {
	perSecond float64 // at full pace: this node's share of the cluster's
	factor    float64 // what the slow-down leaves of it
}

// shared returns the share of one of so many nodes.
func shared(perSecond int64, nodes int, factor float64) rate {
	return rate{float64(perSecond) / float64(max(1, nodes)), factor}
}

// burst is how much the bucket holds.
func (r rate) burst() float64 { return max(1, r.perSecond) }

// fill adds what has come since.
func (b *bucket) fill(r rate, now time.Time) {
	if b.at.IsZero() {
		b.tokens = r.burst()
	} else if dt := now.Sub(b.at).Seconds(); dt > 0 {
		b.tokens += dt * r.perSecond * r.factor
	}
	b.tokens = min(b.tokens, r.burst())
	b.at = now
}

// wait returns how long it is until want, or all that the bucket holds, is
// there. The bucket is filled.
func (b *bucket) wait(want int64, r rate) time.Duration {
	missing := min(float64(want), r.burst()) - b.tokens
	if missing <= 1e-6 { // what rounding leaves
		return 0
	}
	return max(time.Duration(missing/(r.perSecond*r.factor)*float64(time.Second)), time.Microsecond)
}

// rates is the two buckets of one kind of work.
type rates struct{ files, bytes bucket }

// wait fills the buckets and returns how long one of so many nodes waits for
// want.
func (r *rates) wait(l *limits, want Amount, nodes int, factor float64, now time.Time) time.Duration {
	var d time.Duration
	if l.FilesPerSecond > 0 {
		rate := shared(l.FilesPerSecond, nodes, factor)
		r.files.fill(rate, now)
		d = r.files.wait(want.Files, rate)
	}
	if l.BytesPerSecond > 0 {
		rate := shared(l.BytesPerSecond, nodes, factor)
		r.bytes.fill(rate, now)
		d = max(d, r.bytes.wait(want.Bytes, rate))
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
