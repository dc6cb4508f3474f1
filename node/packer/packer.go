package packer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Packer packs the MARKED rows of all sources. Its methods may be called at once.
type Packer struct {
	cfg     Config
	metrics *metrics
	create  func(path string) (spoolFile, error)
	buffers sync.Pool     // *[]byte for small files
	kick    chan struct{} // one pending wake-up of Run
	running chan struct{} // holds one token while a round runs
	cleaned bool          // the spool folder is ours and tidy; guarded by running
	flushes atomic.Uint64 // how often Flush was called

	stubborn stubborn
	stuck    stuck

	mu      sync.Mutex // guards problem
	problem error
}

// Result says what packing did.
type Result struct {
	Packs  int   // committed
	Rows   int64 // records in them, without those Refused
	Bytes  int64 // content bytes in them
	Again  int64 // rows acknowledged again: their file lived in a pack already
	Failed int64 // attempts that failed, and rows refused
	// Refused counts those of Failed that were packed in vain: the database
	// would not move the row.
	Refused int64
	Left    int64      // rows left alone because the manifest could not be asked
	Waiting int64      // rows held back that the database lets nobody change
	Busy    int64      // ranges that others hold, or whose last pack waits for its acknowledgement
	Due     int64      // rows that were due when the round began
	Held    *pace.Held // why the rest may not be packed now; nil: nothing holds it
}

func (r *Result) add(o Result) {
	r.Packs += o.Packs
	r.Rows += o.Rows
	r.Bytes += o.Bytes
	r.Again += o.Again
	r.Failed += o.Failed
	r.Refused += o.Refused
	r.Left += o.Left
	r.Waiting += o.Waiting
	r.Busy += o.Busy
	r.Due += o.Due
	if r.Held == nil {
		r.Held = o.Held
	}
}

// progress reports whether rows have left the backlog or have been charged.
// A row that the database refused may not even have been charged.
func (r *Result) progress() bool { return r.Rows > 0 || r.Again > 0 || r.Failed > r.Refused }

// New checks cfg and returns a Packer. It starts nothing and touches no disk.
func New(cfg Config) (*Packer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	metrics, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("packer: register metrics: %w", err)
	}
	return &Packer{
		cfg:     cfg,
		metrics: metrics,
		create:  createSpool,
		kick:    make(chan struct{}, 1),
		running: make(chan struct{}, 1),

		stubborn: stubborn{backoff: cfg.Backoff},
	}, nil
}

// Kick makes Run begin its next round now, and try what it has held back.
func (p *Packer) Kick() {
	p.stubborn.forget()
	p.Wake()
}

// Wake makes Run begin its next round now.
func (p *Packer) Wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Flush makes Run pack all that is MARKED as soon as marking is at rest,
// whatever its age and the back-off of its failed attempts, until nothing is
// left.
func (p *Packer) Flush() {
	p.flushes.Add(1)
	p.Wake()
}

// Problem returns what stopped some build of the last round, or nil.
func (p *Packer) Problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem
}

// Pauses of Run: after trouble, doubling; and while marking is under way or a
// flush waits for what others hold.
const (
	minTrouble = time.Second
	maxTrouble = time.Minute
	shortPause = 20 * time.Millisecond
)

// Run packs continuously until ctx ends, and returns nil then. Errors are
// logged; the next round comes after a pause that grows.
func (p *Packer) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var flushed uint64
	trouble := minTrouble
	wake := p.kick // nil while trouble is waited out: being asked for more does not end it
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-wake:
		}
		rested, _, trickles := p.cfg.Marking()
		if !rested {
			timer.Reset(shortPause) // ranges cut now would be outgrown at once
			continue
		}
		asked := p.flushes.Load()
		flush := asked != flushed && !trickles
		began := time.Now()
		res, err := p.Once(ctx, flush)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && flush && res.Due == 0 && res.Held == nil {
			flushed = asked
		}
		// Counting the backlog is work for the database: at most 1/20 of the time.
		pause := max(p.cfg.Poll, 20*time.Since(began))
		wake = p.kick
		switch {
		case err != nil:
			if res.progress() {
				trouble = minTrouble
			}
			wake, pause, trouble = nil, trouble, min(2*trouble, maxTrouble)
			p.cfg.Logger.ErrorContext(ctx, "packing interrupted", "err", err, "wait", pause)
		case res.Held != nil: // asking for more does not end it
			wake, trouble = nil, minTrouble
		case res.progress():
			pause, trouble = 0, minTrouble
		case res.Refused+res.Waiting > 0: // packs that hold nothing but dead records are waste
			wake, pause, trouble = nil, trouble, min(2*trouble, maxTrouble)
		default:
			trouble = minTrouble
			switch {
			case flush && res.Due > 0:
				pause = shortPause
			case trickles: // a flush that waits is no reason to count again and again
				wake = nil
			}
		}
		timer.Reset(pause)
	}
}

// Once plans and packs once. With flush it packs all that is MARKED; without,
// what Run would pack now. A row is tried at most once. The result holds what
// was done even when there is an error, which joins those of all builds.
func (p *Packer) Once(ctx context.Context, flush bool) (Result, error) {
	select {
	case p.running <- struct{}{}:
		defer func() { <-p.running }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	res, err := p.round(ctx, flush)
	if err != nil {
		p.metrics.errors.Inc()
	}
	problem := err
	switch {
	case problem != nil:
	case res.Held != nil:
		problem = res.Held
	case res.Refused+res.Waiting > 0:
		problem = fmt.Errorf("%w: %d in the last round, tried again after a pause that grows", ErrRefused, res.Refused+res.Waiting)
	}
	p.mu.Lock()
	p.problem = problem
	p.mu.Unlock()
	return res, err
}

func (p *Packer) round(ctx context.Context, flush bool) (Result, error) {
	if !p.cleaned {
		if err := cleanSpool(p.cfg.SpoolDir); err != nil {
			return Result{}, err
		}
		p.cleaned = true
	}
	rested, full, _ := p.cfg.Marking()
	if !rested && !flush {
		return Result{}, nil
	}
	if err := p.cfg.Pace.Held(); err != nil {
		return heldResult(err)
	}
	sources := p.cfg.Sources()
	due := source.Due{Now: p.cfg.Now(), Backoff: p.cfg.Backoff, RowCap: rowCap(p.cfg.PackSize)}
	if flush {
		due.Backoff = 0
	}
	backlog, sources, errPlan := p.plan(ctx, sources, due, flush, full)
	total := backlog.Result

	var g errgroup.Group
	g.SetLimit(p.cfg.Pace.Parallel(p.cfg.Workers))
	var mu sync.Mutex // guards total, errs and stopped
	stopped := false
	errs := []error{errPlan}
	for _, c := range backlog.cuts {
		g.Go(func() error {
			mu.Lock()
			stop := stopped
			mu.Unlock()
			if stop || ctx.Err() != nil {
				return nil // what stopped one range would stop the next
			}
			res, err := p.packPaced(ctx, c, due, sources)
			mu.Lock()
			defer mu.Unlock()
			total.add(res)
			stopped = stopped || res.Held != nil
			if err != nil {
				errs = append(errs, err)
				stopped = stopped || !errors.Is(err, ErrLeft)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	return total, errors.Join(errs...)
}

// Depths of the backlog's counting, in bits: the next is tried when a bucket
// of the last holds more than a pack.
var depths = [...]uint8{10, 16, 22}

// backlog is what a round found to do.
type backlog struct {
	cuts   []cut
	Result // Due and Busy
}

// plan counts the backlog and cuts it. Sources that can't be counted are left
// out of those it returns, with an error beside.
func (p *Packer) plan(ctx context.Context, sources []source.Source, due source.Due, flush, full bool) (backlog, []source.Source, error) {
	var errs []error
	var result backlog
	for _, bits := range depths {
		var buckets []source.Bucket
		var answering []source.Source
		for _, s := range sources {
			found, err := s.Rows.Backlog(ctx, bits, due)
			if err != nil {
				errs = append(errs, fmt.Errorf("count the backlog of source %s: %w", s.Name, err))
				continue
			}
			answering = append(answering, s)
			buckets = append(buckets, found...)
		}
		sources = answering
		b, tooCoarse := p.cutBuckets(merge(buckets), bits, due.Now, flush, full)
		result = b
		if !tooCoarse {
			break
		}
	}
	return result, sources, errors.Join(errs...)
}

func (p *Packer) cutBuckets(buckets []source.Bucket, bits uint8, now time.Time, flush, full bool) (b backlog, tooCoarse bool) {
	var bytes int64
	for _, bucket := range buckets {
		b.Due += bucket.Rows
		bytes += bucket.Bytes
	}
	p.metrics.backlogRows.Set(float64(b.Due))
	p.metrics.backlog.Set(float64(bytes))
	b.cuts, tooCoarse = plan(planning{
		buckets: buckets, bits: bits, packSize: p.cfg.PackSize, roundBytes: p.cfg.RoundBytes,
		maxWait: p.cfg.MaxWait, now: now, flush: flush, full: full,
		busy: busyRanges(p.cfg.View(), &b.Busy),
	})
	return b, tooCoarse
}

// busyRanges returns a function that says whether a range can't be leased now,
// counting the yes in n.
func busyRanges(v View, n *int64) func(desformat.Range) bool {
	var taken []desformat.Range
	for _, l := range v.Leases() {
		if l.Job.Kind == raftmeta.JobPack {
			taken = append(taken, l.Job.Range)
		}
	}
	for p := range v.Packs() {
		if !p.Acknowledged {
			taken = append(taken, p.Range)
		}
	}
	return func(r desformat.Range) bool {
		for _, t := range taken {
			if t.Overlaps(r) {
				*n++
				return true
			}
		}
		return false
	}
}

// heldResult turns what a Pacer says into a result.
func heldResult(err error) (Result, error) {
	if held := pace.AsHeld(err); held != nil {
		return Result{Held: held}, nil
	}
	return Result{}, err
}

// packPaced packs as much of a cut as its pace allows.
func (p *Packer) packPaced(ctx context.Context, c cut, due source.Due, sources []source.Source) (Result, error) {
	want := pace.Want{Amount: pace.Amount{Files: c.rows, Bytes: c.bytes - c.rows*rowOverhead}, Whole: true}
	grant, err := p.cfg.Pace.Take(ctx, want)
	if err != nil {
		return heldResult(err)
	}
	limit := pace.Amount{Files: math.MaxInt64, Bytes: math.MaxInt64}
	if grant.Files < want.Files {
		limit.Files = grant.Files
	}
	if grant.Bytes < want.Bytes {
		limit.Bytes = grant.Bytes
	}
	res, err := p.packRange(ctx, c.rng, limit, due, sources)
	grant.End(pace.Amount{Files: res.Rows + res.Refused, Bytes: res.Bytes})
	return res, err
}

// packRange builds and commits one pack under a lease.
func (p *Packer) packRange(ctx context.Context, rng desformat.Range, limit pace.Amount, due source.Due, sources []source.Source) (Result, error) {
	var res Result
	granted := false
	began := p.cfg.Now()
	p.metrics.building.Inc()
	defer p.metrics.building.Dec()
	job := raftmeta.Job{Kind: raftmeta.JobPack, Range: rng}
	err := p.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, l raftmeta.Lease) error {
		granted = true
		if applied := p.cfg.View().Applied(); applied < l.Token.Index {
			return fmt.Errorf("applied %d, lease %s: %w", applied, l.Token, ErrBehind)
		}
		b, err := p.newBuild(l, rng, due, sources)
		if err != nil {
			return err
		}
		defer b.remove()
		b.limit = limit
		err = p.packLeased(ctx, b, sources)
		if ctx.Err() == nil {
			p.stuck.note(rng, b.stuckRows())
		}
		if err == nil && b.leftBy != nil {
			err = fmt.Errorf("%d %w, the first: %w", b.Left, ErrLeft, b.leftBy)
		}
		res = b.Result
		return err
	})
	if !granted && (errors.Is(err, raftmeta.ErrClash) || errors.Is(err, raftmeta.ErrUnacknowledged)) {
		return Result{Busy: 1}, nil
	}
	if res.Packs > 0 {
		took := p.cfg.Now().Sub(began)
		p.metrics.duration.Observe(took.Seconds())
		p.cfg.Logger.InfoContext(ctx, "pack committed", "range", rng, "rows", res.Rows, "bytes", res.Bytes,
			"failed", res.Failed, "took", took)
	}
	if err != nil {
		return res, fmt.Errorf("pack range %s: %w", rng, err)
	}
	return res, nil
}

func (p *Packer) packLeased(ctx context.Context, b *build, sources []source.Source) error {
	err := b.fill(ctx, sources)
	if err != nil || b.writer.Records() == 0 {
		b.Rows, b.Bytes = 0, 0
		return err
	}
	added, err := b.commit(ctx)
	if err != nil {
		b.Rows, b.Bytes = 0, 0
		return err
	}
	b.Packs = 1
	p.metrics.packs.Inc()
	p.metrics.rows.Add(float64(b.Rows))
	p.metrics.bytes.Add(float64(b.Bytes))
	err = p.cfg.Acks.AcknowledgeFrom(ctx, added, desformat.FetchReaderAt(b.content()), b.refused)
	if errors.Is(err, raftmeta.ErrClash) {
		return nil // somebody was quicker
	}
	if err == nil {
		b.observe(p.cfg.Now())
	}
	return err
}

// buffer returns n bytes, release takes them back.
func (p *Packer) buffer(n int64) []byte {
	if b, ok := p.buffers.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return (*b)[:n]
	}
	return make([]byte, n)
}

func (p *Packer) release(b []byte) {
	if cap(b) > 0 {
		p.buffers.Put(&b)
	}
}
