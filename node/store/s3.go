package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Defaults of S3Config.
const (
	DefaultPartSize     = 512 << 20
	DefaultParallel     = 4
	DefaultAttempts     = 4
	DefaultReadTimeout  = 15 * time.Second
	DefaultWriteTimeout = 2 * time.Minute
	DefaultStall        = 20 * time.Second
)

// S3Config says which bucket an S3 keeps its objects in, and how it talks to
// the server. The zero value of every field but URL is the documented default.
type S3Config struct {
	// URL is s3://bucket/prefix?endpoint=https://host:port&region=name. With an
	// endpoint the bucket stands in the path, without one it is Amazon's. Region
	// defaults to the SDK's usual chain, and with an endpoint to us-east-1.
	URL string
	// CAFile holds PEM certificates that an https endpoint is checked against;
	// empty: the system's.
	CAFile string
	// Credentials of each role: "profile:NAME" of the shared AWS configuration,
	// "file:PATH" (JSON: access_key_id, secret_access_key, session_token),
	// "env:PREFIX" (PREFIX_ACCESS_KEY_ID, PREFIX_SECRET_ACCESS_KEY and, if there
	// is one, PREFIX_SESSION_TOKEN), or empty: the SDK's usual chain. Files and
	// variables are read again every few minutes, and when the server accepts them
	// no more, so that they may be rotated.
	Read, Write, Collect string
	// NoCollect is for who has no credentials to collect: nothing that can be
	// asked with others is asked with them.
	NoCollect bool

	// PartSize is up to what size an object is sent in one request, and how large
	// the parts of larger ones are; 5 MiB to 5 GiB, by default 512 MiB: a pack is
	// one request. Parts are never held in memory.
	PartSize int64
	// Parallel is how many parts of one object are on the way at once; by default
	// 4.
	Parallel int

	// Attempts is how often one request is tried; by default 4.
	Attempts int
	// ReadTimeout is how long the answer to a request that sends nothing may take
	// to begin; by default 15 s. WriteTimeout is the same for uploads, from their
	// last byte on, and for requests that let the server copy; by default 2 min.
	ReadTimeout, WriteTimeout time.Duration
	// Stall is how long a body may stand still, either way; by default 20 s.
	// There is no limit to the whole.
	Stall time.Duration

	// Observe is called after each HTTP request, retries and hedges included,
	// with the time until its answer began, and with err when there was none or
	// the server is to blame (5xx, 429). It must not block. nil: nobody looks.
	Observe func(k Kind, took time.Duration, err error)
	// Logger gets what an operator should know; nil: nobody.
	Logger *slog.Logger
}

// ErrUnavailable: the store did not answer, or answered that it can't now,
// more often than it is asked. The outcome of a change is unknown. Wrapped
// beside its cause.
var ErrUnavailable = errors.New("the store is unavailable")

// ErrAccess: the store refused the credentials. Nothing is said about the
// object. The error names the role and the right that it takes.
var ErrAccess = errors.New("the store denies access")

// ErrFrozen: the object is kept in a class from which it must be restored
// before it can be read. No other object is concerned.
var ErrFrozen = errors.New("the object must be restored before it can be read")

// ErrReplaced: the key holds another version than the one asked for. An error
// that is ErrReplaced is also ErrNotFound.
var ErrReplaced = errors.New("another version is there")

// S3 is a Store in a bucket of S3 or of a server that speaks its protocol.
//
// Each role has credentials of its own. What they are for, and the rights that
// they need on the bucket (b) and on the objects below the prefix (b/p*):
//
//   - read: Get, Head, and the comparing of Put. s3:GetObject and
//     s3:GetObjectVersion on b/p*; s3:ListBucket on b, without which a server
//     answers 403 and not 404 for what is missing, and nothing is ever known to
//     be missing.
//   - write: Put. s3:PutObject and s3:AbortMultipartUpload on b/p*.
//   - collect: Move, Delete, DeleteVersion, List, Uploads, Abort.
//     s3:GetObject, s3:GetObjectVersion, s3:DeleteObject,
//     s3:DeleteObjectVersion and s3:AbortMultipartUpload on b/p*, s3:PutObject
//     where objects are moved to (b/p/quarantine/*) and on the probe key;
//     s3:ListBucket, s3:ListBucketVersions, s3:ListBucketMultipartUploads and
//     s3:GetBucketVersioning on b.
//
// Where a server can create on condition (If-None-Match), Put never replaces
// what another writer put. Whether it can is found out with one object at the
// key ProbeKey, which is created once and stays.
//
// A version is the version id where the bucket has versions, else the ETag with
// its quotes. Get and Head ask for exactly that one.
type S3 struct {
	cfg      S3Config
	target   s3Target
	read     s3Role
	write    s3Role
	collect  s3Role
	wire     *wire
	http     *http.Client
	log      *slog.Logger
	hedge    *hedging
	inflight sync.WaitGroup // hedged requests that lost
	copyMax  int64          // above it, Move copies in parts

	probing     sync.Mutex // one probe at a time
	conditional atomic.Uint32
	deleteMatch atomic.Uint32
}

// s3Role is a client with the credentials of one role.
type s3Role struct {
	*s3.Client
	name string // "read", "write", "collect"
	from string // where the credentials come from, for errors

	cached *aws.CredentialsCache // of credentials that can be read again; nil: of none
}

// refused has the credentials read again: they may have been rotated since.
func (r s3Role) refused() {
	if r.cached != nil {
		r.cached.Invalidate()
	}
}

var _ Store = (*S3)(nil)

// withDefaults fills in what is zero.
func (c S3Config) withDefaults() S3Config {
	set := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	if c.PartSize == 0 {
		c.PartSize = DefaultPartSize
	}
	if c.Parallel == 0 {
		c.Parallel = DefaultParallel
	}
	if c.Attempts == 0 {
		c.Attempts = DefaultAttempts
	}
	set(&c.ReadTimeout, DefaultReadTimeout)
	set(&c.WriteTimeout, DefaultWriteTimeout)
	set(&c.Stall, DefaultStall)
	if c.Observe == nil {
		c.Observe = func(Kind, time.Duration, error) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c S3Config) validate() error {
	switch {
	case c.PartSize < minPart || c.PartSize > maxPart:
		return fmt.Errorf("part size of %d bytes: want 5 MiB to 5 GiB", c.PartSize)
	case c.Parallel < 0, c.Attempts < 0, c.ReadTimeout < 0, c.WriteTimeout < 0, c.Stall < 0:
		return errors.New("numbers and durations must not be negative")
	}
	return nil
}

// OpenS3 returns the store in the bucket that c names, after asking whether
// it creates on condition. A server that does not answer within ReadTimeout is
// no error: who needs to know asks again. A bucket that does not exist is one.
func OpenS3(ctx context.Context, c S3Config) (*S3, error) {
	s, err := newS3(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open S3 store: %w", err)
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	if _, err := s.ConditionalCreate(asking); err != nil {
		if ctx.Err() != nil || errors.Is(err, errNoBucket) {
			return nil, errors.Join(fmt.Errorf("open S3 store: %w", err), s.Close())
		}
		s.log.Warn("whether the store creates on condition is not known yet", "reason", err)
	}
	return s, nil
}

// newS3 returns the store without a request.
func newS3(ctx context.Context, c S3Config) (*S3, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	target, err := c.target()
	if err != nil {
		return nil, err
	}
	client, err := c.httpClient()
	if err != nil {
		return nil, err
	}
	s := &S3{cfg: c, target: target, http: client, log: c.Logger, hedge: newHedging(), copyMax: maxPart, wire: newWire(c, client)}
	for _, r := range []struct {
		role       *s3Role
		name, from string
	}{{&s.read, "read", c.Read}, {&s.write, "write", c.Write}, {&s.collect, "collect", c.Collect}} {
		config, err := c.load(ctx, target, r.from)
		if err != nil {
			return nil, fmt.Errorf("credentials to %s: %w", r.name, err)
		}
		*r.role = s3Role{Client: newS3Client(config, target, c.Attempts, s.wire), name: r.name, from: credentialsWords(r.from), cached: cachedSecret(config, r.from)}
	}
	return s, nil
}

// Close lets go of the connections, after the requests that nobody waits for
// any more have ended. Streams that Get returned are to be closed before.
func (s *S3) Close() error {
	s.inflight.Wait()
	s.http.CloseIdleConnections()
	return nil
}

// key returns the object's key in the bucket, checked.
func (s *S3) key(ctx context.Context, key string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return s.target.key(key)
}
