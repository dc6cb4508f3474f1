package retriever

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// recordCache keeps records in memory up to a cap in bytes: small ones whole,
// of large ones the header, so that a range of it takes one request.
type recordCache struct {
	cache   *otter.Cache[recordKey, *Record]
	loads   joined[recordKey, *Record] // whole
	headers joined[recordKey, *Record]
	asked   joined[foreignAsk, *Record] // of other nodes
	places  joined[Stored, *desformat.Header]
	hits    *stats.Counter
	ceiling int64
}

func newRecordCache(ceiling int64) (*recordCache, error) {
	counter := stats.NewCounter()
	cache, err := otter.New(&otter.Options[recordKey, *Record]{
		MaximumWeight: uint64(ceiling),
		Weigher:       func(_ recordKey, c *Record) uint32 { return weight(c.cost()) },
		StatsRecorder: counter,
		Executor:      inline,
	})
	if err != nil {
		return nil, fmt.Errorf("data cache: %w", err)
	}
	return &recordCache{cache: cache, hits: counter, ceiling: ceiling}, nil
}

func (c *recordCache) put(key recordKey, rec *Record) {
	c.cache.Set(key, rec)
	c.cache.CleanUp() // keeps the cap even when Set left that to another goroutine
}

// putHeader keeps a record without its content, never in place of a whole one.
func (c *recordCache) putHeader(key recordKey, rec *Record) {
	c.cache.SetIfAbsent(key, rec)
	c.cache.CleanUp()
}

// smallRecord is the length in bytes up to which a record, header included, is
// read and verified as a whole: 1 MiB of content, and room for the rest.
const smallRecord = 1<<20 + 64<<10

// candidate is one place where the index thinks the name may be.
type candidate struct {
	pack  *raftmeta.Pack
	index *desformat.Index // that named it
	loc   desformat.Location
	key   recordKey
}

// found is what a candidate turned out to be: a record of the name, or nothing
// when rec is nil. A large record that was asked for as a whole comes with its
// content on the way.
type found struct {
	rec    *Record
	pack   *raftmeta.Pack
	stream io.ReadCloser
}

func (f found) close() {
	if f.stream != nil {
		_ = f.stream.Close() // only read from
	}
}

// look tells whether a candidate is a record of the name, and brings of it what
// q wants.
func (r *Retriever) look(ctx context.Context, c candidate, q *lookup) (found, error) {
	if rec, ok := r.records.cache.GetIfPresent(c.key); ok {
		if rec.Header.Name != q.Name || rec.Header.Type == desformat.TypeVoid {
			return found{}, nil
		}
		if rec.whole || q.want == WantHeader || c.loc.Length > smallRecord {
			return found{rec: rec, pack: c.pack}, nil
		}
	}
	q.asked = true
	if err := c.check(); err != nil {
		return found{}, r.classify(ctx, c.pack, c.loc.Offset, err)
	}
	var f found
	var err error
	switch {
	case q.want == WantHeader, q.want == WantPart && c.loc.Length > smallRecord:
		f, err = r.lookHeader(ctx, c, q)
	case c.loc.Length > smallRecord:
		f, err = r.lookStream(ctx, c)
	default:
		f, err = r.lookWhole(ctx, c, q)
	}
	if err != nil {
		return found{}, r.classify(ctx, c.pack, c.loc.Offset, err)
	}
	if f.rec.Header.Name != q.Name || f.rec.Header.Type == desformat.TypeVoid {
		r.metrics.falseCandidates.Inc()
		f.close()
		return found{}, nil
	}
	return f, nil
}

// check holds the place against what the manifest knows of the pack.
func (c candidate) check() error {
	if c.loc.Offset < 0 || c.loc.Length <= 0 || c.loc.Length > c.pack.Size-c.loc.Offset || c.loc.Ordinal >= c.pack.Records {
		return fmt.Errorf("%w: the index places record %d outside the pack", desformat.ErrCorrupt, c.loc.Ordinal)
	}
	return nil
}

// record describes the record that was read at c, unless it is sound in itself
// but not the one that manifest and index place there: then the bytes are those
// of another pack. Without this, an object overwritten by another pack would
// make a name look absent, and a seq out of bounds would mislead the walk.
func (c candidate) record(h *desformat.Header) (*Record, error) {
	if h.Type != desformat.TypeVoid {
		if h.Seq.Compare(c.pack.MinSeq) < 0 || h.Seq.Compare(c.pack.MaxSeq) > 0 {
			return nil, fmt.Errorf("%w: seq %s in a pack of %s to %s", errOther, h.Seq, c.pack.MinSeq, c.pack.MaxSeq)
		}
		hash := h.Hash()
		if !c.pack.Range.Contains(hash) || !slices.Contains(c.index.Lookup(hash, nil), c.loc) {
			return nil, fmt.Errorf("%w: record %d is not the one that the index has there", errOther, c.loc.Ordinal)
		}
	}
	return newRecord(c.pack, c.loc, h), nil
}

// lookHeader reads header and name only, joining a read under way.
func (r *Retriever) lookHeader(ctx context.Context, c candidate, q *lookup) (found, error) {
	rec, err := r.records.headers.do(ctx, c.key, func() (*Record, error) {
		// The load before this one may have ended after this caller missed.
		if e, ok := r.records.cache.GetEntryQuietly(c.key); ok {
			return e.Value, nil
		}
		load, cancel := r.loadContext(ctx)
		defer cancel()
		rec, err := r.readHeader(load, c)
		// The load's own time limit is not the caller's: it means unavailable.
		return rec, r.classify(context.WithoutCancel(ctx), c.pack, c.loc.Offset, err)
	})
	if err != nil {
		return found{}, err
	}
	if q.keep {
		r.records.putHeader(c.key, rec)
	}
	return found{rec: rec, pack: c.pack}, nil
}

func (r *Retriever) readHeader(ctx context.Context, c candidate) (*Record, error) {
	h, err := desformat.ReadHeader(ctx, r.object(c.pack, causeHeader), c.loc)
	if err != nil {
		return nil, err
	}
	return c.record(h)
}

// lookStream begins to read a large record; its header comes at once.
func (r *Retriever) lookStream(ctx context.Context, c candidate) (found, error) {
	body, err := desformat.OpenRecord(ctx, r.object(c.pack, causeRecord), c.loc)
	if err != nil {
		return found{}, err
	}
	rec, err := c.record(body.Header())
	if err != nil {
		_ = body.Close() // only read from
		return found{}, err
	}
	r.records.putHeader(c.key, rec)
	return found{rec: rec, pack: c.pack, stream: body}, nil
}

// lookWhole reads a small record as a whole, joining a read under way. When the
// name is another one, the read stops behind the header.
func (r *Retriever) lookWhole(ctx context.Context, c candidate, q *lookup) (found, error) {
	for {
		rec, err := r.records.loads.do(ctx, c.key, func() (*Record, error) {
			// The load before this one may have ended after this caller missed.
			if e, ok := r.records.cache.GetEntryQuietly(c.key); ok && (e.Value.whole || e.Value.Header.Name != q.Name) {
				return e.Value, nil
			}
			rec, err := r.fetchRecord(ctx, c, q.Name)
			if err != nil {
				return nil, err
			}
			r.records.put(c.key, rec)
			return rec, nil
		})
		if err != nil {
			return found{}, err
		}
		// Who joined the read of another name has its header only.
		if rec.whole || rec.Header.Name != q.Name {
			return found{rec: rec, pack: c.pack}, nil
		}
	}
}

// fetchRecord reads and verifies the record at c, content included if its name
// is name.
func (r *Retriever) fetchRecord(ctx context.Context, c candidate, name string) (*Record, error) {
	load, cancel := r.loadContext(ctx)
	defer cancel()
	rec, err := r.readRecord(load, c, name)
	return rec, r.classify(context.WithoutCancel(ctx), c.pack, c.loc.Offset, err)
}

func (r *Retriever) readRecord(ctx context.Context, c candidate, name string) (*Record, error) {
	body, err := desformat.OpenRecord(ctx, r.object(c.pack, causeRecord), c.loc)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read from: what came is verified
	rec, err := c.record(body.Header())
	if err != nil || rec.Header.Name != name {
		return rec, err
	}
	if rec.Header.Size < 0 || rec.Header.Size > c.loc.Length {
		return nil, fmt.Errorf("%w: content of %d bytes in a record of %d", desformat.ErrCorrupt, rec.Header.Size, c.loc.Length)
	}
	content := make([]byte, rec.Header.Size)
	if _, err := io.ReadFull(body, content); err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	// The last check of the content comes with its end.
	if n, err := body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		if err == nil || n != 0 {
			err = fmt.Errorf("%w: content beyond its length", desformat.ErrCorrupt)
		}
		return nil, err
	}
	rec.content, rec.whole = content, true
	return rec, nil
}
