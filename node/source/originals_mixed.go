package source

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
)

// mixed are originals of which some stand below local folders and some in
// buckets.
//
// A local file is identified by device and inode, an object by its bucket and
// key. What is the same file in truth but reached in both ways, as through a
// bucket mounted as a folder, or through two names of one bucket, is not seen
// to be.
type mixed struct {
	roots   func() []Root
	buckets func(bucket string) (Objects, error)
	read    sync.Map // root's target → witness: what was read below it last
}

var _ Originals = (*mixed)(nil)

// NewOriginals returns the originals below the roots that roots names at each
// call; buckets opens a bucket, and is asked for each of its objects anew.
//
// Of an object, Open and each reading to the end ask for its description, and
// reading asks for its bytes once; a Seek asks for them again. The context of
// Open also ends the reading of an object. Hide and PutBack have nothing to
// do: an object stays at its key until Remove deletes the very version that was
// judged, by its id or under If-Match. A store that has neither is
// errors.ErrUnsupported, and the object stays.
func NewOriginals(roots func() []Root, buckets func(bucket string) (Objects, error)) Originals {
	return &mixed{roots: roots, buckets: buckets}
}

// file returns the spot of path, and what stands for its root: one of the two.
func (m *mixed) file(path string) (at spot, folder *Folders, object *bucketFile, err error) {
	if at, err = findSpot(m.roots(), path); err != nil {
		return at, nil, nil, err
	}
	if at.root.Bucket == "" {
		return at, NewFolders(func() []string { return []string{at.root.Folder} }), nil, nil
	}
	objects, err := m.buckets(at.root.Bucket)
	if err != nil {
		return at, nil, nil, fmt.Errorf("%q: %w", path, &RootError{Root: at.root.target(), Why: err.Error(), holds: at.holds})
	}
	return at, nil, &bucketFile{objects: objects, at: at, read: &m.read}, nil
}

// named tells a root's error which rows' paths lie below the root.
func named(at spot, err error) error {
	if e, ok := errors.AsType[*RootError](err); ok {
		e.holds = at.holds
	}
	return err
}

func (m *mixed) Open(ctx context.Context, path string) (Original, error) {
	at, folder, object, err := m.file(path)
	if err != nil {
		return nil, err
	}
	if object != nil {
		return object.open(ctx)
	}
	o, err := folder.Open(ctx, at.rest)
	return o, named(at, err)
}

// FileID identifies an object by its place, whether or not it is there. Local
// paths beside all roots, and objects of other buckets, are followed as well.
func (m *mixed) FileID(ctx context.Context, path string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	at, err := findSpot(m.roots(), path)
	switch {
	case err == nil && at.root.Bucket != "":
		return objectID(at.root.Bucket, at.key()), nil
	case err == nil:
		id, err := NewFolders(func() []string { return []string{at.root.Folder} }).FileID(ctx, at.rest)
		return id, named(at, err)
	}
	if r, rest, ok := literal(path); ok {
		return objectID(r.Bucket, rest), nil
	}
	return NewFolders(func() []string { return nil }).FileID(ctx, path)
}

// literal reads s3://bucket/key.
func literal(path string) (r Root, key string, ok bool) {
	rest, ok := strings.CutPrefix(path, s3Scheme)
	if !ok {
		return Root{}, "", false
	}
	bucket, key, ok := strings.Cut(rest, "/")
	return Root{Bucket: bucket}, key, ok && bucketName(bucket) && wholeKey(key)
}

// RootID is the bucket's name for an object: a bucket is never empty as the
// mount point of a missing disk is.
func (m *mixed) RootID(ctx context.Context, path string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	at, folder, object, err := m.file(path)
	if err != nil {
		return "", err
	}
	if object != nil {
		return objectScheme + at.root.Bucket, nil
	}
	id, err := folder.RootID(ctx, at.rest)
	return id, named(at, err)
}

func (m *mixed) Hide(ctx context.Context, path string) error {
	at, folder, object, err := m.file(path)
	if err != nil || object != nil {
		return err
	}
	return named(at, folder.Hide(ctx, at.rest))
}

// OpenHidden opens the object itself, which nothing hides.
func (m *mixed) OpenHidden(ctx context.Context, path string) (Original, error) {
	at, folder, object, err := m.file(path)
	if err != nil {
		return nil, err
	}
	if object != nil {
		return object.open(ctx)
	}
	o, err := folder.OpenHidden(ctx, at.rest)
	return o, named(at, err)
}

func (m *mixed) PutBack(ctx context.Context, path string) (string, error) {
	at, folder, object, err := m.file(path)
	if err != nil || object != nil {
		return path, err
	}
	rest, err := folder.PutBack(ctx, at.rest)
	if err != nil {
		return path, named(at, err)
	}
	if rest == at.rest {
		return path, nil
	}
	return at.root.word(filepath.ToSlash(rest)), nil
}

func (m *mixed) Remove(ctx context.Context, path string, judged Info) error {
	at, folder, object, err := m.file(path)
	if err != nil {
		return err
	}
	if object != nil {
		return object.remove(ctx, judged)
	}
	return named(at, folder.Remove(ctx, at.rest, judged))
}

// VersionGone reports whether that version of the object at path is gone, for
// whoever may have removed it already: in a bucket that keeps versions, what
// then stands at the path is the version before. False for local files.
func (m *mixed) VersionGone(ctx context.Context, path, version string) (bool, error) {
	_, _, object, err := m.file(path)
	if err != nil || object == nil || version == "" {
		return false, err
	}
	return object.versionGone(ctx, version)
}
