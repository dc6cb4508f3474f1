package packer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// maxVain bounds the leases that a round asks for in vain: each is an entry of
// the cluster's log. After so many its picture is too old to be worth following.
const maxVain = 4

// round is one plan and what comes of it.
type round struct {
	p       *Packer
	due     source.Due
	sources []source.Source

	mu      sync.Mutex // guards what follows
	total   Result
	errs    []error
	stopped bool // what stopped one cut would stop the next
	vain    int  // leases that were refused, or came to nothing for want of a root
	taken   []desformat.Range
}

func (p *Packer) round(ctx context.Context, flush bool) (Result, error) {
	if !p.cleaned {
		if err := p.cfg.Spool.Clean(); err != nil {
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
	r := round{
		p: p, sources: p.cfg.Sources(),
		due: source.Due{Now: p.cfg.Now(), Backoff: p.cfg.Backoff, RowCap: rowCap(p.cfg.PackSize)},
	}
	if flush {
		r.due.Backoff = 0
	}
	cuts := r.plan(ctx, flush, full)
	var g errgroup.Group
	g.SetLimit(p.cfg.Pace.Parallel(p.cfg.Workers))
	for _, c := range cuts {
		g.Go(func() error {
			r.pack(ctx, c)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	p.mu.Lock()
	p.waiting = r.taken
	p.mu.Unlock()
	return r.total, errors.Join(r.errs...)
}

// pack packs one cut, unless the round has been stopped or the cut is not as it
// was counted any more.
func (r *round) pack(ctx context.Context, c cut) {
	r.mu.Lock()
	stopped := r.stopped || r.vain >= maxVain
	r.mu.Unlock()
	if stopped || ctx.Err() != nil {
		return
	}
	res, err := r.packPaced(ctx, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total.add(res)
	r.stopped = r.stopped || res.Held != nil || err != nil && !errors.Is(err, ErrLeft)
	if err != nil {
		r.errs = append(r.errs, err)
		if !res.progress() && r.p.cfg.OthersPack() {
			r.vain++ // the rows are for a node that sees their root
		}
	}
}

// Depths of the backlog's counting, in bits: the next is tried when a bucket
// of the last holds more than a pack.
var depths = [...]uint8{10, 16, 22}

// plan counts the backlog and cuts it. Sources that can't be counted are left
// out of the round, with an error.
//
// The view is taken before the rows are counted. So a pack that it knows, and
// knows acknowledged, has none of its rows in the counts; one that it knows, and
// not acknowledged, keeps its range from being cut; and one that it does not
// know is added later than Applied, by which overtaken finds it.
func (r *round) plan(ctx context.Context, flush, full bool) []cut {
	p, v, began := r.p, r.p.cfg.View(), time.Now()
	var leaves planned
	for _, bits := range depths {
		var buckets []source.Bucket
		var answering []source.Source
		for _, s := range r.sources {
			found, err := s.Rows.Backlog(ctx, bits, r.due)
			if err != nil {
				r.errs = append(r.errs, fmt.Errorf("count the backlog of source %s: %w", s.Name, err))
				continue
			}
			answering = append(answering, s)
			buckets = append(buckets, found...)
		}
		r.sources = answering
		leaves = plan(planning{
			buckets: merge(buckets), bits: bits, packSize: p.cfg.PackSize, roundBytes: p.cfg.RoundBytes,
			maxWait: p.cfg.MaxWait, now: r.due.Now, flush: flush, full: full,
			busy: func(rng desformat.Range) bool { return taken(v, rng) },
		})
		if !leaves.tooCoarse {
			break
		}
	}
	p.mu.Lock()
	p.counted = time.Since(began)
	p.mu.Unlock()
	r.total.Due = leaves.rows
	r.total.Busy, r.taken = int64(len(leaves.busy)), leaves.busy
	p.metrics.backlogRows.Set(float64(leaves.rows))
	p.metrics.backlog.Set(float64(leaves.bytes))
	for i := range leaves.cuts {
		leaves.cuts[i].asOf = v.Applied()
	}
	p.spread(leaves.cuts)
	return leaves.cuts
}

// spread puts the cuts into an order of this node's own. Nodes that count the
// same backlog would else ask for the same leases, one after the other.
func (p *Packer) spread(cuts []cut) {
	if p.cfg.Node == "" {
		return
	}
	place := func(c cut) uint64 {
		h := fnv.New64a()
		_, _ = io.WriteString(h, string(p.cfg.Node)+" "+c.rng.String()) // a hash never fails
		return h.Sum64()
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Compare(place(a), place(b)) })
}

// taken reports whether a range can't be leased now: an overlapping one is, or
// holds a pack that is not acknowledged.
func taken(v View, rng desformat.Range) bool {
	leased := func(l raftmeta.Lease) bool { return l.Job.Kind == raftmeta.JobPack && l.Job.Range.Overlaps(rng) }
	open := func(p *raftmeta.Pack) bool { return !p.Acknowledged }
	return slices.ContainsFunc(v.Leases(), leased) || slices.ContainsFunc(v.Overlapping(rng), open)
}

// freed reports whether some range that the last round found in other hands can
// be leased now, or whether it found none.
func (p *Packer) freed() bool {
	p.mu.Lock()
	waiting := p.waiting
	p.mu.Unlock()
	v := p.cfg.View()
	return len(waiting) == 0 || slices.ContainsFunc(waiting, func(rng desformat.Range) bool { return !taken(v, rng) })
}

// overtaken reports whether a pack was committed in the cut's range since its
// rows were counted. The rest of them may be too little for a pack.
func overtaken(v View, c cut) bool {
	return slices.ContainsFunc(v.Overlapping(c.rng), func(p *raftmeta.Pack) bool { return p.AddIndex > c.asOf })
}

// gone reports whether the newest view speaks against asking for a lease on the
// cut. Looking costs nothing, a refused lease an entry of the log.
func (r *round) gone(c cut) (res Result, gone bool) {
	v := r.p.cfg.View()
	switch {
	case overtaken(v, c):
		return Result{Overtaken: 1}, true
	case taken(v, c.rng):
		r.inOtherHands(c.rng)
		return Result{Busy: 1}, true
	}
	return Result{}, false
}

func (r *round) inOtherHands(rng desformat.Range) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = append(r.taken, rng)
}

// heldResult turns what a Pacer says into a result.
func heldResult(err error) (Result, error) {
	if held := pace.AsHeld(err); held != nil {
		return Result{Held: held}, nil
	}
	return Result{}, err
}

// packPaced packs as much of a cut as its pace allows.
func (r *round) packPaced(ctx context.Context, c cut) (Result, error) {
	if res, gone := r.gone(c); gone { // nothing is reserved for it
		return res, nil
	}
	want := pace.Want{Amount: pace.Amount{Files: c.rows, Bytes: c.bytes - c.rows*rowOverhead}, Whole: true}
	grant, err := r.p.cfg.Pace.Take(ctx, want)
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
	res, err := r.packCut(ctx, c, limit)
	grant.End(pace.Amount{Files: res.Rows + res.Refused, Bytes: res.Bytes})
	return res, err
}

// packCut builds and commits one pack under a lease.
func (r *round) packCut(ctx context.Context, c cut, limit pace.Amount) (Result, error) {
	p := r.p
	if res, gone := r.gone(c); gone { // the pace may have let it wait for long
		return res, nil
	}
	var res Result
	granted := false
	began := p.cfg.Now()
	p.metrics.building.Inc()
	defer p.metrics.building.Dec()
	job := raftmeta.Job{Kind: raftmeta.JobPack, Range: c.rng}
	err := p.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, l raftmeta.Lease) (err error) {
		granted = true
		res, err = r.packLeased(ctx, c, l, limit)
		return err
	})
	switch {
	case !granted && (errors.Is(err, raftmeta.ErrClash) || errors.Is(err, raftmeta.ErrUnacknowledged)):
		p.metrics.clashes.Inc()
		r.mu.Lock()
		r.vain++
		r.mu.Unlock()
		r.inOtherHands(c.rng)
		return Result{Busy: 1}, nil
	case res.Overtaken > 0:
		r.mu.Lock()
		r.vain++
		r.mu.Unlock()
	}
	if res.Packs > 0 {
		took := p.cfg.Now().Sub(began)
		p.metrics.duration.Observe(took.Seconds())
		p.cfg.Logger.InfoContext(ctx, "pack committed", "range", c.rng, "rows", res.Rows, "bytes", res.Bytes,
			"failed", res.Failed, "took", took)
	}
	if err != nil {
		return res, fmt.Errorf("pack range %s: %w", c.rng, err)
	}
	return res, nil
}

// packLeased packs a cut under its lease.
//
// The view is at least as new as the grant. That is enough for all that is
// asked of the manifest while the lease lives, without another confirmation: a
// pack that overlaps the range is added under a lease of its own, which ended
// before this one was granted, so its AddPack, and its AckPack, or else the grant
// was refused, stand before the grant in the log. None is added in between: the
// leases would clash. Nor after the lease is lost, as far as this build goes: then
// AddPack refuses its pack, and a row that is acknowledged again names a pack
// that lives.
func (r *round) packLeased(ctx context.Context, c cut, l raftmeta.Lease, limit pace.Amount) (Result, error) {
	p, v := r.p, r.p.cfg.View()
	if v.Applied() < l.Token.Index {
		return Result{}, fmt.Errorf("applied %d, lease %s: %w", v.Applied(), l.Token, ErrBehind)
	}
	if overtaken(v, c) {
		return Result{Overtaken: 1}, nil
	}
	b, err := p.newBuild(l, c.rng, r.due, r.sources)
	if err != nil {
		return Result{}, err
	}
	defer b.remove()
	b.limit = limit
	err = p.packBuild(ctx, b, r.sources)
	if ctx.Err() == nil {
		p.stuck.note(c.rng, b.stuckRows())
	}
	if err == nil && b.leftBy != nil {
		err = fmt.Errorf("%d %w, the first: %w", b.Left, ErrLeft, b.leftBy)
	}
	return b.Result, err
}
