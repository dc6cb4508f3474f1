package source

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/datavision/desnode/desformat"
)

// Table is the rows of one source, in the roles that the callers play. A role
// is also a least-privilege database role. All methods may be called at once.
// Batches are at most MaxBatch rows.
type Table interface {
	MarkerRows
	PackerRows
	DeleterRows
	IdentityRows
	ReaderRows
	ListRows
	OperatorRows
	RestorerRows
	// TimePrecision is the unit of the modified times that the rows keep: times
	// that differ by less are equal.
	TimePrecision() time.Duration
	Close() error
}

// MaxBatch is the largest number of rows that one call reads or changes.
const MaxBatch = 1000

// Marking is what marking writes to every row of a batch.
type Marking struct {
	At        time.Time
	Cluster   desformat.ClusterID
	ShardBits uint8
}

// MarkerRows is the role that moves ACTIVE rows to MARKED.
type MarkerRows interface {
	// Eligible lists up to limit ACTIVE rows, in the driver's own order after
	// the id after ("" from the start), that were modified before `before`, were
	// archived before (a changed file has no minimum age) or were registered as
	// eligible at once.
	Eligible(ctx context.Context, before time.Time, after string, limit int) ([]Row, error)
	// Mark moves rows from ACTIVE to MARKED, archive_version one higher, with
	// the rows' DesName and the hash and shard that follow from it. It reports
	// for each row whether it still was as last seen, and so was moved. A row
	// whose DesName another row has is not: it becomes FAILED, duplicate-name.
	Mark(ctx context.Context, rows []Row, m Marking) ([]bool, error)
	// Refuse moves one ACTIVE or MARKED row to FAILED at once: it can never be
	// archived as it is.
	Refuse(ctx context.Context, row Row, code, text string, at time.Time) error
}

// Bucket is the part of the MARKED backlog in one range.
type Bucket struct {
	Range  desformat.Range
	Rows   int64
	Bytes  int64     // each row counted with at most Due.RowCap bytes
	Oldest time.Time // the earliest marked_at
}

// Due says which MARKED rows are worth an attempt now: those without a failed
// attempt, and those whose last one is Backoff * 2^(attempts-1) ago (at most
// 2^10 Backoffs). A zero Backoff makes all rows due.
type Due struct {
	Now     time.Time
	Backoff time.Duration
	RowCap  int64 // 0: no cap
}

// After is a place in the order of Marked: rows behind (Hash, ID).
type After struct {
	Hash int64 // des_hash; -1 from the start
	ID   string
}

// Ack is the acknowledgement of one record: its row as the pack's catalog
// lists it, and the pack.
type Ack struct {
	ID      string
	Name    string // des_name
	Version uint32
	Size    int64
	ModTime time.Time
	SHA256  [sha256.Size]byte
	Pack    desformat.PackID
}

// AckResult says what an acknowledgement found.
type AckResult uint8

// The results.
const (
	// AckDone: the row was MARKED at that version and is PACKED now, or its
	// des_pack was this pack already (whatever its state): the record is live.
	AckDone AckResult = iota
	// AckGone: the row is there at the record's version or a later one, as
	// something else than the record lists, and no pack has ever had it: this
	// version was never acknowledged. The record is dead.
	AckGone
	// AckRefused: the database refused to change this very row (a constraint,
	// a trigger); the attempt is counted, at the last the row is FAILED, and the
	// record is dead.
	AckRefused
	// What follows is dead too when the pack's packing was cut short. It says
	// nothing about a record that may have been acknowledged in an earlier life of
	// the cluster.
	//
	// AckNoRow: no row of that id, or the row of that id has another name.
	AckNoRow
	// AckOtherPack: another pack has the row.
	AckOtherPack
	// AckOlder: the row has no pack and a lower version than the record's: the
	// database is in an older state than the archive, or has lost what desnode
	// wrote.
	AckOlder
)

// Dead reports whether a record with this result is dead when its pack was
// built in this life of the cluster.
func (r AckResult) Dead() bool { return r != AckDone }

// PackerRows is the role that moves MARKED rows to PACKED.
type PackerRows interface {
	// Backlog counts the MARKED rows that are due, in ranges of `bits` bits;
	// empty ranges are left out, the order is rising.
	Backlog(ctx context.Context, bits uint8, due Due) ([]Bucket, error)
	// Marked lists up to limit MARKED rows of r that are due, by rising
	// (des_hash, id), behind after.
	Marked(ctx context.Context, r desformat.Range, after After, due Due, limit int) ([]Row, error)
	// Attempt counts a failed attempt; at the max-th the row becomes FAILED,
	// which it reports.
	Attempt(ctx context.Context, row Row, code, text string, max int, at time.Time) (failed bool, err error)
	// Acknowledge writes the acknowledgements in one transaction, in sorted
	// order, and reports each result in the order given. Rows that the database
	// refuses do not stop the others: each counts a failed attempt, and is FAILED
	// at the max-th, or it would be packed again for ever.
	Acknowledge(ctx context.Context, acks []Ack, max int, at time.Time) ([]AckResult, error)
}

// DeleterRows is the role that moves PACKED rows to DELETED_SOURCE.
type DeleterRows interface {
	// Deletable lists up to limit PACKED rows whose des_pack is pack, packed
	// before `packedBefore`, without an archive_error, in the driver's order
	// behind the id after; rows that an earlier deletion claimed included.
	Deletable(ctx context.Context, pack desformat.PackID, packedBefore time.Time, after string, limit int) ([]Row, error)
	// Claim sets des_claim on a row that still is PACKED as last seen, des_pack
	// and des_claim included (an earlier deletion's claim is replaced); false: it
	// is not.
	Claim(ctx context.Context, row Row, claim string) (bool, error)
	// Unclaim clears des_claim on a row that claim holds; a non-empty code is
	// written to archive_error and keeps the row from Deletable until retried.
	Unclaim(ctx context.Context, row Row, claim, code, text string, at time.Time) error
	// Deleted moves a row that claim holds to DELETED_SOURCE, and reports whether
	// it is there now.
	Deleted(ctx context.Context, row Row, claim string, at time.Time) (bool, error)
	// Sharing counts rows other than row (of this source; every row when
	// row.Source is another) that reach the same file: the same FileID, or one
	// of paths. DELETED_SOURCE rows reach none. When it finds none while another
	// row's file is unknown, it returns ErrUnidentified: none is proven.
	Sharing(ctx context.Context, row Row, fileID string, paths []string) (int, error)
}

// IdentityRows is the part of the deleter's role that finds out which files
// the rows reach that the source system has added.
type IdentityRows interface {
	// Unidentified lists up to limit rows without a FileID, DELETED_SOURCE ones
	// left out, in the driver's order behind the id after.
	Unidentified(ctx context.Context, after string, limit int) ([]Row, error)
	// Identify writes the FileIDs of rows that still have none, else are as last
	// seen: one for each row, NoFileID when its path leads to no file.
	Identify(ctx context.Context, rows []Row, fileIDs []string) error
	// ForgetMissing makes the rows with NoFileID unknown again, DELETED_SOURCE ones
	// left out: their paths may lead to a file by now.
	ForgetMissing(ctx context.Context) error
	// ForgetFiles makes the rows whose FileID is a device and an inode unknown
	// again, DELETED_SOURCE ones left out: another host, on which devices have
	// other numbers, will find out which files they reach.
	ForgetFiles(ctx context.Context) error
}

// NoFileID is the FileID of a row whose path led to no file when it was
// followed.
const NoFileID = "-"

// ReaderRows is the role that serves files not yet packed.
type ReaderRows interface {
	// ByName returns the row whose des_name is name, else the ACTIVE row whose
	// own name is name. ErrNotFound only when the database says so.
	ByName(ctx context.Context, name string) (Row, error)
	// ByID returns the row with that id.
	ByID(ctx context.Context, id string) (Row, error)
}

// ListRows is the part of the reader's role that reads whole tables, to hold
// them against the archive.
type ListRows interface {
	// Rows lists up to limit rows, whatever their state, in the driver's order
	// behind the id after ("" from the start).
	Rows(ctx context.Context, after string, limit int) ([]Row, error)
	// ByIDs returns the rows with these ids, at most MaxBatch, in the driver's
	// order. Ids that no row has are left out.
	ByIDs(ctx context.Context, ids []string) ([]Row, error)
}

// Restored is what the archive says about a row that has lost what desnode
// wrote to it: the newest live record of the row's name.
type Restored struct {
	ID      string
	Name    string // des_name
	Version uint32 // archive_version
	Size    int64
	ModTime time.Time
	SHA256  [sha256.Size]byte
	Pack    desformat.PackID
	// PackedAt is when the pack was built; the row is given it as marked_at too.
	PackedAt time.Time
	// State is Packed, or DeletedSource when the original is known to be gone;
	// DeletedAt is when that was, zero: not known.
	State     State
	DeletedAt time.Time
	Cluster   desformat.ClusterID
	ShardBits uint8
	// Generated: desnode made the name, so the row's own may be another.
	Generated bool
}

// RestoreResult says what a restoration found.
type RestoreResult uint8

// The results.
const (
	// RestoreDone: the row is as the archive says now.
	RestoreDone RestoreResult = iota
	// RestoreAlready: the row had this pack.
	RestoreAlready
	// RestoreNewer: the row is about something else: changed, archived by another
	// pack or failed since, or of another name. It is left as it is; but one of
	// that name that is to be archived again gets at least the record's version.
	RestoreNewer
	// RestoreMissing: no such row.
	RestoreMissing
	// RestoreRefused: the database refused to change this very row (a constraint,
	// a trigger, another row that is served under the name).
	RestoreRefused
)

// RestorerRows is the role that gives rows back what desnode had written to
// them. Only a cluster that is being rebuilt needs it.
type RestorerRows interface {
	// Restore brings rows without a pack that are ACTIVE or MARKED, with the
	// record's size, time and name and no other checksum, to the record's state at
	// once, with all that archiving writes. It reports each result in the order
	// given. A row that the database refuses does not stop the others. Repeating
	// it has no effect.
	Restore(ctx context.Context, rows []Restored) ([]RestoreResult, error)
}

// Tally sums up rows.
type Tally struct {
	Rows   int64
	Bytes  int64
	Oldest time.Time // modified_at; zero when there are no rows
	Newest time.Time
}

// File is one file to register in the embedded source.
type File struct {
	Name    string
	Path    string // absolute
	Size    int64
	ModTime time.Time
	FileID  string
	// What only a list of files says. Of a known row a zero value leaves the
	// content type as it is, and the checksum too while the file is unchanged.
	SHA256      *[sha256.Size]byte
	ContentType string
}

// Registered says what registering one file did: one of the outcomes, of a
// known row with RegisteredOtherName added when it keeps another name.
type Registered uint8

// The outcomes.
const (
	RegisteredNew       Registered = iota
	RegisteredUnchanged            // known, same size and time
	RegisteredChanged              // known, changed or deleted since: ACTIVE again
	RegisteredTaken                // another path has this name: left alone
)

// RegisteredOtherName is added to RegisteredUnchanged and RegisteredChanged: the
// row has another name than the file was given, and keeps it.
const RegisteredOtherName Registered = 1 << 4

// Outcome is r without RegisteredOtherName.
func (r Registered) Outcome() Registered { return r &^ RegisteredOtherName }

// OtherName reports whether the row keeps another name.
func (r Registered) OtherName() bool { return r&RegisteredOtherName != 0 }

// Selection selects among the rows that have an archive_error; the zero
// Selection is all of them.
type Selection struct {
	Names []string // des_name or name; none: whatever the name
	Code  string   // "": whatever the code
}

// OperatorRows is the role behind the commands.
type OperatorRows interface {
	// Counts sums up the rows by state. It may read the whole table.
	Counts(ctx context.Context) (map[State]Tally, error)
	// Pending counts the rows that are MARKED and those that are FAILED, with
	// their bytes and without Oldest and Newest. Unlike Counts it reads no other
	// rows, so that it may be asked again and again.
	Pending(ctx context.Context) (marked, failed Tally, err error)
	// EligibleTally sums up what Eligible would list, and the ACTIVE rows that
	// are too young.
	EligibleTally(ctx context.Context, before time.Time) (eligible, young Tally, err error)
	// FailureTally sums up the rows that have an archive_error, by its code.
	FailureTally(ctx context.Context) (map[string]Tally, error)
	// Failures lists up to limit rows that have an archive_error with that code
	// ("": any), in the driver's order behind the id after.
	Failures(ctx context.Context, code, after string, limit int) ([]Row, error)
	// Retry clears the attempts and the archive_error of the rows that which
	// selects and moves FAILED ones to MARKED, or to ACTIVE when they never were
	// marked. It returns how many it changed.
	Retry(ctx context.Context, which Selection, at time.Time) (int64, error)
	// Register adds or refreshes rows, keyed by path, eligible at once; the
	// results are in the order of files. Only the embedded source has it:
	// others return errors.ErrUnsupported.
	Register(ctx context.Context, files []File) ([]Registered, error)
}
