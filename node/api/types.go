package api

import (
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// This file holds the bodies of the operator's endpoints (/cluster/…) as JSON,
// for the server and for the command line. Sizes and counts of bytes are in
// bytes, times are RFC 3339 in UTC, hashes are lower-case hex.

// Paths of the operator's endpoints. PathLocate is followed by the escaped name.
const (
	PathStatus  = "/cluster/status"  // GET → Status
	PathImport  = "/cluster/import"  // POST ImportRequest → stream of ImportEvent
	PathArchive = "/cluster/archive" // POST ArchiveRequest → stream of ArchiveEvent
	PathVerify  = "/cluster/verify"  // POST VerifyRequest → stream of VerifyEvent
	PathFailed  = "/cluster/failed"  // GET ?source=&code=&after=&limit= → FailedPage
	PathRetry   = "/cluster/retry"   // POST RetryRequest → RetryResponse
	PathLocate  = "/cluster/locate/" // GET → Located
	PathPacks   = "/cluster/packs"   // GET → PackList
	PathLeases  = "/cluster/leases"  // GET → LeaseList
	PathBacklog = "/cluster/backlog" // GET → Backlog
)

// Media types of bodies other than the files themselves.
const (
	TypeJSON    = "application/json"
	TypeStream  = "application/x-ndjson" // one JSON object a line; the last has "done": true
	TypeProblem = "application/problem+json"
)

// Code is the stable code of a problem.
type Code string

// The codes. Unavailable, Unconfirmed and Busy come with Retry-After.
const (
	CodeInvalidName      Code = "invalid-name"       // 400
	CodeInvalidRequest   Code = "invalid-request"    // 400: a parameter or a body
	CodeUnauthorized     Code = "unauthorized"       // 401
	CodeForbidden        Code = "forbidden"          // 403
	CodeNotFound         Code = "not-found"          // 404
	CodeMethodNotAllowed Code = "method-not-allowed" // 405
	CodeConflict         Code = "conflict"           // 409: such work is already under way, or the present state forbids it
	CodeGone             Code = "gone"               // 410: the name was removed
	CodePrecondition     Code = "precondition"       // 412
	CodeTooLarge         Code = "too-large"          // 413: the request's body
	CodeMediaType        Code = "media-type"         // 415: the request's body is not JSON
	CodeRange            Code = "range"              // 416
	CodeBusy             Code = "busy"               // 429
	CodeCorrupt          Code = "corrupt"            // 500: what is stored of a pack is not what was committed
	CodeInternal         Code = "internal"           // 500
	CodeUnavailable      Code = "unavailable"        // 503: the store or a source does not answer
	CodeUnconfirmed      Code = "unconfirmed"        // 503: no quorum to confirm that a name is absent
)

// Problem is the body of every error answer, RFC 9457. It is an error itself,
// for clients.
type Problem struct {
	Type      string `json:"type"` // always "about:blank": Code tells problems apart
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      Code   `json:"code"`
	Detail    string `json:"detail,omitempty"`
	Pack      string `json:"pack,omitempty"`       // CodeCorrupt: the pack's id
	Offset    *int64 `json:"offset,omitempty"`     // CodeCorrupt: bytes from the start of the pack
	RequestID string `json:"request_id,omitempty"` // as in X-Request-Id
}

// Error returns the code and the detail.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return string(p.Code) + ": " + p.Title
	}
	return string(p.Code) + ": " + p.Detail
}

// End closes a stream of events: it stands in the last one only.
type End struct {
	Done  bool     `json:"done,omitempty"`
	Error *Problem `json:"error,omitempty"` // why the work ended early; nil: it is complete
}

// ImportRequest asks for every regular file below Dir to be registered, or
// with Forget for Dir to be no root of the source any more: its files are not
// read again until the next import of it.
type ImportRequest struct {
	Dir    string       `json:"dir"`              // absolute, as the node sees it
	Prefix string       `json:"prefix,omitempty"` // goes before each name
	Files  []ImportFile `json:"files,omitempty"`  // only these; none: all
	Forget bool         `json:"forget,omitempty"` // register nothing
}

// ImportFile is one listed file. What is given of Size and Modified must hold
// of the file, or it is refused.
type ImportFile struct {
	Line        int        `json:"line,omitempty"` // of the list, for messages
	Path        string     `json:"path"`           // relative to Dir, or absolute below it
	Name        string     `json:"name,omitempty"` // default: the path below Dir
	Size        *int64     `json:"size,omitempty"`
	Modified    *time.Time `json:"modified,omitempty"`     // at the precision it is given in: s, ms, µs or ns
	SHA256      string     `json:"sha256,omitempty"`       // hex; compared when the file is packed
	ContentType string     `json:"content_type,omitempty"` // default: by the name's extension
}

// ImportEvent says how far an import is. The counts are totals so far; the
// lists hold what is new since the last event.
type ImportEvent struct {
	Files     int64     `json:"files"` // regular files seen
	Bytes     int64     `json:"bytes"`
	New       int64     `json:"new"`
	Unchanged int64     `json:"unchanged"`
	Changed   int64     `json:"changed"`           // ACTIVE again
	OtherName int64     `json:"other_name"`        // of the unchanged and changed: keep the name of an earlier import
	Taken     []string  `json:"taken,omitempty"`   // names that another path has: left alone
	Refused   []Refusal `json:"refused,omitempty"` // names that can't be archived, files that can't be read or aren't as listed
	Skipped   Skipped   `json:"skipped"`
	End
}

// Refusal is one name that was refused. Name is quoted when it is not UTF-8.
type Refusal struct {
	Line   int    `json:"line,omitempty"` // of the list
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Skipped counts what an import passes over.
type Skipped struct {
	Links   int64 `json:"links"`   // symbolic links
	Special int64 `json:"special"` // devices, sockets, pipes
}

// ArchiveRequest asks for all eligible rows to be archived now.
type ArchiveRequest struct {
	DryRun bool `json:"dry_run,omitempty"` // count only
}

// ArchiveEvent says how far an archive run is. The counts are totals of this
// run so far. DryRun is set in the single event of a dry run, in place of them.
type ArchiveEvent struct {
	Marked     int64   `json:"marked"`
	Packed     int64   `json:"packed"`
	Failed     int64   `json:"failed"`
	Bytes      int64   `json:"bytes"`       // of the packed ones
	TotalRows  int64   `json:"total_rows"`  // what the run is expected to archive
	TotalBytes int64   `json:"total_bytes"` // likewise
	Packs      int64   `json:"packs"`       // committed
	DryRun     *DryRun `json:"dry_run,omitempty"`
	End
}

// DryRun says what archiving would do now.
type DryRun struct {
	Eligible Tally         `json:"eligible"`
	Rest     []Rest        `json:"rest"`     // what would stay behind, and why
	Failures []FailureCode `json:"failures"` // rows with an archive_error, whatever their state
	Pauses   []Pause       `json:"pauses"`   // what keeps the eligible ones from being archived now
}

// Tally sums up rows.
type Tally struct {
	Rows   int64     `json:"rows"`
	Bytes  int64     `json:"bytes"`
	Oldest time.Time `json:"oldest,omitzero"` // modified
	Newest time.Time `json:"newest,omitzero"`
}

// Rest is a group of rows that stay behind for one reason.
type Rest struct {
	Source string `json:"source"`
	Reason string `json:"reason"` // "too young", "FAILED", "already archived", …
	Tally
}

// FailedPage is one page of rows with an archive_error; Next is the `after`
// of the next page, empty on the last.
//
// Codes sums up all such rows that the query selects, not only the page's; the
// first page alone has it.
type FailedPage struct {
	Codes []FailureCode `json:"codes,omitempty"`
	Rows  []FailedRow   `json:"rows"`
	Next  string        `json:"next,omitempty"`
}

// FailureCode sums up the rows of one source whose archive_error has one code.
type FailureCode struct {
	Source string `json:"source"`
	Code   string `json:"code"`
	Tally
}

// FailedRow is one row with an archive_error.
type FailedRow struct {
	Source      string    `json:"source"`
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Path        string    `json:"path"`
	State       string    `json:"state"`
	Attempts    int       `json:"attempts"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	Code        string    `json:"code"`
	Text        string    `json:"text,omitempty"`
}

// RetryRequest selects rows to try again among those with an archive_error;
// nothing set: all of them.
type RetryRequest struct {
	Names  []string `json:"names,omitempty"`
	Code   string   `json:"code,omitempty"`
	Source string   `json:"source,omitempty"`
}

// RetryResponse says how many rows are tried again.
type RetryResponse struct {
	Retried int64 `json:"retried"`
}

// VerifyRequest names packs to read back; none: all.
type VerifyRequest struct {
	Packs []desformat.PackID `json:"packs,omitempty"`
}

// VerifyEvent is the result for one pack. The last event is an End alone, with
// the zero Pack.
type VerifyEvent struct {
	Pack    desformat.PackID `json:"pack,omitzero"`
	Records int64            `json:"records,omitempty"`
	Bytes   int64            `json:"bytes,omitempty"`
	OK      bool             `json:"ok"` // in the last event: all packs were
	Damage  string           `json:"damage,omitempty"`
	Unread  string           `json:"unread,omitempty"` // why it could not be read: nothing is known of damage
	End
}

// Where a name is served from.
const (
	InPack   = "pack"   // from a live record
	InSource = "source" // not packed yet: from the original
)

// Located is the place of one name. The fields of a record are zero when it is
// not packed yet.
type Located struct {
	Name  string `json:"name"`
	Hash  string `json:"hash"`
	Shard uint32 `json:"shard"`

	// Who serves the shard by the ring: the owner, and those that are asked when
	// it does not answer, best first. Hints; empty: no ring was asked.
	Owner     raftmeta.NodeID   `json:"owner,omitempty"`
	Fallbacks []raftmeta.NodeID `json:"fallbacks,omitempty"`

	In      string           `json:"in"`              // InPack or InSource
	State   string           `json:"state,omitempty"` // of the source's row, when a source answered
	Source  string           `json:"source"`
	ID      string           `json:"id"`
	Size    int64            `json:"size"`
	ModTime time.Time        `json:"modified"`
	Version uint32           `json:"version"` // archive_version
	Pack    desformat.PackID `json:"pack,omitzero"`
	Key     string           `json:"key,omitempty"`
	Ordinal uint32           `json:"ordinal"`
	Offset  int64            `json:"offset"`
	Length  int64            `json:"length"`
	SHA256  string           `json:"sha256,omitempty"`
	Seq     desformat.Token  `json:"seq,omitzero"`
}

// Status is how the node is.
type Status struct {
	Node       raftmeta.NodeID     `json:"node"`
	Cluster    desformat.ClusterID `json:"cluster"`
	Generation uint64              `json:"generation"`
	Version    string              `json:"version"`
	Started    time.Time           `json:"started"`
	Uptime     float64             `json:"uptime_seconds"`
	Ready      bool                `json:"ready"`
	Zone       string              `json:"zone,omitempty"`
	Leader     raftmeta.NodeID     `json:"leader,omitempty"` // empty: none known
	Members    MemberCounts        `json:"members"`
	Voters     int                 `json:"voters"`
	// HealthScore is gossip's of this node: 0 is healthy, higher ones say that it
	// is too slow to judge the others.
	HealthScore int               `json:"health_score"`
	Applied     uint64            `json:"applied"` // Raft index
	ShardBits   uint8             `json:"shard_bits"`
	Store       string            `json:"store"` // its URL, without secrets
	Work        []string          `json:"work"`  // mark, pack, keep
	Sources     []SourceStatus    `json:"sources"`
	Packs       PackTotals        `json:"packs"`
	Uploads     []raftmeta.Upload `json:"uploads"` // announced, not committed
	Leases      int               `json:"leases"`
	Cache       CacheStatus       `json:"cache"`
	StoreCalls  map[string]int64  `json:"store_requests"` // by kind (get, head, put, list, move, delete) since start
	Pauses      []Pause           `json:"pauses"`
	Pace        Throttle          `json:"pace"`

	// Superseded is a newer generation that has claimed the store or a source: the
	// cluster lives on elsewhere, this node does no work for it and tells no name
	// absent. 0: none is known.
	Superseded uint64 `json:"superseded,omitempty"`
	// Rebuild is how far the rebuild is that began this generation; nil: none did.
	Rebuild *RebuildStatus `json:"rebuild,omitempty"`
}

// RebuildStatus is how far a rebuild or a restore is. Until it is done, a name
// that is not found is answered by 503. Only the node that rebuilds has the
// counts; they begin anew when it is restarted.
type RebuildStatus struct {
	Done   bool   `json:"done"`
	Phase  string `json:"phase,omitempty"` // what it is at; empty when it is done
	Base   string `json:"base,omitempty"`  // the backup or the data dir it began from
	Source bool   `json:"source"`          // the sources' state columns are written too

	Listed       int64 `json:"listed"`       // objects under packs/
	Read         int64 `json:"read"`         // ends of packs
	Adopted      int64 `json:"adopted"`      // packs
	Refused      int64 `json:"refused"`      // objects that are no whole pack of this cluster
	Acknowledged int64 `json:"acknowledged"` // packs
	Rows         int64 `json:"rows"`         // restored
	Requests     int64 `json:"requests"`     // of the store
	Bytes        int64 `json:"bytes"`        // got from it
}

// MemberCounts are how many nodes the cluster has, and how many of them the
// answering node sees alive, itself included.
type MemberCounts struct {
	Known int `json:"known"`
	Alive int `json:"alive"`
}

// SourceStatus is one source: its rows by state, or why it can't tell. Large
// tables are counted now and then: Counted says when States was true.
type SourceStatus struct {
	Name    string           `json:"name"`
	URL     string           `json:"url"`   // without secrets
	Roots   []string         `json:"roots"` // where its files may be read, imported ones included
	States  map[string]Tally `json:"states"`
	Counted time.Time        `json:"counted,omitzero"` // zero: not yet
	Error   string           `json:"error,omitempty"`
}

// PackTotals sums up the live packs.
type PackTotals struct {
	Count          int64 `json:"count"`
	Records        int64 `json:"records"`
	Dead           int64 `json:"dead"` // records that reads skip
	Bytes          int64 `json:"bytes"`
	PayloadBytes   int64 `json:"payload_bytes"`
	IndexBytes     int64 `json:"index_bytes"`
	Unacknowledged int64 `json:"unacknowledged"`
	Unverified     int64 `json:"unverified"`
	Damaged        int64 `json:"damaged"`
}

// CacheStatus is the retriever's two caches.
type CacheStatus struct {
	Indexes     int64 `json:"indexes"`
	IndexBytes  int64 `json:"index_bytes"`
	IndexCap    int64 `json:"index_cap_bytes"`
	IndexHits   int64 `json:"index_hits"`
	IndexMisses int64 `json:"index_misses"`
	Records     int64 `json:"records"`
	DataBytes   int64 `json:"data_bytes"`
	DataCap     int64 `json:"data_cap_bytes"`
	DataHits    int64 `json:"data_hits"`
	DataMisses  int64 `json:"data_misses"`
}

// Pause is work that stands still.
type Pause struct {
	Work   string    `json:"work"` // mark, pack, keep
	Reason string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"`
}

// PackList is the manifest.
type PackList struct {
	Packs []PackInfo `json:"packs"`
}

// PackInfo is one manifest entry.
type PackInfo struct {
	ID           desformat.PackID `json:"id"`
	Key          string           `json:"key"`
	Range        desformat.Range  `json:"range"`
	Token        desformat.Token  `json:"token"`
	MinSeq       desformat.Token  `json:"min_seq"`
	MaxSeq       desformat.Token  `json:"max_seq"`
	Size         int64            `json:"size"`
	SHA256       string           `json:"sha256"`
	Records      uint32           `json:"records"`
	Dead         int              `json:"dead"`
	PayloadBytes int64            `json:"payload_bytes"`
	IndexBytes   int64            `json:"index_bytes"`
	Created      time.Time        `json:"created"`
	Acknowledged bool             `json:"acknowledged"`
	Copies       []raftmeta.Copy  `json:"copies"`
}

// LeaseList is the live leases.
type LeaseList struct {
	Leases []raftmeta.Lease `json:"leases"`
}

// Backlog is what is marked and not packed yet, by source and range.
type Backlog struct {
	Sources []SourceBacklog `json:"sources"`
}

// SourceBacklog is the backlog of one source, or why it can't tell.
type SourceBacklog struct {
	Source  string          `json:"source"`
	Rows    int64           `json:"rows"`
	Bytes   int64           `json:"bytes"`
	Oldest  time.Time       `json:"oldest,omitzero"` // the earliest marked_at
	Buckets []BacklogBucket `json:"buckets"`
	Error   string          `json:"error,omitempty"`
}

// BacklogBucket is the part of a backlog in one range.
type BacklogBucket struct {
	Range desformat.Range `json:"range"`
	Rows  int64           `json:"rows"`
	Bytes int64           `json:"bytes"`
}
