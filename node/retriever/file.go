package retriever

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// File is what a name or an id led to: a record of a pack, or an original that
// is not packed yet. The caller closes it.
type File struct {
	Record   *Record         // nil: not packed yet
	Original source.Original // nil: packed
	Row      source.Row      // of the original
	Shard    uint32

	r      *Retriever
	pack   *raftmeta.Pack
	stream io.ReadCloser // the whole content, on the way already
}

// Size is the length of the content in bytes.
func (f *File) Size() int64 {
	if f.Record != nil {
		return f.Record.Header.Size
	}
	return f.Original.Info().Size
}

// Content returns the verified content when it is in memory. It must not be
// changed.
func (f *File) Content() (content []byte, whole bool) {
	if f.Record == nil {
		return nil, false
	}
	return f.Record.Content()
}

// Open streams n bytes of the content from off; the range lies within the
// content. Of a record every byte is verified before it is read. Of an original
// only the whole may be asked for, and that it is one version is known at its
// end: whoever passes it on holds back what was read last until io.EOF.
func (f *File) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if f.Record == nil {
		return io.NopCloser(&opened{f.Original, f.Row, ctx}), nil
	}
	if content, whole := f.Content(); whole {
		return io.NopCloser(bytes.NewReader(content[off : off+n])), nil
	}
	if f.stream != nil && off == 0 && n == f.Record.Header.Size {
		body := f.stream
		f.stream = nil
		return &verified{body, f.r, ctx, f.pack, f.Record.Location.Offset}, nil
	}
	body, err := f.open(ctx, f.pack, f.Record, off, n)
	if errors.Is(err, errMissing) {
		body, err = f.openElsewhere(ctx, off, n, err)
	}
	return body, err
}

func (f *File) open(ctx context.Context, p *raftmeta.Pack, rec *Record, off, n int64) (io.ReadCloser, error) {
	body, err := desformat.OpenContent(ctx, f.r.object(p, causeContent), rec.Location, rec.Header, off, n)
	if err != nil {
		return nil, f.r.classify(ctx, p, rec.Location.Offset, err)
	}
	return &verified{body, f.r, ctx, p, rec.Location.Offset}, nil
}

// openElsewhere opens the content where a newer view has it: its pack may have
// been merged into another since its header was read. Another version of the
// file will not do, since the caller has spoken of this one already.
func (f *File) openElsewhere(ctx context.Context, off, n int64, missing error) (io.ReadCloser, error) {
	h := f.Record.Header
	l := lookup{Key: Key{h.Name, desformat.HashName(h.Name)}, want: WantHeader, keep: true}
	v, err := f.r.settle(ctx, l.Hash, missing)
	if err != nil {
		return nil, err
	}
	now, err := f.r.walk(ctx, v, &l)
	if err != nil || now.rec == nil || now.rec.Pack == f.Record.Pack || now.rec.Header.Size != h.Size || now.rec.Header.SHA256 != h.SHA256 {
		return nil, f.r.missing(missing)
	}
	body, err := f.open(ctx, now.pack, now.rec, off, n)
	return body, f.r.missing(err)
}

// Close lets go of what was opened.
func (f *File) Close() {
	if f.stream != nil {
		_ = f.stream.Close() // only read from
	}
	if f.Original != nil {
		_ = f.Original.Close() // only read from
	}
}

// verified gives the errors of a content stream their kind.
type verified struct {
	io.ReadCloser
	r    *Retriever
	ctx  context.Context //nolint:containedctx // of the one request whose body this is
	pack *raftmeta.Pack
	at   int64
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's contract is the bare io.EOF
		err = v.r.missing(v.r.classify(v.ctx, v.pack, v.at, err))
	}
	return n, err
}

// opened gives the errors of an original's stream their kind. That it changed
// is one of them: another reading may meet it at rest.
type opened struct {
	io.Reader
	row source.Row
	ctx context.Context //nolint:containedctx // of the one request whose body this is
}

func (o *opened) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // io.Reader's contract is the bare io.EOF
	case o.ctx.Err() != nil:
		err = o.ctx.Err()
	default:
		err = &OriginalError{Row: o.row, Err: err}
	}
	return n, err
}
