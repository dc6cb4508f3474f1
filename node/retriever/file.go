package retriever

import (
	"context"
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
		return io.NopCloser(f.Original), nil
	}
	at := f.Record.Location.Offset
	if f.stream != nil && off == 0 && n == f.Record.Header.Size {
		body := f.stream
		f.stream = nil
		return &verified{body, f, ctx, at}, nil
	}
	body, err := desformat.OpenContent(ctx, f.r.object(f.pack, causeContent), f.Record.Location, f.Record.Header, off, n)
	if err != nil {
		return nil, f.r.missing(f.r.classify(ctx, f.pack, at, err))
	}
	return &verified{body, f, ctx, at}, nil
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
	f   *File
	ctx context.Context //nolint:containedctx // of the one request whose body this is
	at  int64
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's contract is the bare io.EOF
		err = v.f.r.missing(v.f.r.classify(v.ctx, v.f.pack, v.at, err))
	}
	return n, err
}
