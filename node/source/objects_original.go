package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"
)

// objectTimeUnit is what S3 cuts an object's time to, in its headers.
const objectTimeUnit = time.Second

// objectScheme begins the id of an object.
const objectScheme = "s3:"

// objectID identifies an object by its place. It needs no request, and holds
// for whatever object stands there: unlike a folder's entry, a key leads to
// nothing but its own object.
func objectID(bucket, key string) string { return objectScheme + bucket + "/" + key }

// bucketFile is one object, by its place: how S3 originals are read and
// deleted. What goes wrong with the bucket is a *RootError, so that it is told
// apart from what is the object's own.
type bucketFile struct {
	objects Objects
	at      spot
	read    *sync.Map // mixed.read
}

// witness is a version of an object that could be read.
type witness struct{ key, version string }

// witnessed remembers that the object could be read.
func (b bucketFile) witnessed(version string) {
	w := witness{b.at.key(), version}
	if old, ok := b.read.Load(b.at.root.target()); !ok || old != w {
		b.read.Store(b.at.root.target(), w)
	}
}

// alone reports whether the object alone is denied: another one below the root,
// which could be read before, still can. A whole bucket whose access was taken
// away must not make each of its rows fail.
func (b bucketFile) alone(ctx context.Context) bool {
	root := b.at.root.target()
	found, _ := b.read.Load(root)
	w, ok := found.(witness)
	if !ok || w.key == b.at.key() {
		return false
	}
	body, err := b.objects.Get(ctx, w.key, w.version, 0, 1)
	if err != nil {
		b.read.CompareAndDelete(root, found)
		return false
	}
	return body.Close() == nil
}

func (b bucketFile) id() string     { return objectID(b.at.root.Bucket, b.at.key()) }
func (b bucketFile) String() string { return s3Scheme + b.at.root.Bucket + "/" + b.at.key() }

// explain sorts an error of Objects into this package's.
func (b bucketFile) explain(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", what, b, errors.Join(ctx.Err(), err))
	case errors.Is(err, ErrNoFile):
		return fmt.Errorf("%s %s: %w", what, b, ErrNoFile)
	case errors.Is(err, ErrChanged), denied(err):
		return fmt.Errorf("%s %s: %w", what, b, err)
	case errors.Is(err, ErrDenied) && what != toRemove && b.alone(ctx):
		return fmt.Errorf("%s %s, and no other object: %w: %w", what, b, fs.ErrPermission, err)
	}
	return fmt.Errorf("%s %s: %w", what, b, &RootError{Root: b.at.root.target(), Why: err.Error(), holds: b.at.holds})
}

// denied reports whether the store refuses the object. A number from the
// kernel is the network's word, also when it says "permission denied".
func denied(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, fs.ErrPermission) && !errors.As(err, &errno)
}

func (b bucketFile) info(o ObjectInfo) Info {
	modified := o.ModTime.UTC()
	return Info{
		Size: o.Size, ModTime: modified, ChangeTime: modified, FileID: b.id(), Links: 1,
		Version: o.Version, TimeUnit: objectTimeUnit,
	}
}

// open looks the object up; its bytes are asked for when they are read.
func (b bucketFile) open(ctx context.Context) (Original, error) {
	seen, err := b.objects.Head(ctx, b.at.key())
	if err != nil {
		return nil, b.explain(ctx, "open", err)
	}
	if seen.Version == "" {
		return nil, b.explain(ctx, "open", errors.New("the store names no version"))
	}
	return &objectOriginal{ctx: ctx, file: b, seen: seen}, nil
}

// toRemove is what explain is told of a removal.
const toRemove = "remove"

// remove deletes the version that was judged.
func (b bucketFile) remove(ctx context.Context, judged Info) error {
	if judged.FileID != b.id() || judged.Version == "" {
		return fmt.Errorf("remove %s: it is not what was judged: %w", b, ErrChanged)
	}
	err := b.objects.Delete(ctx, b.at.key(), judged.Version)
	switch {
	case err == nil, errors.Is(err, ErrNoFile):
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("remove %s: the store can't delete one version and no other: %w", b, err)
	}
	return b.explain(ctx, toRemove, err)
}

// versionGone reports whether the store has that version no more.
func (b bucketFile) versionGone(ctx context.Context, version string) (bool, error) {
	body, err := b.objects.Get(ctx, b.at.key(), version, 0, -1)
	switch {
	case err == nil:
		return false, body.Close()
	case ctx.Err() == nil && (errors.Is(err, ErrNoFile) || errors.Is(err, ErrChanged)):
		return true, nil
	}
	return false, b.explain(ctx, "look for an earlier version of", err)
}

// objectOriginal is one version of an object, open. It streams from where it
// is read, and asks anew only after a Seek.
type objectOriginal struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no place for it; lives as long as the open file
	file bucketFile
	seen ObjectInfo
	pos  int64

	body io.ReadCloser // from pos on; nil: not asked for
}

func (o *objectOriginal) Info() Info { return o.file.info(o.seen) }

func (o *objectOriginal) Close() error {
	body := o.body
	o.body = nil
	if body == nil {
		return nil
	}
	_ = body.Close() // only read from: what it has to say was said by Read
	return nil
}

func (o *objectOriginal) Seek(offset int64, whence int) (int64, error) {
	to, err := seekTo(offset, whence, o.pos, o.seen.Size)
	if err != nil {
		return o.pos, fmt.Errorf("%s: %w", o.file, err)
	}
	if to != o.pos {
		o.pos = to
		return to, o.Close()
	}
	return to, nil
}

func (o *objectOriginal) Read(p []byte) (int, error) {
	if o.pos >= o.seen.Size {
		if err := o.ended(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if o.body == nil {
		body, err := o.file.objects.Get(o.ctx, o.file.at.key(), o.seen.Version, o.pos, -1)
		if err != nil {
			if errors.Is(err, ErrNoFile) {
				err = fmt.Errorf("removed while it was read: %w", ErrChanged)
			}
			return 0, o.file.explain(o.ctx, "read", err)
		}
		o.body = body
		if o.seen.Size > 0 {
			o.file.witnessed(o.seen.Version)
		}
	}
	if left := o.seen.Size - o.pos; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := o.body.Read(p)
	o.pos += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && o.pos == o.seen.Size:
		return n, nil // the end is judged by the next Read
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%s: ends at %d of %d bytes: %w", o.file, o.pos, o.seen.Size, ErrChanged)
	}
	return n, o.file.explain(o.ctx, "read", err)
}

// ended holds the object against what it was when it was opened: nothing is
// left of the stream, and the same version stands at the key.
func (o *objectOriginal) ended() error {
	if o.body != nil {
		n, err := io.ReadFull(o.body, make([]byte, 1))
		switch {
		case n > 0:
			return fmt.Errorf("%s: goes on behind its %d bytes: %w", o.file, o.seen.Size, ErrChanged)
		case !errors.Is(err, io.EOF):
			return o.file.explain(o.ctx, "read", err)
		}
		if err := o.Close(); err != nil {
			return err
		}
	}
	now, err := o.file.objects.Head(o.ctx, o.file.at.key())
	switch {
	case errors.Is(err, ErrNoFile) && o.ctx.Err() == nil:
		return fmt.Errorf("%s: removed while it was read: %w", o.file, ErrChanged)
	case err != nil:
		return o.file.explain(o.ctx, "read", err)
	case !o.file.info(now).same(o.Info()):
		return fmt.Errorf("%s: replaced while it was read: %w", o.file, ErrChanged)
	}
	return nil
}
