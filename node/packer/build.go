package packer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

const (
	// maxLeft is how many rows of one root, one after the other, are left alone
	// until its rest is left too, unopened: each may have waited for a timeout.
	// Trouble that no root has is the whole source's.
	maxLeft = 20
	// maxUnread is how many rows of one source, one after the other, may fail
	// with a read error until the trouble is taken to be the mount's.
	maxUnread = 32
	// packLimit and recordLimit end a pack early, in packs and in records; the
	// rest of the range waits for the next round. They bound the spool file when
	// rows are huge and the catalog when they are empty.
	packLimit   = 4
	recordLimit = 4 << 20
)

// build is one pack in the making.
type build struct {
	p      *Packer
	lease  raftmeta.Lease
	rng    desformat.Range
	due    source.Due
	limit  pace.Amount // the build ends when it has packed so much
	id     desformat.PackID
	file   string // the spool file's name
	spool  SpoolFile
	writer *desformat.Writer
	footer desformat.Footer
	marked map[int64]int64 // rows packed by marked_at, in Unix seconds
	state  map[string]*sourceState

	last   desformat.NameHash // the last name that is live now, and whose it is
	lastID string             // "" before the first
	lastOf string
	leftBy error          // why the first row was left alone
	tried  map[rowKey]int // attempts of the rows packed, where there were any
	Result
}

// sourceState is what a build keeps of one source.
type sourceState struct {
	source *source.Source
	again  []source.Ack // rows to acknowledge again
	unread int          // read errors, one after the other

	mu   sync.Mutex          // guards what follows
	left map[string]*trouble // by root; wholeSource: of no root

	stuck stuckRows // left alone for a root
}

// trouble is what keeps the files of a root from being read.
type trouble struct {
	rows  int // left alone for it, one after the other
	holds func(path string) bool
}

// wholeSource stands for all roots of a source.
const wholeSource = ""

// isDown reports whether the rest of what path belongs to is left alone, and
// for which root.
func (s *sourceState) isDown(path string) (root string, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for root, t := range s.left {
		if t.rows >= maxLeft && t.holds(path) {
			return root, true
		}
	}
	return "", false
}

// isStuck counts a row that waits for its root.
func (s *sourceState) isStuck(root string, row source.Row) {
	if root == wholeSource {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck.roots == nil {
		s.stuck.roots = make(map[string]func(string) bool)
	}
	s.stuck.roots[root] = s.left[root].holds
	s.stuck.Files++
	s.stuck.Bytes += max(0, row.Size)
}

// stuckRows returns what waits for its root, by source.
func (b *build) stuckRows() map[string]stuckRows {
	found := make(map[string]stuckRows)
	for name, s := range b.state {
		if s.stuck.Files > 0 {
			found[name] = s.stuck
		}
	}
	return found
}

// leftAlone counts n rows that were left alone, for a root's trouble or (nil)
// the whole source's; maxLeft at once take it down.
func (s *sourceState) leftAlone(path string, of *source.RootError, n int) (total int) {
	root, holds := wholeSource, func(string) bool { return true }
	if of != nil {
		root, holds = of.Root, of.Holds
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.left[root]
	if t == nil {
		t = &trouble{holds: holds}
		s.left[root] = t
	} else if known := t.holds; !known(path) { // several prefixes lead to this root
		t.holds = func(path string) bool { return known(path) || holds(path) }
	}
	t.rows += n
	return t.rows
}

// worked forgets the trouble of what path belongs to.
func (s *sourceState) worked(path string) {
	s.unread = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.left, func(_ string, t *trouble) bool { return t.rows < maxLeft && t.holds(path) })
}

// newBuild opens a spool file and writes the pack's header into it.
func (p *Packer) newBuild(l raftmeta.Lease, rng desformat.Range, due source.Due, sources []source.Source) (*build, error) {
	b := &build{
		p: p, lease: l, rng: rng, due: due, id: p.cfg.NewID(),
		marked: make(map[int64]int64), state: make(map[string]*sourceState), tried: make(map[rowKey]int),
	}
	for i := range sources {
		b.state[sources[i].Name] = &sourceState{source: &sources[i], left: make(map[string]*trouble)}
	}
	b.file = b.id.String() + spoolSuffix
	var err error
	if b.spool, err = p.cfg.Spool.Create(b.file); err != nil {
		return nil, spoolError(err)
	}
	b.writer, err = desformat.NewWriter(b.spool, desformat.WriterConfig{
		Pack: b.id, Cluster: p.cfg.Cluster, Token: l.Token, Range: rng, Created: p.cfg.Now(),
	})
	if err != nil {
		b.remove()
		return nil, spoolError(err)
	}
	return b, nil
}

// remove closes and removes the spool file.
func (b *build) remove() {
	err := errors.Join(b.spool.Close(), b.p.cfg.Spool.Remove(b.file))
	if err != nil {
		b.p.cfg.Logger.Warn("spool file stays until the next start", "file", b.file, "err", err)
	}
}

// fill packs the due rows of the range and seals the pack. Rows that can't be
// packed are dealt with on the way. With no record it seals nothing.
func (b *build) fill(ctx context.Context, sources []source.Source) error {
	rows := newLister(sources, b.rng, b.due, func(ctx context.Context, s *source.Source, row source.Row, text string) error {
		return b.refuse(ctx, s, row, source.CodeInvalidName, text)
	})
	err := b.p.newAhead(rows, b.prepare).each(ctx, func(it *item) error { return b.take(ctx, it) })
	// What lives already is acknowledged even when the build ends badly.
	for _, s := range b.state {
		err = errors.Join(err, b.acknowledgeAgain(ctx, s))
	}
	if err != nil || b.writer.Records() == 0 {
		return err
	}
	if b.footer, err = b.writer.Seal(); err != nil {
		return spoolError(err)
	}
	if err := b.spool.Sync(); err != nil {
		return spoolError(err)
	}
	return nil
}

// take does what the item's verdict says. Its error ends the build.
func (b *build) take(ctx context.Context, it *item) error {
	switch it.verdict {
	case toLeave:
		return b.leave(ctx, it.source, it.row, it.err)
	case toWait:
		b.Waiting++
		return nil
	}
	if b.lastID != "" && it.hash == b.last {
		return b.refuse(ctx, it.source, it.row, source.CodeDuplicateName,
			fmt.Sprintf("row %s of source %s has this name", b.lastID, b.lastOf))
	}
	switch it.verdict {
	case toAgain:
		return b.acknowledgeLater(ctx, it)
	case toRefuse:
		return b.refuse(ctx, it.source, it.row, it.code, it.err.Error())
	case toFail:
		return b.fail(ctx, it, it.code, it.err)
	default:
		return b.pack(ctx, it)
	}
}

// leave leaves a row as it is: it is planned again in the next round. After
// too many the rest of its root, or of its source, is left for now.
func (b *build) leave(ctx context.Context, of *source.Source, row source.Row, cause error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.Left++
	s := b.state[of.Name]
	if root, down := s.isDown(row.Path); down {
		s.isStuck(root, row)
		return nil
	}
	if b.leftBy == nil {
		b.leftBy = fmt.Errorf("row %s of source %s: %w", row.ID, row.Source, cause)
	}
	b.p.cfg.Logger.WarnContext(ctx, "row left alone", "source", row.Source, "id", row.ID, "path", row.Path, "err", cause)
	root, _ := errors.AsType[*source.RootError](cause)
	if s.leftAlone(row.Path, root, 1) >= maxLeft {
		b.p.cfg.Logger.WarnContext(ctx, "rest left alone for this pack", "source", row.Source, "err", cause)
	}
	if root != nil {
		s.isStuck(root.Root, row)
	}
	return nil
}

// pack appends the row's file. A file that turns out to be another than the
// row lists is cut away by the writer and charged to the row.
func (b *build) pack(ctx context.Context, it *item) error {
	if b.Rows > 0 && it.row.Size > b.limit.Bytes-b.Bytes {
		return errStop
	}
	rec := desformat.Record{
		Type: desformat.TypeFile, Name: it.row.DesName, Seq: b.lease.Token,
		Source: it.row.Source, ID: it.row.ID, Version: it.row.Version, Size: it.row.Size, ModTime: modTime(it),
		Meta:       desformat.Metadata{ContentType: it.row.ContentType, Created: it.row.Created, Custom: it.row.Custom},
		SourceSize: it.row.Size, SourceTime: it.row.ModTime,
	}
	content := &contentReader{ctx: ctx, file: bytes.NewReader(it.content)}
	if it.file != nil {
		content.file = it.file
	}
	entry, err := b.writer.Append(rec, content)
	if content.err != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		if code := source.FileFault(content.err); code != "" {
			return b.fail(ctx, it, code, content.err)
		}
		return b.leave(ctx, it.source, it.row, content.err)
	}
	switch {
	case errors.Is(err, desformat.ErrBadRecord):
		return b.refuse(ctx, it.source, it.row, source.CodeInvalidRow, err.Error())
	case errors.Is(err, desformat.ErrFull):
		return errStop
	case err != nil:
		return spoolError(err)
	}
	if code, err := compare(it.row, entry); code != "" {
		if err := b.writer.Undo(); err != nil {
			return spoolError(err)
		}
		return b.fail(ctx, it, code, err)
	}
	s := b.state[it.source.Name]
	s.worked(it.row.Path)
	b.last, b.lastID, b.lastOf = it.hash, it.row.ID, it.row.Source
	b.marked[it.row.MarkedAt.Unix()]++
	b.noteTried(it.row)
	b.Rows++
	b.Bytes += entry.Size
	if b.Rows >= b.limit.Files || b.writer.Bytes() >= packLimit*b.p.cfg.PackSize || b.writer.Records() >= recordLimit {
		return errStop
	}
	return nil
}

// compare holds what was written against what the row promised.
func compare(row source.Row, e desformat.Entry) (code string, err error) {
	if e.Size != row.Size {
		return source.CodeChanged, fmt.Errorf("%w: %d bytes read, the row lists %d", source.ErrChanged, e.Size, row.Size)
	}
	if row.SHA256 != nil && *row.SHA256 != e.SHA256 {
		return source.CodeChecksum, fmt.Errorf("content has SHA-256 %x, the row lists %x", e.SHA256, *row.SHA256)
	}
	return "", nil
}

// fail counts a failed attempt at the row.
func (b *build) fail(ctx context.Context, it *item, code string, cause error) error {
	final, err := it.source.Rows.Attempt(ctx, it.row, code, cause.Error(), b.p.cfg.MaxAttempts, b.p.cfg.Now())
	if err != nil {
		return b.leave(ctx, it.source, it.row, fmt.Errorf("count an attempt: %w", err))
	}
	b.failed(code)
	b.p.cfg.Logger.InfoContext(ctx, "file not packed", "source", it.row.Source, "id", it.row.ID, "code", code,
		"reason", cause, "attempt", it.row.Attempts+1, "final", final)
	s := b.state[it.source.Name]
	if code != source.CodeReadError {
		s.unread = 0
		return nil
	}
	if s.unread++; s.unread == maxUnread {
		s.leftAlone(it.row.Path, nil, maxLeft)
		b.leftBy = fmt.Errorf("%d files of source %s can't be read, one after the other: %w", s.unread, it.row.Source, cause)
	}
	return nil
}

// refuse makes a row FAILED that can never be packed as it is.
func (b *build) refuse(ctx context.Context, s *source.Source, row source.Row, code, text string) error {
	if err := s.Rows.Refuse(ctx, row, code, text, b.p.cfg.Now()); err != nil {
		return b.leave(ctx, s, row, fmt.Errorf("refuse it as %s: %w", code, err))
	}
	b.failed(code)
	b.p.cfg.Logger.InfoContext(ctx, "row can't be packed", "source", row.Source, "id", row.ID, "code", code, "reason", text)
	return nil
}

// noteTried remembers how many attempts a row has had.
func (b *build) noteTried(row source.Row) {
	if row.Attempts > 0 && len(b.tried) < maxStubborn {
		b.tried[keyOf(row)] = row.Attempts
	}
}

// refused takes over that the database did not move a packed row.
func (b *build) refused(of, id string, version uint32) {
	b.Rows--
	b.refusedRow(rowKey{of, id, version})
}

func (b *build) refusedRow(key rowKey) {
	b.failed(source.CodeRefused)
	b.Refused++
	b.p.stubborn.refused(key, b.tried[key], b.p.cfg.Now())
}

func (b *build) failed(code string) {
	b.Failed++
	b.p.metrics.failure(code).Inc()
}

// acknowledgeLater notes a row whose file lives in a pack already: it was
// packed before the database was restored, or by a run that was cut.
func (b *build) acknowledgeLater(ctx context.Context, it *item) error {
	b.last, b.lastID, b.lastOf = it.hash, it.row.ID, it.row.Source
	b.noteTried(it.row)
	s := b.state[it.source.Name]
	s.again = append(s.again, source.Ack{
		ID: it.row.ID, Name: it.row.DesName, Version: it.row.Version, Size: it.row.Size, ModTime: it.row.ModTime,
		SHA256: it.found.SHA256, Pack: it.found.Pack,
	})
	if len(s.again) < source.MaxBatch {
		return nil
	}
	return b.acknowledgeAgain(ctx, s)
}

func (b *build) acknowledgeAgain(ctx context.Context, s *sourceState) error {
	if len(s.again) == 0 {
		return nil
	}
	results, err := s.source.Rows.Acknowledge(ctx, s.again, b.p.cfg.MaxAttempts, b.p.cfg.Now())
	if err != nil {
		return fmt.Errorf("acknowledge again %d rows of source %s: %w", len(s.again), s.source.Name, err)
	}
	acks := s.again
	s.again = s.again[:0]
	for i, r := range results {
		switch r {
		case source.AckDone:
			b.Again++
			b.p.metrics.again.Inc()
		case source.AckRefused:
			b.refusedRow(rowKey{s.source.Name, acks[i].ID, acks[i].Version})
		case source.AckGone, source.AckNoRow, source.AckOtherPack, source.AckOlder: // changed meanwhile: marked and packed anew
		}
	}
	return nil
}

// content reads the sealed pack.
func (b *build) content() io.ReaderAt { return b.spool }

// observe records how long the packed rows had been waiting.
func (b *build) observe(now time.Time) {
	for marked, rows := range b.marked {
		wait := max(0, now.Sub(time.Unix(marked, 0)).Seconds())
		for range rows {
			b.p.metrics.wait.Observe(wait)
		}
	}
}
