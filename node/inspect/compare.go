package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// The legs of a comparison, in the words of the API.
const (
	LegStore    = "store"    // the manifest against the store
	LegRows     = "rows"     // all rows against the manifest
	LegCatalogs = "catalogs" // the records of live packs against their rows
)

// CompareOptions say what is compared. The zero value is everything.
type CompareOptions struct {
	Only []string // legs; none: all
	// Progress, unless nil, is told the leg and the counts so far, once a second at
	// most and at the begin of each leg. Its error ends the comparison.
	Progress func(leg string, n Counts) error
}

func (o CompareOptions) wants(leg string) bool {
	return len(o.Only) == 0 || slices.Contains(o.Only, leg)
}

// Difference is one thing that sources, manifest and store do not agree about.
type Difference struct {
	Kind     string
	Severity string
	Subject  string
	Found    string // what is there, and what should be
	Cure     string // a command, or what to wait for
}

// Counts is what a comparison has looked at, and what it has found.
type Counts struct {
	Packs      int64 // held against the store
	Objects    int64 // listed in the store
	Rows       int64 // held against the manifest
	Catalogs   int64 // read
	Records    int64 // held against their rows
	TotalPacks int64 // live ones
	Requests   int64 // of the store; a listing is one, however many pages it has
	Bytes      int64 // got from the store: catalogs and ends of packs
	Notes      int64 // differences, by severity
	Repairable int64
	AtRisk     int64
}

// progressEvery is how often Progress is told, at most.
const progressEvery = time.Second

// comparison is one run of Compare. It is used by one goroutine.
type comparison struct {
	i      *Inspector
	opts   CompareOptions
	each   func(Difference) error
	store  *meter
	view   *raftmeta.View // confirmed before anything was looked at
	counts Counts
	leg    string
	told   time.Time

	broken map[desformat.PackID]bool  // packs whose object was reported already
	named  map[pledge]int64           // rows that say they are archived, by what they name
	lacked map[string]int64           // records by a source that this node does not have
	absent map[desformat.PackID]int64 // packs with fewer records than rows, and how many fewer

	refused error // what each or Progress has returned
}

// pledge is a source and a pack that its rows name.
type pledge struct {
	source string
	pack   desformat.PackID
}

// Compare holds the sources' tables, the manifest and the store against each other
// and hands each difference to each, whose error ends it. It changes nothing. An
// error means that the rest is not known: what does not answer is no difference.
//
// ErrUnavailable: the store or a source did not answer. ErrRebuilding.
// raftmeta.ErrUnconfirmed: no quorum.
func (i *Inspector) Compare(ctx context.Context, opts CompareOptions, each func(Difference) error) (Counts, error) {
	ctx = store.WithCause(ctx, causeCompare)
	view, err := i.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return Counts{}, fmt.Errorf("compare: the manifest: %w", err)
	}
	if !view.RebuildDone(view.Generation()) {
		return Counts{}, fmt.Errorf("compare: %w", ErrRebuilding)
	}
	c := &comparison{
		i: i, opts: opts, each: each, store: &meter{Store: i.cfg.Store}, view: view,
		broken: map[desformat.PackID]bool{}, named: map[pledge]int64{}, lacked: map[string]int64{}, absent: map[desformat.PackID]int64{},
	}
	for p := range view.Packs() {
		if live(p) {
			c.counts.TotalPacks++
		}
	}
	for _, leg := range []struct {
		name string
		run  func(context.Context) error
	}{{LegStore, c.compareStore}, {LegRows, c.compareRows}, {LegCatalogs, c.compareCatalogs}} {
		if !opts.wants(leg.name) {
			continue
		}
		c.leg = leg.name
		if err := c.tell(true); err != nil {
			return c.sum(), err
		}
		if err := leg.run(ctx); err != nil {
			return c.sum(), c.explain(ctx, err)
		}
	}
	return c.sum(), nil
}

// explain tells an error of the caller, of ctx and of the quorum from all others:
// something did not answer.
func (c *comparison) explain(ctx context.Context, err error) error {
	switch {
	case c.refused != nil, ctx.Err() != nil, errors.Is(err, raftmeta.ErrUnconfirmed):
		return fmt.Errorf("compare: %w", err)
	}
	return fmt.Errorf("compare: %w: %w", ErrUnavailable, err)
}

// sum returns the counts so far.
func (c *comparison) sum() Counts {
	c.counts.Requests, c.counts.Bytes = c.store.requests.Load(), c.store.bytes.Load()
	return c.counts
}

// tell reports progress, now or when it is time.
func (c *comparison) tell(now bool) error {
	at := c.i.cfg.Now()
	if c.opts.Progress == nil || !now && at.Sub(c.told) < progressEvery {
		return nil
	}
	c.told = at
	c.refused = c.opts.Progress(c.leg, c.sum())
	return c.refused
}

// differs reports one difference.
func (c *comparison) differs(d Difference) error {
	switch d.Severity {
	case Note:
		c.counts.Notes++
	case Repairable:
		c.counts.Repairable++
	default:
		c.counts.AtRisk++
	}
	c.refused = c.each(d)
	return c.refused
}

// meter counts the requests to a store and the bytes it gives.
type meter struct {
	Store
	requests, bytes atomic.Int64
}

func (m *meter) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	m.requests.Add(1)
	body, err := m.Store.Get(ctx, key, version, off, n)
	if err != nil {
		return nil, err
	}
	return &metered{body, m}, nil
}

func (m *meter) Head(ctx context.Context, key, version string) (store.Object, error) {
	m.requests.Add(1)
	return m.Store.Head(ctx, key, version)
}

func (m *meter) List(ctx context.Context, prefix, after string, f func(store.Object) error) error {
	m.requests.Add(1)
	return m.Store.List(ctx, prefix, after, f)
}

type metered struct {
	io.ReadCloser
	m *meter
}

func (s *metered) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.m.bytes.Add(int64(n))
	return n, err
}

// fetcher reads one version of one object.
type fetcher struct {
	store        Store
	key, version string
}

func (f fetcher) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return f.store.Get(ctx, f.key, f.version, off, n)
}
