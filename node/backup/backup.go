package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// ErrDamaged: the object at that key is no whole backup.
var ErrDamaged = errors.New("damaged backup")

// Manifest is the cluster's state. On nil a change is durable in a quorum;
// after an error it may have happened. All methods may be called at once.
type Manifest interface {
	// View returns the newest state that this node has applied; immutable.
	View() *raftmeta.View
	// WithLease runs work under a lease, with a view at least as new as the
	// grant. raftmeta.ErrClash: another holds it. raftmeta.ErrRebuilding.
	WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error
	// Set stores a setting if its modification index still is ifModIndex:
	// raftmeta.ErrConflict.
	Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error
}

// Store is the part of an object store that backups need; see store.Store for
// what each method promises.
type Store interface {
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	Head(ctx context.Context, key, version string) (store.Object, error)
	List(ctx context.Context, prefix, after string, f func(store.Object) error) error
	Put(ctx context.Context, key string, body store.Body, size int64) (store.Object, error)
	Delete(ctx context.Context, key string) error
}

// Config is what a Backup needs. Manifest and Store have no default.
type Config struct {
	Manifest Manifest
	Store    Store

	Every    time.Duration // how old the newest backup may be when the state has changed; 0: 1 h; negative: only Now makes one
	Keep     int           // so many of the newest are kept; 0: 48
	KeepDays int           // beside them the last one of each day (UTC), for so many days; 0: 30; negative: none

	// Current returns an error when a newer life of the cluster has begun, or
	// may have: then nothing is written or deleted. nil: it never has.
	Current func(context.Context) error

	Now        func() time.Time      // nil: time.Now
	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: metrics are kept, but not registered
}

const (
	defaultEvery    = time.Hour
	defaultKeep     = 48
	defaultKeepDays = 30

	// lookEvery is how often Run looks whether a backup is due.
	lookEvery = time.Minute
	// causeBackup is what the requests of a backup are for.
	causeBackup = "backup"
	// busyPause is how long Now waits for another's backup to end.
	busyPause = time.Second
)

func (c Config) validate() error {
	if c.Manifest == nil || c.Store == nil {
		return errors.New("backup config: no Manifest or no Store")
	}
	if c.Keep < 0 {
		return fmt.Errorf("backup config: Keep is %d", c.Keep)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Keep == 0 {
		c.Keep = defaultKeep
	}
	if c.KeepDays == 0 {
		c.KeepDays = defaultKeepDays
	}
	if c.Current == nil {
		c.Current = func(context.Context) error { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Backup makes backups. Its methods may be called at once, on any number of
// nodes: a lease lets one at a time work.
type Backup struct {
	cfg     Config
	metrics *metrics

	mu       sync.Mutex // guards the fields below
	problem  error      // of the last try; nil: it succeeded
	failedAt time.Time
	seen     unchanged
}

// unchanged is a view of which it is known that the newest backup holds all of
// it, so that the state is not hashed once a minute.
type unchanged struct {
	applied uint64
	key     string // of that backup
}

// New returns a Backup that does nothing yet.
func New(cfg Config) (*Backup, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Backup{cfg: cfg, metrics: m}, nil
}

// Run makes a backup whenever one is due, until ctx ends, which is no error.
func (b *Backup) Run(ctx context.Context) error {
	fails := 0
	for wait := time.Duration(0); pause(ctx, wait); {
		wait = lookEvery
		made, err := b.due(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			fails++
			wait = min(lookEvery<<min(fails, 10), max(b.cfg.Every, lookEvery))
			b.cfg.Logger.ErrorContext(ctx, "no backup was made", "again_in", wait, "error", err)
		case err == nil:
			fails = 0
		}
		if made.Key != "" {
			b.cfg.Logger.InfoContext(ctx, "backup made", "key", made.Key, "packs", made.Packs, "bytes", made.Bytes)
		}
	}
	return nil
}

// due makes a backup when one is due; the zero Entry: none was.
func (b *Backup) due(ctx context.Context) (Entry, error) {
	err := b.isDue()
	if errors.Is(err, errIdle) {
		b.look()
		return Entry{}, nil
	}
	if err != nil {
		return Entry{}, b.done(Entry{}, err)
	}
	var made Entry
	err = b.lease(ctx, func(ctx context.Context) (err error) {
		if err = b.isDue(); err == nil { // another node may have been faster
			made, err = b.make(ctx)
		}
		return err
	})
	if errors.Is(err, errIdle) || errors.Is(err, raftmeta.ErrClash) {
		b.look()
		return Entry{}, nil
	}
	return made, b.done(made, err)
}

// Now makes a backup, whatever the schedule says, and returns it once it is in
// the store and listed. It waits for one that is under way.
// raftmeta.ErrRebuilding: there is nothing whole to back up yet.
func (b *Backup) Now(ctx context.Context) (Entry, error) {
	var made Entry
	for {
		err := b.lease(ctx, func(ctx context.Context) (err error) {
			made, err = b.make(ctx)
			return err
		})
		if !errors.Is(err, raftmeta.ErrClash) || !pause(ctx, busyPause) {
			return made, b.done(made, err)
		}
	}
}

// Problem returns why the last try of this node failed; nil: it did not, or a
// backup was made since.
func (b *Backup) Problem() error {
	all, err := List(b.cfg.Manifest.View())
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && len(all) > 0 && all[0].At.After(b.failedAt) {
		return nil
	}
	return b.problem
}

// done notes how a try ended.
func (b *Backup) done(made Entry, err error) error {
	if err != nil {
		err = fmt.Errorf("backup: %w", err)
	}
	b.metrics.tried(made, err)
	b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem, b.failedAt = err, b.cfg.Now()
	return err
}

// look takes over what any node has made.
func (b *Backup) look() {
	if all, err := List(b.cfg.Manifest.View()); err == nil {
		b.metrics.known(all)
	}
}

// errIdle: nothing is to be done now.
var errIdle = errors.New("no backup is due")

// isDue returns nil when the newest backup is too old and lacks something, and
// errIdle when not.
func (b *Backup) isDue() error {
	v := b.cfg.Manifest.View()
	if b.cfg.Every < 0 || v.ShardBits() == 0 || !v.RebuildDone(v.Generation()) {
		return errIdle
	}
	l, err := readList(v)
	if err != nil {
		return err
	}
	if !l.known() {
		return b.firstIsDue(v)
	}
	last := l.Backups[0]
	// A clock that was in the future once must not put backups off till then.
	if age := b.cfg.Now().Sub(last.At); age.Abs() < b.cfg.Every {
		return errIdle
	}
	b.mu.Lock()
	same := b.seen == unchanged{v.Applied(), last.Key}
	b.mu.Unlock()
	if same {
		return errIdle
	}
	digest, err := v.Digest(isList)
	if err != nil || digest != last.Digest {
		return err
	}
	b.mu.Lock()
	b.seen = unchanged{v.Applied(), last.Key}
	b.mu.Unlock()
	return errIdle
}

// firstIsDue: a life's first backup is worth making when it has packs, and has
// had them for a while.
func (b *Backup) firstIsDue(v *raftmeta.View) error {
	for p := range v.Packs() {
		if b.cfg.Now().Sub(p.Created) >= b.cfg.Every {
			return nil
		}
	}
	return errIdle
}

func (b *Backup) lease(ctx context.Context, work func(context.Context) error) error {
	return b.cfg.Manifest.WithLease(ctx, raftmeta.Job{Kind: raftmeta.JobBackup},
		func(ctx context.Context, _ raftmeta.Lease) error {
			if err := b.cfg.Current(ctx); err != nil {
				return err
			}
			return work(store.WithCause(ctx, causeBackup))
		})
}

// make makes one backup and forgets old ones. Cut anywhere, the next make goes
// on: what was announced and not listed is deleted in the end.
func (b *Backup) make(ctx context.Context) (Entry, error) {
	v := b.cfg.Manifest.View()
	body, made, err := encode(v, b.cfg.Now())
	if err != nil {
		return Entry{}, err
	}
	err = b.change(ctx, func(l *list) error {
		if err := b.inherit(ctx, l); err != nil {
			return err
		}
		l.announce(made.Key, b.cfg.Now().Add(lateWrites))
		return nil
	})
	if err != nil {
		return Entry{}, fmt.Errorf("announce %s: %w", made.Key, err)
	}
	if err := b.put(ctx, made, body); err != nil {
		return Entry{}, err
	}
	err = b.change(ctx, func(l *list) error {
		if err := l.add(made); err != nil {
			return err
		}
		l.expire(b.cfg.Now(), b.cfg.Keep, b.cfg.KeepDays)
		return nil
	})
	if err != nil {
		return Entry{}, fmt.Errorf("list %s: %w", made.Key, err)
	}
	if err := b.sweep(ctx); err != nil {
		b.cfg.Logger.WarnContext(ctx, "old backups stay until the next one", "error", err)
	}
	return made, nil
}

// put writes the object and looks that it is there. Nobody else has its key: the
// index is that of the lease, or a later one.
func (b *Backup) put(ctx context.Context, made Entry, body []byte) error {
	_, err := b.cfg.Store.Put(ctx, made.Key, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return fmt.Errorf("write %s: %w", made.Key, err)
	}
	o, err := b.cfg.Store.Head(ctx, made.Key, "")
	if err != nil {
		return fmt.Errorf("look at %s: %w", made.Key, err)
	}
	if o.Size != int64(len(body)) {
		return fmt.Errorf("%s has %d bytes, not %d: %w", made.Key, o.Size, len(body), ErrDamaged)
	}
	return nil
}

// sweep deletes what is doomed and forgets it.
func (b *Backup) sweep(ctx context.Context) error {
	l, err := readList(b.cfg.Manifest.View())
	if err != nil || len(l.Doomed) == 0 {
		return err
	}
	if err := b.cfg.Current(ctx); err != nil {
		return err
	}
	for _, d := range l.Doomed {
		if d.Writing {
			continue
		}
		if err := b.cfg.Store.Delete(ctx, d.Key); err != nil {
			return fmt.Errorf("delete %s: %w", d.Key, err)
		}
	}
	now := b.cfg.Now()
	return b.change(ctx, func(l *list) error {
		l.forget(now)
		return nil
	})
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
