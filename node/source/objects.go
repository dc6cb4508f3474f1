package source

import (
	"context"
	"errors"
	"io"
	"time"
)

// Objects are the objects of one S3 bucket, as Originals read and delete them.
// All methods may be called at once. ErrNoFile only when the store answered
// that there is no such object, or no such version of it. An error that is
// fs.ErrPermission is the object's own: the store refuses this very one (kept in
// a class that must be restored first). ErrDenied: the store refuses, and does
// not say what. Any other says nothing about the object: a missing bucket among
// them.
type Objects interface {
	// Head describes the newest version.
	Head(ctx context.Context, key string) (ObjectInfo, error)
	// Get streams n bytes from off (n < 0: to the end) of that very version;
	// ErrChanged when the store can't give it any more.
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	// Delete removes that very version and no other: by version id, or under
	// If-Match. ErrChanged when another stands there now. An error that is
	// errors.ErrUnsupported: the store knows neither, and nothing is deleted.
	Delete(ctx context.Context, key, version string) error
}

// ErrDenied: the store denies access, to this object, to all or to whoever asks.
var ErrDenied = errors.New("access denied")

// ObjectInfo describes one version of an object.
type ObjectInfo struct {
	Size    int64 // bytes
	ModTime time.Time
	Version string // names these very bytes: version id, else ETag
}
