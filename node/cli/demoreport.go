package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/raftmeta"
)

// demoReport is the demo's result.
type demoReport struct {
	Dir          string           `json:"dir"`
	Seconds      float64          `json:"seconds"`
	Nodes        []demoNodeReport `json:"nodes"`
	Stages       []demoStage      `json:"stages"`
	Import       api.ImportEvent  `json:"import"`
	Packs        api.PackTotals   `json:"packs"`
	Work         []demoWork       `json:"work"`
	CacheBytes   int64            `json:"cache_bytes"`   // of each node, for content
	PutRequests  int64            `json:"put_requests"`  // while archiving, of all nodes
	HeadRequests int64            `json:"head_requests"` // likewise
	Reads        []demoReads      `json:"reads"`
	Load         []demoLoadReport `json:"load"`
	Routes       []demoRoutes     `json:"routes"`
	Members      api.MemberList   `json:"members"`      // at the end
	Failed       int64            `json:"failed"`       // FAILED while archiving
	Identical    bool             `json:"identical"`    // each pass found every file as it was
	Compared     int64            `json:"compared"`     // files found identical in the first pass
	Wrong        []wrongFile      `json:"wrong"`        // missing or different
	LoadFailed   int64            `json:"load_failed"`  // reads under load without an answer, or a bad one
	LoadWrong    int64            `json:"load_wrong"`   // reads under load whose bytes differ
	LoadReads    int64            `json:"load_reads"`   // reads under load that were right
	LoadCut      int64            `json:"load_cut"`     // reads that the killed node itself took with it
	LoadSlowest  float64          `json:"load_slowest"` // seconds
}

// demoNodeReport says which node a name stands for.
type demoNodeReport struct {
	Name string          `json:"name"`
	Node raftmeta.NodeID `json:"node"`
	HTTP string          `json:"http"`
	End  string          `json:"end,omitempty"` // how it ended: killed, left
}

// demoStage is the time of one stage.
type demoStage struct {
	Stage   string  `json:"stage"`
	Files   int64   `json:"files"` // 0: time alone counts
	Bytes   int64   `json:"bytes"` // 0: not counted
	Seconds float64 `json:"seconds"`
}

// demoWork is a node's share of the archiving.
type demoWork struct {
	Node     string `json:"node"`
	Packs    int64  `json:"packs"`
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Verified int64  `json:"verified"` // packs
}

// demoReads is what one pass of reading asked of the store.
type demoReads struct {
	Stage       string `json:"stage"`
	Reads       int64  `json:"reads"`
	GetRequests int64  `json:"get_requests"` // of all nodes
}

// demoLoadReport is what the reads through one node during one phase came to.
// Latencies are in seconds, of the good reads, from when they were due.
type demoLoadReport struct {
	Phase  string  `json:"phase"`
	Node   string  `json:"node"`
	Reads  int64   `json:"reads"` // good ones
	Failed int64   `json:"failed"`
	Wrong  int64   `json:"wrong"`
	Cut    int64   `json:"cut"` // at a node that was killed
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
	First  string  `json:"first_error,omitempty"`
}

// demoRoutes counts how the living nodes routed reads, by the router's words.
type demoRoutes struct {
	Stage  string           `json:"stage"`
	Routes map[string]int64 `json:"routes"`
}

func (r *demoReport) addStage(stage string, files, bytes int64, took time.Duration) {
	r.Stages = append(r.Stages, demoStage{stage, files, bytes, took.Seconds()})
}

func (r *demoReport) addRoutes(stage string, routes map[string]int64) {
	r.Routes = append(r.Routes, demoRoutes{stage, routes})
}

// expected is how many files must come back: all that the import did not refuse.
func (r *demoReport) expected() int64 { return r.Import.Files - int64(len(r.Import.Refused)) }

// addReads adds what one pass over all files found. All is well while every file
// that the import did not refuse was found identical.
func (r *demoReport) addReads(stage string, c comparison, gets int64) {
	if len(r.Reads) == 0 {
		r.Compared, r.Identical = c.identical, true
	}
	r.addSome(stage, c, gets)
	r.Identical = r.Identical && c.identical == r.expected() && r.Failed == 0 && len(r.Import.Taken) == 0
}

// addSome adds what a pass over some of the files found, after one over all.
func (r *demoReport) addSome(stage string, c comparison, gets int64) {
	r.Reads = append(r.Reads, demoReads{stage, c.identical + int64(len(c.wrong)), gets})
	slices.SortFunc(c.wrong, func(a, b wrongFile) int { return strings.Compare(a.Name, b.Name) })
	r.Wrong = append(r.Wrong, c.wrong...)
	r.Identical = r.Identical && len(c.wrong) == 0
}

// addLoad adds what the reads through one node came to, and returns how many
// there were.
func (r *demoReport) addLoad(phase, node string, s loadSum) int64 {
	l := demoLoadReport{
		Phase: phase, Node: node, Reads: s.latencies.Count(), Failed: s.failed, Wrong: s.wrong, Cut: s.cut,
		P50: s.latencies.Quantile(0.5).Seconds(), P99: s.latencies.Quantile(0.99).Seconds(), Max: s.latencies.Max().Seconds(),
	}
	if s.first != nil {
		l.First = s.first.Error()
	}
	total := l.Reads + l.Failed + l.Wrong + l.Cut
	if total == 0 {
		return 0 // it is gone
	}
	r.Load = append(r.Load, l)
	r.LoadReads += l.Reads
	r.LoadFailed += l.Failed
	r.LoadWrong += l.Wrong
	r.LoadCut += l.Cut
	r.LoadSlowest = max(r.LoadSlowest, l.Max)
	return total
}

// addNodes adds who the nodes are.
func (r *demoReport) addNodes(nodes []*demoNode) {
	for _, n := range nodes {
		r.Nodes = append(r.Nodes, demoNodeReport{Name: n.name, Node: n.id, HTTP: n.proc.addr, End: n.end})
	}
}

// verdict returns an error when anything is missing, different or failed.
func (r *demoReport) verdict() error {
	switch {
	case !r.Identical:
		return fmt.Errorf("%w: not every file came back as it was", errFailed)
	case r.LoadFailed+r.LoadWrong > 0:
		return fmt.Errorf("%w: under load, %s failed and %s wrong", errFailed, count(r.LoadFailed, "read"), formatCount(r.LoadWrong))
	}
	return nil
}
