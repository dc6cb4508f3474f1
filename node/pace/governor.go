package pace

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Code names one reason to go slowly.
type Code string

// The reasons.
const (
	SlowLocks        Code = "lock-timeouts"    // the database let us wait for a lock in vain
	SlowDatabase     Code = "database-latency" // its answers take long
	SlowReplica      Code = "replica-lag"      // its replicas fall behind
	SlowStoreErrors  Code = "store-errors"     // the object store answers with errors
	SlowStoreLatency Code = "store-latency"    // its answers take long
	Recovering       Code = "recovering"       // nothing suffers any more; the pace rises again
)

// Codes returns every reason.
func Codes() []Code {
	return []Code{SlowLocks, SlowDatabase, SlowReplica, SlowStoreErrors, SlowStoreLatency, Recovering}
}

// Reason is why work goes slower than it might.
type Reason struct {
	Code  Code
	Text  string // what was seen, with figures
	Since time.Time
}

// GovernorConfig sets when to slow down. The zero value of each field is the
// default beside it.
type GovernorConfig struct {
	// Interval is how long effects are waited for between two changes of the
	// factor. Default 5 s: several of the marker's batches, and longer than the
	// lock time-outs of the database drivers.
	Interval time.Duration
	// DatabaseLatency is what the 95th percentile of the statements of marking,
	// packing and deleting may take. Default 1 s: a batch of 1000 rows takes
	// tens of milliseconds on an idle server, and users notice a second.
	DatabaseLatency time.Duration
	// ReplicaLag is how far a replica may be behind. Default 30 s: the
	// max_standby_streaming_delay with which Postgres comes, after which a
	// standby starts to cancel its readers' queries.
	ReplicaLag time.Duration
	// StoreLatency is what the 95th percentile of the store's small requests may
	// take (see ObserveStore). Default 2 s: ten times what S3's own design
	// guide gives for the first byte of an object, 100 to 200 ms.
	StoreLatency time.Duration
	// StoreErrors is the share of requests that may fail. Default 0.05: single
	// errors are normal and are retried; S3 asks clients that meet 503 Slow Down
	// to reduce their rate.
	StoreErrors float64

	Now func() time.Time // default time.Now
}

const (
	// slowest is the least factor: at it, work stands still 63 parts of 64.
	slowest = 1.0 / 64
	// step is what the factor rises by in one interval: from slowest to 1 in
	// 64 of them, 315 s by default. Halving and adding is how TCP shares a link;
	// it needs no estimate of what the other side can bear.
	step = 1.0 / 64
	// evidence is the age up to which an observation counts.
	evidence = time.Minute
	// maxSamples bounds the observations kept of each kind; the oldest go first.
	maxSamples = 1024
)

// Governor slows work down while the database or the store suffers: whatever
// speaks against the present pace halves a factor, each quiet interval adds to
// it. It starts nothing and reads no clock but its Config's; its methods may be
// called at once.
type Governor struct {
	cfg GovernorConfig

	mu     sync.Mutex // guards what follows
	factor float64
	judged time.Time // when the factor was last decided upon
	locks  []time.Time
	db     []sample
	store  []sample
	lags   map[string]lag
	since  map[Code]time.Time
	texts  map[Code]string
	last   map[Code]time.Time // when the reason was last found
}

// sample is one observation.
type sample struct {
	at     time.Time
	took   time.Duration
	failed bool
	timed  bool // took says something of the server's state
}

type lag struct {
	at    time.Time
	value time.Duration
}

// NewGovernor returns a Governor that has seen nothing.
func NewGovernor(cfg GovernorConfig) (*Governor, error) {
	if min(cfg.Interval, cfg.DatabaseLatency, cfg.ReplicaLag, cfg.StoreLatency) < 0 || cfg.StoreErrors < 0 || cfg.StoreErrors >= 1 {
		return nil, fmt.Errorf("%w: a governor's limit is negative, or its share of errors not below 1", ErrInvalid)
	}
	def(&cfg.Interval, 5*time.Second)
	def(&cfg.DatabaseLatency, time.Second)
	def(&cfg.ReplicaLag, 30*time.Second)
	def(&cfg.StoreLatency, 2*time.Second)
	def(&cfg.StoreErrors, 0.05)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Governor{
		cfg: cfg, factor: 1, judged: cfg.Now(), lags: map[string]lag{},
		since: map[Code]time.Time{}, texts: map[Code]string{}, last: map[Code]time.Time{},
	}, nil
}

func def[T comparable](v *T, byDefault T) {
	var zero T
	if *v == zero {
		*v = byDefault
	}
}

// ObserveDatabase notes a statement's duration; lockTimeout: it ended because
// a lock was not to be had in time.
func (g *Governor) ObserveDatabase(took time.Duration, lockTimeout bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.cfg.Now()
	g.db = keep(g.db, sample{at: now, took: took, timed: true})
	if lockTimeout {
		g.locks = append(g.locks[max(0, len(g.locks)-maxSamples+1):], now)
	}
	g.judge(now)
}

// ObserveStore notes a request of the object store: how long it took, and
// whether the store failed it (an object that is missing, or that exists
// already, is an answer and no failure). small says that the request moves no
// content, so that its duration is the store's alone.
func (g *Governor) ObserveStore(took time.Duration, small, failed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.cfg.Now()
	g.store = keep(g.store, sample{at: now, took: took, failed: failed, timed: small})
	g.judge(now)
}

// ObserveLag notes how far a replica is behind. What was noted of it before
// no longer counts.
func (g *Governor) ObserveLag(replica string, behind time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.cfg.Now()
	g.lags[replica] = lag{now, behind}
	g.judge(now)
}

func keep(s []sample, more sample) []sample {
	return append(s[max(0, len(s)-maxSamples+1):], more)
}

// Factor returns the share of its full pace that work may have now, from 1/64
// to 1.
func (g *Governor) Factor() float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.judge(g.cfg.Now())
	return g.factor
}

// Reasons returns why the factor is below 1; none when it is 1.
func (g *Governor) Reasons() []Reason {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.cfg.Now()
	g.judge(now)
	var reasons []Reason
	for _, c := range Codes() {
		if since, ok := g.since[c]; ok {
			reasons = append(reasons, Reason{c, g.texts[c], since})
		}
	}
	if len(reasons) == 0 && g.factor < 1 {
		reasons = append(reasons, Reason{Code: Recovering, Text: fmt.Sprintf("at %.0f %% of the full pace", 100*g.factor)})
	}
	return reasons
}

// judge decides on the factor, at most once an interval.
func (g *Governor) judge(now time.Time) {
	elapsed := now.Sub(g.judged)
	if elapsed < g.cfg.Interval {
		return
	}
	old := func(s sample) bool { return now.Sub(s.at) > evidence }
	g.db, g.store = slices.DeleteFunc(g.db, old), slices.DeleteFunc(g.store, old)
	g.locks = slices.DeleteFunc(g.locks, func(t time.Time) bool { return now.Sub(t) > evidence })
	suffering := g.examine(now)
	for c, last := range g.last {
		if now.Sub(last) > evidence {
			delete(g.last, c)
			delete(g.since, c)
			delete(g.texts, c)
		}
	}
	quiet := math.Floor(float64(elapsed) / float64(g.cfg.Interval))
	g.judged = now
	if suffering {
		g.factor = max(slowest, g.factor/2)
		return
	}
	g.factor = min(1, g.factor+quiet*step)
	if g.factor == 1 {
		clear(g.last)
		clear(g.since)
		clear(g.texts)
	}
}

// examine looks for reasons. Observations that gave one are used up: another
// halving needs new ones.
func (g *Governor) examine(now time.Time) (suffering bool) {
	found := func(c Code, format string, args ...any) {
		suffering = true
		if _, known := g.since[c]; !known {
			g.since[c] = now
		}
		g.last[c], g.texts[c] = now, fmt.Sprintf(format, args...)
	}
	if n := len(g.locks); n > 0 {
		found(SlowLocks, "%d lock time-outs", n)
		g.locks = nil
	}
	if slow, n := count(g.db, func(s sample) bool { return s.took > g.cfg.DatabaseLatency }, nil); tooMany(slow, n, 0.05) {
		found(SlowDatabase, "%d of %d statements took longer than %s", slow, n, g.cfg.DatabaseLatency)
		g.db = nil
	}
	for name, l := range g.lags {
		switch {
		case now.Sub(l.at) > evidence:
			delete(g.lags, name)
		case l.value > g.cfg.ReplicaLag:
			found(SlowReplica, "replica %s is %s behind, more than %s", name, l.value.Round(time.Second), g.cfg.ReplicaLag)
		}
	}
	var usedUp bool
	if failed, n := count(g.store, func(s sample) bool { return s.failed }, nil); tooMany(failed, n, g.cfg.StoreErrors) {
		found(SlowStoreErrors, "%d of %d requests of the store failed", failed, n)
		usedUp = true
	}
	isTimed := func(s sample) bool { return s.timed }
	if slow, n := count(g.store, func(s sample) bool { return s.took > g.cfg.StoreLatency }, isTimed); tooMany(slow, n, 0.05) {
		found(SlowStoreLatency, "%d of %d requests of the store took longer than %s", slow, n, g.cfg.StoreLatency)
		usedUp = true
	}
	if usedUp {
		g.store = nil
	}
	return suffering
}

// count counts the samples that are bad, among those that are of interest
// (nil: all).
func count(all []sample, bad, of func(sample) bool) (badOnes, n int) {
	for _, s := range all {
		if of != nil && !of(s) {
			continue
		}
		n++
		if bad(s) {
			badOnes++
		}
	}
	return badOnes, n
}

// tooMany reports whether more than a share of n are bad. A single one is
// chance, however few there are.
func tooMany(bad, n int, share float64) bool { return bad >= 2 && float64(bad) > share*float64(n) }
