package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/datavision/desnode/raftmeta"
)

// encode returns the object of a view's backup, and its entry.
func encode(v *raftmeta.View, at time.Time) ([]byte, Entry, error) {
	digest, err := v.Digest(isList)
	if err != nil {
		return nil, Entry{}, err
	}
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, Entry{}, fmt.Errorf("compress: %w", err)
	}
	if err := errors.Join(v.WriteSnapshot(w), w.Close()); err != nil {
		return nil, Entry{}, err
	}
	e := Entry{
		Key: Key(v.Generation(), v.Applied()), Generation: v.Generation(), Index: v.Applied(),
		At: at.UTC(), Bytes: int64(b.Len()), Digest: digest,
	}
	for range v.Packs() {
		e.Packs++
	}
	return b.Bytes(), e, nil
}

// Getter is what Load needs of a store.
type Getter interface {
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
}

// Load reads a backup whole and checks all of it. ErrDamaged: it is cut, or
// changed, or not the state that its key names. raftmeta.ErrUnknownCommand: a
// newer version of desnode wrote it. Any other error is the store's, and says
// nothing about the backup.
func Load(ctx context.Context, s Getter, key string) (_ *raftmeta.View, err error) {
	generation, index, ok := parseKey(key)
	if !ok {
		return nil, fmt.Errorf("backup %q: %w", key, errNoKey)
	}
	fail := func(err error) (*raftmeta.View, error) { return nil, fmt.Errorf("backup %s: %w", key, err) }
	body, err := s.Get(ctx, key, "", 0, -1)
	if err != nil {
		return fail(err)
	}
	from := &remembering{from: body}
	v, err := decode(from)
	closed := body.Close()
	switch {
	case from.err != nil: // it was not read to its end
		return fail(errors.Join(from.err, closed))
	case errors.Is(err, raftmeta.ErrUnknownCommand):
		return fail(err)
	case err != nil:
		return fail(fmt.Errorf("%w: %w", ErrDamaged, err))
	case v.Generation() != generation || v.Applied() != index:
		return fail(fmt.Errorf("it holds generation %d at index %d: %w", v.Generation(), v.Applied(), ErrDamaged))
	}
	return v, nil
}

func decode(from io.Reader) (*raftmeta.View, error) {
	r, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return raftmeta.ReadSnapshot(r)
}

// remembering keeps the error that a stream ended with, unless it is its end:
// what reads through it calls any error damage.
type remembering struct {
	from io.Reader
	err  error
}

// Read implements io.Reader.
func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
