package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
)

const (
	// archiveProgress is the least time between two looks at an archive run.
	archiveProgress = 100 * time.Millisecond
	// cheapCount is how long counting the rows may take for the run to look at
	// them at each change of the manifest too.
	cheapCount = 20 * time.Millisecond
	// archiveStall is how long a run that is stopped by a problem waits for it
	// to pass.
	archiveStall = 10 * time.Second
)

// Archive marks and packs all that is eligible now, whatever the waiting times,
// and returns when no such row is left: each is PACKED or FAILED. The rows'
// states are durable all along; an archive run that is cut goes on by itself.
func (n *Node) Archive(ctx context.Context, req api.ArchiveRequest, send func(api.ArchiveEvent) error) error {
	err := n.archive(ctx, req, send)
	if ctx.Err() != nil { // whoever asked has gone; no database is to blame
		return tableProblem(err)
	}
	told := sourceProblem(err)
	if told != err { //nolint:errorlint // whether it is the very same
		n.log.WarnContext(ctx, "an archive run ended early", "err", err)
	}
	return told
}

// sourceProblem tells the operator that a run ended because a database does not
// answer, which a later one may not meet, or because of what tableProblem tells;
// other errors it leaves as they are.
func sourceProblem(err error) error {
	if source.Unavailable(err) || source.LockTimeout(err) {
		return &api.Problem{
			Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable,
			Detail: "a source's database does not answer, the node's log says which; what is marked already goes on being archived once it does",
		}
	}
	return tableProblem(err)
}

// tableProblem tells the operator of a table that is not as the configuration
// says; other errors it leaves as they are.
func tableProblem(err error) error {
	if !errors.Is(err, source.ErrRelation) && !errors.Is(err, source.ErrUnfit) {
		return err
	}
	return &api.Problem{Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable, Detail: err.Error() + "; 'desnode source check' says what to do"}
}

func (n *Node) archive(ctx context.Context, req api.ArchiveRequest, send func(api.ArchiveEvent) error) error {
	if req.DryRun {
		return n.archiveDryRun(ctx, send)
	}
	for _, work := range []string{config.WorkMark, config.WorkPack} {
		if !n.someoneDoes(work) {
			return fmt.Errorf("%w: no node of the cluster does %s (work: in its configuration)", api.ErrInvalidRequest, work)
		}
	}
	begin, err := n.countRows(ctx)
	if err != nil {
		return err
	}
	run := archiveRun{node: n, begin: begin, moved: time.Now()}
	flushed, asked := time.Now(), time.Now()
	if err := n.flushAll(ctx); err != nil {
		return err
	}
	for {
		changed := n.meta.Changed() // before the look, so that no change is missed
		looked := time.Now()
		now, err := n.countRows(ctx)
		if err != nil {
			return err
		}
		if err := send(run.event(now)); err != nil {
			return err
		}
		if now.pending.Rows == 0 {
			return nil
		}
		if err := run.stalled(now); err != nil {
			return err
		}
		// The backlog's rows are counted for each look: at most a tenth of the time.
		took := time.Since(looked)
		if took > cheapCount {
			changed = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(max(archiveProgress, 10*took)):
		}
		// Asking may change the state, if only by a lease that another node is found
		// to hold: it must not answer every change.
		if time.Since(asked) >= archiveProgress {
			asked = time.Now()
			if now.eligible.Rows > 0 {
				n.marker.Kick()
			}
			n.packer.Flush()
		}
		if time.Since(flushed) >= flushEvery {
			flushed = time.Now()
			if err := n.flushAll(ctx); err != nil {
				return err
			}
		}
	}
}

// rowCount is a moment of all sources: what is left to do and what was done. It
// is counted often, so it reads pending rows and the manifest, and never the
// rows of what was archived long ago.
type rowCount struct {
	eligible source.Tally
	pending  source.Tally // eligible and MARKED; one that is marked meanwhile may count twice
	sure     source.Tally // likewise, but such a one may not count at all
	failed   source.Tally
	packs    packCount
}

// packCount is what the manifest says of files that are safe.
type packCount struct {
	packs int64
	live  int64 // records of acknowledged packs, the dead ones left out
	bytes int64 // of all their content
}

func add(a *source.Tally, b source.Tally) {
	a.Rows += b.Rows
	a.Bytes += b.Bytes
	if a.Oldest.IsZero() || !b.Oldest.IsZero() && b.Oldest.Before(a.Oldest) {
		a.Oldest = b.Oldest
	}
	if b.Newest.After(a.Newest) {
		a.Newest = b.Newest
	}
}

func (n *Node) countRows(ctx context.Context) (c rowCount, err error) {
	before := n.now().Add(-n.cfg.Archive.MinAge)
	// The manifest first: what becomes safe in the meantime is still pending, and
	// is seen by the next look.
	for p := range n.meta.View().Packs() {
		c.packs.packs++
		if p.Acknowledged {
			c.packs.live += int64(p.Records) - int64(len(p.Dead))
			c.packs.bytes += p.PayloadBytes
		}
	}
	for _, s := range n.sources {
		if err := c.addPending(ctx, s.Rows, before); err != nil {
			return c, fmt.Errorf("source %s: %w", s.Name, err)
		}
	}
	return c, nil
}

// addPending counts the pending rows of one source. Rows go on being marked
// while it looks, so it looks at the MARKED ones before and after the ACTIVE
// ones: a run must neither end too early nor tell more than it did.
func (c *rowCount) addPending(ctx context.Context, rows source.OperatorRows, before time.Time) error {
	markedBefore, _, err := rows.Pending(ctx)
	if err != nil {
		return err
	}
	eligible, _, err := rows.EligibleTally(ctx, before)
	if err != nil {
		return err
	}
	marked, failed, err := rows.Pending(ctx)
	if err != nil {
		return err
	}
	add(&c.eligible, eligible)
	add(&c.pending, eligible)
	add(&c.pending, marked)
	add(&c.sure, eligible)
	add(&c.sure, markedBefore)
	add(&c.failed, failed)
	return nil
}

// archiveRun follows one run from its first count on.
type archiveRun struct {
	node  *Node
	begin rowCount
	last  rowCount
	moved time.Time // when the counts changed last
}

// event says what the run has done so far. A row that left the pending ones
// without failing is PACKED. Rows that came since hide as many of these, which
// the manifest then shows; and it does not show those whose file was safe in a
// pack already. So the greater of both is told.
func (r *archiveRun) event(now rowCount) api.ArchiveEvent {
	failed := max(0, now.failed.Rows-r.begin.failed.Rows)
	failedBytes := max(0, now.failed.Bytes-r.begin.failed.Bytes)
	e := api.ArchiveEvent{
		Marked:     max(0, r.begin.eligible.Rows-now.eligible.Rows),
		Packed:     max(0, r.begin.sure.Rows-now.pending.Rows-failed, now.packs.live-r.begin.packs.live),
		Failed:     failed,
		Bytes:      max(0, r.begin.sure.Bytes-now.pending.Bytes-failedBytes, now.packs.bytes-r.begin.packs.bytes),
		Packs:      max(0, now.packs.packs-r.begin.packs.packs),
		TotalRows:  r.begin.sure.Rows,
		TotalBytes: r.begin.sure.Bytes,
	}
	// Rows may have come since.
	e.TotalRows = max(e.TotalRows, e.Packed+e.Failed+now.pending.Rows)
	e.TotalBytes = max(e.TotalBytes, e.Bytes)
	return e
}

// stalled ends a run whose rows have not moved for long while a part reports
// why. Packs alone are no progress: they may hold nothing but dead records.
func (r *archiveRun) stalled(now rowCount) error {
	now.packs = packCount{}
	if now != r.last {
		r.last, r.moved = now, time.Now()
		return nil
	}
	problem := errors.Join(r.node.marker.Problem(), r.node.packer.Problem(), r.node.keeper.Problem())
	if problem == nil || time.Since(r.moved) < archiveStall {
		return nil
	}
	return &api.Problem{
		Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable,
		Detail: fmt.Sprintf("%d rows are not archived yet; they go on being tried: %v", now.pending.Rows, problem),
	}
}

// archiveDryRun counts every row once, which a large table takes its time for.
func (n *Node) archiveDryRun(ctx context.Context, send func(api.ArchiveEvent) error) error {
	before := n.now().Add(-n.cfg.Archive.MinAge)
	report := api.DryRun{Rest: []api.Rest{}}
	var total source.Tally
	for _, s := range n.sources {
		eligible, young, err := s.Rows.EligibleTally(ctx, before)
		if err != nil {
			return fmt.Errorf("source %s: %w", s.Name, err)
		}
		counts, err := s.Rows.Counts(ctx)
		if err != nil {
			return fmt.Errorf("source %s: %w", s.Name, err)
		}
		add(&total, eligible)
		for _, rest := range []struct {
			reason string
			tally  source.Tally
		}{
			{fmt.Sprintf("younger than %s", n.cfg.Archive.MinAge), young},
			{"MARKED already: waits for packing", counts[source.Marked]},
			{"archived already", counts[source.Packed]},
			{"archived already, original deleted", counts[source.DeletedSource]},
			{"FAILED", counts[source.Failed]},
		} {
			if rest.tally.Rows > 0 {
				report.Rest = append(report.Rest, api.Rest{Source: s.Name, Reason: rest.reason, Tally: api.Tally(rest.tally)})
			}
		}
	}
	report.Eligible = api.Tally(total)
	var err error
	if report.Failures, err = failureCodes(ctx, n.sources, ""); err != nil {
		return err
	}
	report.Pauses = n.pauses()
	return send(api.ArchiveEvent{DryRun: &report})
}
