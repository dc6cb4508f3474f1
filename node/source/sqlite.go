package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/datavision/desnode/migrations"
)

// ErrNetworkFS: the database lies on a network file system, on which neither
// its locks nor its shared memory can be trusted.
var ErrNetworkFS = errors.New("on a network file system")

// ErrOtherCluster: the source already belongs to another cluster.
var ErrOtherCluster = errors.New("source belongs to another cluster")

// SQLiteConfig says which database to open.
type SQLiteConfig struct {
	Name string // the source's short name
	Path string // the database file; it is made when it is missing
	// Existing: a database that is missing is an error, fs.ErrNotExist.
	Existing bool
	// BusyTimeout is how long a call waits for another process's write. 0: 30 s.
	BusyTimeout time.Duration
}

const defaultBusyTimeout = 30 * time.Second

// SQLite is the embedded source's Table. Any number of processes of one host
// may share the database. The schema, in package migrations, enforces the life
// of a file; the statements here match rows as last seen.
//
// Writes are transactions on one connection, begun as IMMEDIATE, so that none
// can fail half-way for want of the lock; they are on disk when a call returns
// (WAL, synchronous=FULL). Reads have connections of their own and never wait
// for a write. Times have nanosecond precision: two that differ at all differ
// by one unit, so they are compared as numbers.
type SQLite struct {
	name  string
	write *sql.DB
	read  *sql.DB
	stmts statements
	claim atomic.Pointer[claim] // that every write finds the source to have
}

var _ Table = (*SQLite)(nil)

// OpenSQLite opens the database and brings its schema up to date.
func OpenSQLite(ctx context.Context, cfg SQLiteConfig) (*SQLite, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", cfg.Name, err)
	}
	if err := checkLocal(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("open source %s: %s: %w", cfg.Name, path, err)
	}
	busy := cfg.BusyTimeout
	if busy == 0 {
		busy = defaultBusyTimeout
	}
	// SQLite waits for locks by itself, but not for another process that changes
	// the journal's kind at its first opening or removes the journal at its end.
	for deadline := time.Now().Add(busy); ; {
		s := &SQLite{name: cfg.Name}
		err := s.open(ctx, path, busy, cfg.Existing)
		if err == nil {
			return s, nil
		}
		err = errors.Join(fmt.Errorf("open source %s: %s: %w", cfg.Name, path, err), s.Close())
		if !locked(err) || time.Now().After(deadline) {
			return nil, err
		}
		if errWait := pause(ctx, openPause); errWait != nil {
			return nil, errors.Join(err, errWait)
		}
	}
}

// openPause is how long OpenSQLite waits before it tries again.
const openPause = 10 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (s *SQLite) open(ctx context.Context, path string, busy time.Duration, existing bool) (err error) {
	// Made here so that it is the owner's alone; SQLite gives its companions the
	// same rights.
	flags := os.O_RDWR | os.O_CREATE
	if existing {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if s.write, err = sql.Open("sqlite", dsn(path, busy, "immediate", "synchronous(FULL)")); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if _, err = migrations.SQLite(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, busy, "deferred", "query_only(1)")); err != nil {
		return err
	}
	readers := max(4, runtime.GOMAXPROCS(0))
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s.stmts.prepare(ctx, s)
}

func dsn(path string, busy time.Duration, lock, pragma string) string {
	q := url.Values{
		"_txlock": {lock},
		"_pragma": {
			"busy_timeout(" + strconv.FormatInt(busy.Milliseconds(), 10) + ")",
			"journal_mode(WAL)", "wal_autocheckpoint(16384)", "foreign_keys(1)", "temp_store(MEMORY)", "cache_size(-32768)", pragma,
		},
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String()
}

// networkFS lists the magic numbers of statfs(2) that mean a network.
var networkFS = map[uint32]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.SMB2_SUPER_MAGIC:  "SMB2",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.AFS_FS_MAGIC:      "AFS",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.NCP_SUPER_MAGIC:   "NCP",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
	0x0bd00bd0:             "Lustre",
	0x47504653:             "GPFS",
}

func checkLocal(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	// The field's width differs between platforms; the numbers have 32 bits.
	return checkKind(uint32(st.Type))
}

func checkKind(magic uint32) error {
	if kind, found := networkFS[magic]; found {
		return fmt.Errorf("%w (%s): put it on a local disk, or use Postgres", ErrNetworkFS, kind)
	}
	return nil
}

// TimePrecision is a nanosecond.
func (s *SQLite) TimePrecision() time.Duration { return time.Nanosecond }

// Close closes the database.
func (s *SQLite) Close() error {
	err := s.stmts.close()
	for _, db := range []*sql.DB{s.read, s.write} { // the writer last: it checkpoints
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	return err
}

// update runs f in one write transaction of the cluster that has claimed the
// source.
func (s *SQLite) update(ctx context.Context, what string, f func(*sql.Tx) error) error {
	return s.transaction(ctx, what, func(tx *sql.Tx) error {
		if err := s.ours(tx); err != nil {
			return err
		}
		return f(tx)
	})
}

// transaction runs f in one write transaction. The statements inside run without
// ctx's cancellation, since watching it costs a goroutine each; f looks at ctx
// between them where it loops.
func (s *SQLite) transaction(ctx context.Context, what string, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.wrap(what, err)
	}
	if err := f(tx); err != nil {
		if errRollback := tx.Rollback(); errRollback != nil && !errors.Is(errRollback, sql.ErrTxDone) {
			err = errors.Join(err, errRollback)
		}
		return s.wrap(what, err)
	}
	return s.wrap(what, tx.Commit())
}

func (s *SQLite) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("source %s: %s: %w", s.name, what, err)
}

// refused tells whether the database refused the statement for what the row
// would be (a constraint, a trigger), and not for its own condition.
func refused(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_CONSTRAINT
}

// locked tells whether another process held the database.
func locked(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// taken tells whether the reason was that another row has the value.
func taken(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}

func checkBatch(n int) error {
	if n > MaxBatch {
		return fmt.Errorf("a batch of %d rows, at most %d are allowed", n, MaxBatch)
	}
	return nil
}
