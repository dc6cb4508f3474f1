// Package store keeps immutable objects: the packs, and the few small objects
// beside them (cluster.json, generations/<g>, quarantine/…).
//
// A driver is the only code that talks to a particular store; everything else
// sees Store. Drivers: Folder and S3. storetest holds the conformance
// suite that every driver passes, and a Fake that counts requests and fails
// the test whose code breaks the contract.
//
// Not for: caching, checking record checksums, deciding what is garbage.
package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors of every driver, returned wrapped. Any other error means that the
// outcome is unknown: it never means that an object is missing.
var (
	// ErrNotFound: the store answered that there is no object (or no such
	// version of it) at the key.
	ErrNotFound = errors.New("object not found")
	// ErrExists: Put found another object at the key and left it alone.
	ErrExists = errors.New("object exists")
	// ErrBeyond: the store answered that the object (or that version of it) ends
	// before the bytes that were asked for.
	ErrBeyond = errors.New("beyond the object's end")
	// ErrBadKey: the key is empty, absolute, or has an empty, "." or ".." segment.
	ErrBadKey = errors.New("bad object key")
)

// Object describes one stored object.
type Object struct {
	Key      string
	Size     int64     // bytes
	Version  string    // names these very bytes: S3 version id or ETag; for a folder the file's time
	Modified time.Time // by the store's clock; zero from a Put whose store does not tell it
}

// Body is the content of a Put: readable any number of times, so that a retry
// sends the same bytes. *os.File and *bytes.Reader fit.
type Body interface {
	io.ReaderAt
}

// Reader is the part of a store that changes nothing.
type Reader interface {
	// Get streams n bytes from offset off; n < 0 means to the end. A non-empty
	// version asks for that version only. Asking beyond the end is ErrBeyond.
	// The caller closes the stream.
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	// Head describes the object without reading it.
	Head(ctx context.Context, key, version string) (Object, error)
	// List calls f for each object whose key begins with prefix and is greater
	// than after, in no promised order, until f returns an error, which List
	// returns. Not used in steady state: rebuild and tests only.
	List(ctx context.Context, prefix, after string, f func(Object) error) error
}

// Writer is the part of a store that changes it.
type Writer interface {
	// Put creates the object at key from size bytes of body, never replacing
	// another: ErrExists. Durable when it returns nil: it survives a power cut.
	// After an error the object is there whole or not at all, and Put may be
	// repeated.
	Put(ctx context.Context, key string, body Body, size int64) (Object, error)
	// Move renames the object; ErrNotFound when from is missing, ErrExists when
	// to is taken by another object. Safe to repeat when cut: a repeated Move
	// whose work is done returns nil.
	Move(ctx context.Context, from, to string) error
	// Delete removes the object. Deleting what is not there is no error.
	Delete(ctx context.Context, key string) error
}

// Store is one object store. All methods may be called at once.
type Store interface {
	Reader
	Writer
	// ConditionalCreate reports whether Put's promise never to replace holds
	// against other writers too, which the deletion of originals demands. A
	// store that has to ask its server asks once; an error means that it is not
	// known yet.
	ConditionalCreate(ctx context.Context) (bool, error)
}
