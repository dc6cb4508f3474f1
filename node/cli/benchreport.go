package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/bench"
)

// Families of the node's metrics that the report shows.
const (
	familyRequests   = "des_store_requests_total"
	familyStatements = "des_source_statements_total"
)

// benchReport is the result of bench archive. Sizes are in bytes, times in
// seconds.
type benchReport struct {
	Files    int64  `json:"files"`
	Size     string `json:"size"`
	Source   string `json:"source"`
	Store    string `json:"store"`
	PackSize int64  `json:"pack_size"`

	Insert   benchStage `json:"insert"`
	Archive  benchStage `json:"archive"`          // until all rows are PACKED
	Verified float64    `json:"verified_seconds"` // likewise, and all packs verified
	Packed   int64      `json:"packed"`
	Failed   int64      `json:"failed"`
	Bytes    int64      `json:"bytes"`

	Requests         map[string]int64 `json:"requests"`           // by kind, until all rows were PACKED; some packs are verified by then
	RequestsVerified map[string]int64 `json:"requests_verified"`  // by kind, until all packs were verified
	RequestSeries    map[string]int64 `json:"requests_by_labels"` // as the node's metrics tell them apart
	Statements       *int64           `json:"statements"`         // of the database; null: it is in this process
	Packs            api.PackTotals   `json:"packs"`

	PeakMemory     int64 `json:"peak_memory"`      // resident, load generator included
	PeakSinceStart bool  `json:"peak_since_start"` // the insertion is included too
	PeakGo         int64 `json:"peak_go"`          // of it, Go's part
	PeakHeap       int64 `json:"peak_heap"`        // of that, objects on the heap

	ReadBack benchCompared `json:"read_back"`
	Restart  benchRestart  `json:"restart"`
	OK       bool          `json:"ok"`
}

// benchStage is the speed of one stage.
type benchStage struct {
	Seconds        float64 `json:"seconds"`
	FilesPerSecond float64 `json:"files_per_second"`
	BytesPerSecond float64 `json:"bytes_per_second,omitempty"`
}

func stageOf(files, bytes int64, took time.Duration) benchStage {
	return benchStage{took.Seconds(), perSecond(files, took), perSecond(bytes, took)}
}

// benchCompared is what reading back found.
type benchCompared struct {
	Identical int64  `json:"identical"`
	Bytes     int64  `json:"bytes"`
	Wrong     int64  `json:"wrong"` // missing or different
	First     string `json:"first_wrong,omitempty"`
}

// benchRestart is how long a node with that archive takes to serve again.
type benchRestart struct {
	Ready       float64 `json:"ready_seconds"`
	FirstAnswer float64 `json:"first_answer_seconds"` // from then on
}

func (r *benchRun) newReport() benchReport {
	return benchReport{
		Files:    r.files.Count,
		Size:     r.files.Sizes.String(),
		Source:   redactedURL(r.cfg.Sources[benchSource].URL),
		Store:    redactedURL(r.cfg.Store.URL),
		PackSize: int64(r.cfg.Archive.PackSize),
	}
}

// noteRequests notes what a node has asked of its store and its database since
// it started.
func (b *benchReport) noteRequests(f figures) {
	b.Requests = f.status.StoreCalls
	b.RequestSeries = f.metrics.Since(bench.Metrics{}, familyRequests)
	if f.metrics.Has(familyStatements) {
		var n int64
		for _, of := range f.metrics.Since(bench.Metrics{}, familyStatements) {
			n += of
		}
		b.Statements = &n
	}
}

// judge says whether every file was archived once and came back.
func (b *benchReport) judge(files bench.Files) {
	b.OK = b.Packed == files.Count && b.Failed == 0 &&
		b.Packs.Records == files.Count && b.Packs.Dead == 0 && b.Packs.Damaged == 0 &&
		b.ReadBack.Wrong == 0 && b.ReadBack.Identical > 0
}

func (b benchReport) write(w io.Writer) error {
	t := newTable(w)
	t.row("load", fmt.Sprintf("%s of %s bytes, %s in all", count(b.Files, "file"), b.Size, formatBytes(b.Bytes)))
	t.row("source", printable(b.Source))
	t.row("store", printable(b.Store))
	t.row("insert", fmt.Sprintf("%s, %s rows/s", formatSeconds(b.Insert.Seconds), formatCount(int64(b.Insert.FilesPerSecond))))
	t.row("archive", fmt.Sprintf("%s until all are PACKED, %s files/s, %.1f MB/s; all verified after %s", formatSeconds(b.Archive.Seconds),
		formatCount(int64(b.Archive.FilesPerSecond)), b.Archive.BytesPerSecond/1e6, formatSeconds(b.Verified)))
	t.row("", fmt.Sprintf("%s PACKED, %s FAILED", formatCount(b.Packed), formatCount(b.Failed)))
	t.row("packs", fmt.Sprintf("%s, %s, %s (%s dead)", formatCount(b.Packs.Count), formatBytes(b.Packs.Bytes), count(b.Packs.Records, "record"), formatCount(b.Packs.Dead)))
	t.row("store requests", formatKinds(b.Requests)+" until PACKED")
	t.row("", formatKinds(b.RequestsVerified)+" until verified")
	if b.Statements != nil {
		t.row("statements", fmt.Sprintf("%s, %.1f per 1,000 files", formatCount(*b.Statements), 1000*ratio(*b.Statements, b.Files)))
	}
	since := "the node's start"
	if b.PeakSinceStart {
		since = "the program's start"
	}
	t.row("peak memory", fmt.Sprintf("%s resident since %s; Go's part at most %s, objects on its heap %s",
		formatBytes(b.PeakMemory), since, formatBytes(b.PeakGo), formatBytes(b.PeakHeap)))
	t.row("read back", fmt.Sprintf("%s identical, %s missing or different %s", formatCount(b.ReadBack.Identical), formatCount(b.ReadBack.Wrong), printable(b.ReadBack.First)))
	t.row("restart", fmt.Sprintf("ready after %s, first right answer %s later", formatSeconds(b.Restart.Ready), formatSeconds(b.Restart.FirstAnswer)))
	return t.flush()
}

func formatSeconds(s float64) string { return formatSpan(time.Duration(s * float64(time.Second))) }

// formatKinds writes "put 4, head 4", in the order of the words.
func formatKinds(kinds map[string]int64) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if n := kinds[kind]; n > 0 {
			parts = append(parts, kind+" "+formatCount(n))
		}
	}
	return strings.Join(parts, ", ")
}
