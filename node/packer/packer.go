package packer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Packer packs the MARKED rows of all sources. Its methods may be called at once.
type Packer struct {
	cfg     Config
	metrics *metrics
	buffers sync.Pool     // *[]byte for small files
	kick    chan struct{} // one pending wake-up of Run
	running chan struct{} // holds one token while a round runs
	cleaned bool          // the spool folder is ours and tidy; guarded by running
	flushes atomic.Uint64 // how often Flush was called

	stubborn stubborn
	stuck    stuck

	mu      sync.Mutex // guards what follows
	problem error
	waiting []desformat.Range // what the last round found in other hands
	counted time.Duration     // how long its counting of the backlog took
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
	Left    int64 // rows left alone because the manifest could not be asked
	Waiting int64 // rows held back that the database lets nobody change
	Busy    int64 // ranges that others hold, or whose last pack waits for its acknowledgement
	// Overtaken counts the ranges in which another packer has committed a pack
	// since the rows were counted: what is left there is counted anew first.
	Overtaken int64
	Due       int64      // rows that were due when the round began
	Held      *pace.Held // why the rest may not be packed now; nil: nothing holds it
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
	r.Overtaken += o.Overtaken
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

// packBuild fills a build, commits its pack and has its rows acknowledged.
func (p *Packer) packBuild(ctx context.Context, b *build, sources []source.Source) error {
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
