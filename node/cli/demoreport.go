package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/node/api"
)

// listedWrong is how many wrong files the report names.
const listedWrong = 20

// demoReport is the demo's result.
type demoReport struct {
	Dir          string          `json:"dir"`
	Stages       []demoStage     `json:"stages"`
	Import       api.ImportEvent `json:"import"`
	Packs        api.PackTotals  `json:"packs"`
	PutRequests  int64           `json:"put_requests"`  // while archiving
	HeadRequests int64           `json:"head_requests"` // while archiving
	Reads        []demoReads     `json:"reads"`
	Failed       int64           `json:"failed"` // FAILED while archiving
	Identical    bool            `json:"identical"`
	Compared     int64           `json:"compared"` // files found identical in the first pass
	Wrong        []wrongFile     `json:"wrong"`    // missing or different
}

// demoStage is the time of one stage.
type demoStage struct {
	Stage   string  `json:"stage"`
	Files   int64   `json:"files"` // 0: time alone counts
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// demoReads is what one pass of reading asked of the store.
type demoReads struct {
	Stage       string `json:"stage"`
	Reads       int64  `json:"reads"`
	GetRequests int64  `json:"get_requests"`
}

func (r *demoReport) addStage(stage string, files, bytes int64, took time.Duration) {
	r.Stages = append(r.Stages, demoStage{stage, files, bytes, took.Seconds()})
}

// addReads adds what one pass found. All is well while every file that the
// import did not refuse was found identical.
func (r *demoReport) addReads(stage string, c comparison, gets int64) {
	first := len(r.Reads) == 0
	r.Reads = append(r.Reads, demoReads{stage, c.identical + int64(len(c.wrong)), gets})
	slices.SortFunc(c.wrong, func(a, b wrongFile) int { return strings.Compare(a.Name, b.Name) })
	r.Wrong = append(r.Wrong, c.wrong...)
	if first {
		r.Compared = c.identical
		r.Identical = c.identical == r.Import.Files-int64(len(r.Import.Refused))
	}
	r.Identical = r.Identical && len(r.Wrong) == 0 && r.Failed == 0 && len(r.Import.Taken) == 0
}

func (r *demoReport) write(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", printable(r.Dir)); err != nil {
		return err
	}
	t := newTable(w)
	t.rights = 1
	t.row("", "FILES", "BYTES", "TIME", "FILES/S", "BYTES/S")
	for _, s := range r.Stages {
		took := time.Duration(s.Seconds * float64(time.Second))
		if s.Files == 0 {
			t.row(s.Stage, "", "", formatSpan(took))
			continue
		}
		t.row(s.Stage, formatCount(s.Files), formatBytes(s.Bytes), formatSpan(took),
			formatCount(int64(perSecond(s.Files, took))), formatBytes(int64(perSecond(s.Bytes, took))))
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	if err != nil {
		return err
	}
	t = newTable(w)
	per := func(n, files int64) string { return fmt.Sprintf("%.4g", ratio(n, files)) }
	records := r.Packs.Records
	t.row("packs", fmt.Sprintf("%s, %s, all read back and verified by the node; %s bytes a file beside its content", formatCount(r.Packs.Count), formatBytes(r.Packs.Bytes),
		per(r.Packs.Bytes-r.Packs.PayloadBytes, records)))
	t.row("index in memory", per(r.Packs.IndexBytes, records)+" bytes a file")
	t.row("store requests", fmt.Sprintf("%s a file archived (%d put, %d head)", per(r.PutRequests+r.HeadRequests, records), r.PutRequests, r.HeadRequests))
	for _, p := range r.Reads {
		t.row("", fmt.Sprintf("%s a read, %s (%s get)", per(p.GetRequests, p.Reads), p.Stage, formatCount(p.GetRequests)))
	}
	expected := r.Import.Files - int64(len(r.Import.Refused))
	t.row("compared", fmt.Sprintf("%s of %s identical, %s missing or different, %s failed to archive",
		formatCount(r.Compared), count(expected, "file"), formatCount(int64(len(r.Wrong))), formatCount(r.Failed)))
	if err := t.flush(); err != nil {
		return err
	}
	for _, f := range r.Wrong[:min(len(r.Wrong), listedWrong)] {
		if _, err := fmt.Fprintf(w, "WRONG %s: %s\n", printable(f.Name), printable(f.What)); err != nil {
			return err
		}
	}
	return writeLeftOut(w, r.Import)
}

func ratio(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
