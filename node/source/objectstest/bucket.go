// Package objectstest has what tests of S3 originals need: a bucket in memory
// that fails the test whose code breaks the contract of source.Objects, and
// the conformance suite that every implementation passes.
//
// Not for: the store of packs; node/store/storetest is.
package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// Kind says what a bucket does with what is overwritten, and how it deletes.
type Kind int

// The kinds.
const (
	Plain     Kind = iota // versions are ETags: equal bytes have equal ones; deletes under If-Match
	Versioned             // keeps each version; deleting one uncovers the one before
	Careless              // knows neither versions nor If-Match on deletes: errors.ErrUnsupported
)

// Bucket is a bucket in memory. Its methods may be called at once.
type Bucket struct {
	// Before is called before each request ("Head", "Get", "Delete") and may
	// fail it; nil: none fails. It may use the bucket. Set it before the first
	// request.
	Before func(op, key string) error
	// Body changes what Get streams; nil: nothing.
	Body func(key string, body io.ReadCloser) io.ReadCloser

	t    testing.TB
	kind Kind

	mu       sync.Mutex // guards what follows
	objects  map[string][]object
	requests []string
	count    int
}

type object struct {
	info    source.ObjectInfo
	content []byte
}

var _ source.Objects = (*Bucket)(nil)

// New returns an empty bucket.
func New(t testing.TB, kind Kind) *Bucket {
	return &Bucket{t: t, kind: kind, objects: make(map[string][]object)}
}

// Put stores an object, modified at that time, cut to the second as S3 does.
func (b *Bucket) Put(key, content string, modified time.Time) source.ObjectInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	o := object{content: []byte(content), info: source.ObjectInfo{
		Size: int64(len(content)), ModTime: modified.UTC().Truncate(time.Second), Version: fmt.Sprintf("v%d", b.count),
	}}
	if b.kind != Versioned {
		o.info.Version = fmt.Sprintf("%q", fmt.Sprintf("%x", content)) // as good as a hash, and readable
		b.objects[key] = nil
	}
	b.objects[key] = append(b.objects[key], o)
	return o.info
}

// Content returns what stands at key; ok is false when nothing does.
func (b *Bucket) Content(key string) (content string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.objects[key]
	if len(all) == 0 {
		return "", false
	}
	return string(all[len(all)-1].content), true
}

// Requests returns the requests made so far, "Head key" and so on.
func (b *Bucket) Requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests)
}

// request notes one request and holds it against the contract.
func (b *Bucket) request(ctx context.Context, op, key, version string) error {
	b.t.Helper()
	for s := range strings.SplitSeq(key, "/") {
		if s == "" || s == "." || s == ".." {
			b.t.Errorf("%s of the key %q, which stores read differently", op, key)
		}
	}
	if op != "Head" && version == "" {
		b.t.Errorf("%s of %s without a version", op, key)
	}
	b.mu.Lock()
	b.requests = append(b.requests, op+" "+key)
	b.mu.Unlock()
	if b.Before != nil {
		if err := b.Before(op, key); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Head describes the newest version.
func (b *Bucket) Head(ctx context.Context, key string) (source.ObjectInfo, error) {
	if err := b.request(ctx, "Head", key, ""); err != nil {
		return source.ObjectInfo{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.objects[key]
	if len(all) == 0 {
		return source.ObjectInfo{}, fmt.Errorf("head %s: %w", key, source.ErrNoFile)
	}
	return all[len(all)-1].info, nil
}

// Get streams part of a version.
func (b *Bucket) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	if err := b.request(ctx, "Get", key, version); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.objects[key]
	i := slices.IndexFunc(all, func(o object) bool { return o.info.Version == version })
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("get %s: %w", key, source.ErrNoFile)
	case i < 0:
		return nil, fmt.Errorf("get %s: %w", key, source.ErrChanged)
	case off > all[i].info.Size:
		return nil, errors.New("get " + key + ": range not satisfiable")
	}
	content := all[i].content[off:]
	if n >= 0 && n < int64(len(content)) {
		content = content[:n]
	}
	var body io.ReadCloser = &stream{ctx: ctx, content: bytes.NewReader(content)}
	if b.Body != nil {
		body = b.Body(key, body)
	}
	return body, nil
}

// Delete removes that version.
func (b *Bucket) Delete(ctx context.Context, key, version string) error {
	if err := b.request(ctx, "Delete", key, version); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kind == Careless {
		return fmt.Errorf("delete %s: %w", key, errors.ErrUnsupported)
	}
	all := b.objects[key]
	i := slices.IndexFunc(all, func(o object) bool { return o.info.Version == version })
	switch {
	case i >= 0:
		b.objects[key] = slices.Delete(slices.Clone(all), i, i+1)
	case len(all) > 0 && b.kind == Plain:
		return fmt.Errorf("delete %s: %w", key, source.ErrChanged)
	}
	return nil // gone already
}

// stream ends with its context, as a connection does.
type stream struct {
	content *bytes.Reader
	ctx     context.Context //nolint:containedctx // of the request whose body it is
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.content.Read(p)
}

func (s *stream) Close() error { return nil }
