package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/datavision/desnode/node/api"
)

// recoveryNode is a node's HTTP face as far as the recovery tools go.
type recoveryNode struct {
	findings []api.Finding
	recovers string // the lines of the streams
	compares string
	backups  api.BackupList

	mu    sync.Mutex
	asked []string // method, path and body; guarded by mu
}

func (n *recoveryNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	n.asked = append(n.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	n.mu.Unlock()
	switch r.URL.Path {
	case api.PathUnfinished:
		_ = json.NewEncoder(w).Encode(api.Unfinished{Node: node1, Generation: 1, Findings: n.findings})
	case api.PathRecover:
		_, _ = io.WriteString(w, n.recovers)
	case api.PathCompare:
		_, _ = io.WriteString(w, n.compares)
	case api.PathBackups:
		_ = json.NewEncoder(w).Encode(n.backups)
	case api.PathBackup:
		_ = json.NewEncoder(w).Encode(n.backups.Backups[0])
	}
}

func (n *recoveryNode) requests() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.asked, "\n")
}

// atRisk and noted are two findings as a node tells them.
var (
	atRisk = api.Finding{
		Kind: "pack-damaged", Severity: api.SeverityAtRisk, Subject: "pack 01000000000000000000000000000000",
		Since: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Why: "record 3 at offset 1234567: the checksum of its header is not the one that stands there",
		Cure: "bring the object packs/0-0/1-7-01000000000000000000000000000000.des back (an older version, a copy), then desnode verify 01000000000000000000000000000000",
	}
	noted = api.Finding{
		Kind: "upload-uncommitted", Severity: api.SeverityNote, Subject: "packs/0-0/1-7-02000000000000000000000000000000.des",
		Why: "its lease is live\x1b[31m", Cure: "wait",
	}
)

func TestRecoverTellsWhatIsUnfinished(t *testing.T) {
	for _, tc := range []struct {
		name     string
		findings []api.Finding
		code     int
		out      string
	}{
		{"nothing", nil, exitOK, "nothing is unfinished\n"},
		{"notes alone", []api.Finding{noted}, exitOK, `NOTE        upload-uncommitted
    packs/0-0/1-7-02000000000000000000000000000000.des
    "its lease is live\x1b[31m"
    cure: wait
`},
		{"at risk", []api.Finding{atRisk, noted}, exitFailed, `AT-RISK     pack-damaged  pack 01000000000000000000000000000000
    since 2026-01-02T03:04:05Z: record 3 at offset 1234567: the checksum of its
      header is not the one that stands there
    cure: bring the object packs/0-0/1-7-01000000000000000000000000000000.des
      back (an older version, a copy), then desnode verify
      01000000000000000000000000000000
NOTE        upload-uncommitted
    packs/0-0/1-7-02000000000000000000000000000000.des
    "its lease is live\x1b[31m"
    cure: wait
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node := &recoveryNode{findings: tc.findings}
			run := serveAt(t, node)
			code, stdout, stderr := run("recover")
			if code != tc.code || stdout != tc.out {
				t.Errorf("got %d, %s%s", code, stdout, stderr)
			}
			fitsTerminal(t, stdout)
			if code != exitOK && !strings.Contains(stderr, "1 finding left") {
				t.Errorf("stderr: %s", stderr)
			}
			code, stdout, _ = run("recover", "-o", "json")
			var u api.Unfinished
			if err := json.Unmarshal([]byte(stdout), &u); err != nil || code != tc.code || len(u.Findings) != len(tc.findings) {
				t.Errorf("got %d, %v, %s", code, err, stdout)
			}
			if got := node.requests(); got != "GET /cluster/unfinished\nGET /cluster/unfinished" {
				t.Errorf("asked for %s", got)
			}
		})
	}
}

func fitsTerminal(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func lines(t *testing.T, events ...any) string {
	t.Helper()
	var b strings.Builder
	for _, e := range events {
		if err := json.NewEncoder(&b).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestRecoverMends(t *testing.T) {
	unacked := api.Finding{Kind: "pack-unacknowledged", Severity: api.SeverityRepairable, Subject: "pack 03", Why: "connection refused", Cure: "desnode recover --fix", Fixable: true}
	garbage := api.Finding{Kind: "upload-uncommitted", Severity: api.SeverityRepairable, Subject: "packs/x", Why: "old", Cure: "desnode recover --fix --yes", Fixable: true, Destructive: true}
	node := &recoveryNode{recovers: lines(
		t,
		api.RecoverEvent{Finding: &unacked, Outcome: api.OutcomeFixed, Text: "acknowledged", Found: 1, Fixed: 1},
		api.RecoverEvent{Finding: &garbage, Outcome: api.OutcomeNeedsYes, Text: "say --yes", Found: 2, Fixed: 1, Left: 1},
		api.RecoverEvent{Found: 2, Fixed: 1, Left: 1, End: api.End{Done: true}},
	)}
	run := serveAt(t, node)
	code, stdout, stderr := run("recover", "--fix")
	want := `REPAIRABLE  pack-unacknowledged  pack 03
    connection refused
    fixed: acknowledged
REPAIRABLE  upload-uncommitted  packs/x
    old
    needs-yes: say --yes
    cure: desnode recover --fix --yes
2 findings: 1 fixed, 1 left
`
	if code != exitFailed || stdout != want || !strings.Contains(stderr, "1 finding left") {
		t.Errorf("got %d, %s%s", code, stdout, stderr)
	}
	node.recovers = lines(t, api.RecoverEvent{Finding: &unacked, Outcome: api.OutcomeFixed, Found: 1, Fixed: 1}, api.RecoverEvent{Found: 1, Fixed: 1, End: api.End{Done: true}})
	if code, stdout, stderr = run("recover", "--fix", "--yes", "-o", "json"); code != exitOK || strings.Count(stdout, "\n") != 2 {
		t.Errorf("got %d, %s%s", code, stdout, stderr)
	}
	if got, want := node.requests(), "POST /cluster/recover {\"fix\":true}\nPOST /cluster/recover {\"fix\":true,\"yes\":true}"; got != want {
		t.Errorf("asked for %s", got)
	}
}

func TestRecoverCompares(t *testing.T) {
	counts := api.CompareCounts{Packs: 3, Objects: 4, Rows: 1000, Catalogs: 3, Records: 999, TotalPacks: 3, Requests: 5, Bytes: 2048, Notes: 1, AtRisk: 1}
	missing := api.Difference{Kind: "pack-missing", Severity: api.SeverityAtRisk, Subject: "pack 01", Found: "the store has no such object", Cure: "bring it back"}
	note := api.Difference{Kind: "record-without-row", Severity: api.SeverityNote, Subject: "files row 7", Found: "no such row", Cure: "nothing"}
	node := &recoveryNode{
		recovers: lines(t, api.RecoverEvent{End: api.End{Done: true}}),
		compares: lines(
			t, api.CompareEvent{Phase: api.CompareStore}, api.CompareEvent{Difference: &missing, CompareCounts: counts},
			api.CompareEvent{Difference: &note, CompareCounts: counts}, api.CompareEvent{CompareCounts: counts, End: api.End{Done: true}},
		),
	}
	run := serveAt(t, node)
	code, stdout, stderr := run("recover", "--compare")
	want := `nothing is unfinished
AT-RISK     pack-missing  pack 01
    the store has no such object
    cure: bring it back
NOTE        record-without-row  files row 7
    no such row
    cure: nothing
compared 3 packs, 4 objects, 1,000 rows, 999 records
1 at risk, 0 repairable, 1 note; 5 requests, 2.00 KiB from the store
`
	if code != exitFailed || stdout != want || !strings.Contains(stderr, "1 difference repairable or at risk") {
		t.Errorf("got %d, %s%s", code, stdout, stderr)
	}
	code, stdout, _ = run("recover", "--compare", "--only", "store,rows", "-o", "json")
	if code != exitFailed || strings.Count(stdout, "\n") != 4 || !strings.Contains(stdout, `"kind":"record-without-row"`) {
		t.Errorf("got %d, %s", code, stdout)
	}
	if got := node.requests(); !strings.Contains(got, `POST /cluster/compare {}`) || !strings.Contains(got, `POST /cluster/compare {"only":["store","rows"]}`) {
		t.Errorf("asked for %s", got)
	}
}

// TestRecoverThatBreaksOff: half an answer is not taken for the whole.
func TestRecoverThatBreaksOff(t *testing.T) {
	node := &recoveryNode{
		recovers: lines(t, api.RecoverEvent{End: api.End{Done: true}}), compares: lines(t, api.CompareEvent{Phase: api.CompareRows}),
	}
	run := serveAt(t, node)
	if code, stdout, _ := run("recover", "--compare"); code != exitUnavailable || strings.Contains(stdout, "no differences") {
		t.Errorf("got %d, %s", code, stdout)
	}
	node.recovers = ""
	if code, stdout, _ := run("recover", "--fix"); code != exitUnavailable || strings.Contains(stdout, "nothing is unfinished") {
		t.Errorf("got %d, %s", code, stdout)
	}
	node.compares = lines(t, api.CompareEvent{End: api.End{Done: true, Error: &api.Problem{Code: api.CodeUnavailable, Status: 503, Detail: "the store is away"}}})
	node.recovers = lines(t, api.RecoverEvent{End: api.End{Done: true}})
	if code, _, stderr := run("recover", "--compare"); code != exitUnavailable || !strings.Contains(stderr, "the store is away") {
		t.Errorf("got %d, %s", code, stderr)
	}
}

// TestManyOfAKindAreSummedUp: people are shown some, programs all.
func TestManyOfAKindAreSummedUp(t *testing.T) {
	node := &recoveryNode{}
	for i := range 50 {
		f := noted
		f.Subject = fmt.Sprintf("packs/%d", i)
		node.findings = append(node.findings, f)
	}
	run := serveAt(t, node)
	code, stdout, _ := run("recover")
	if code != exitOK || strings.Count(stdout, "upload-uncommitted") != mostOfAKind || !strings.Contains(stdout, "and 30 more of the kinds above") {
		t.Errorf("got %d, %s", code, stdout)
	}
	if _, stdout, _ = run("recover", "-o", "json"); strings.Count(stdout, "upload-uncommitted") != 50 {
		t.Errorf("got %s", stdout)
	}
}

func TestRecoverRefuses(t *testing.T) {
	node := &recoveryNode{}
	run := serveAt(t, node)
	for _, args := range [][]string{{"recover", "--yes"}, {"recover", "--only", "store"}, {"recover", "x"}} {
		if code, _, stderr := run(args...); code != exitUsage {
			t.Errorf("%v: got %d, %s", args, code, stderr)
		}
	}
	if got := node.requests(); got != "" {
		t.Errorf("asked for %s", got)
	}
}

func TestBackups(t *testing.T) {
	node := &recoveryNode{backups: api.BackupList{Backups: []api.BackupInfo{
		{Key: "backups/2-00000000000000000077", Generation: 2, Index: 77, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Packs: 12345, Bytes: 1 << 20},
	}, Problem: "the store does not answer"}}
	run := serveAt(t, node)
	code, stdout, _ := run("backup")
	if code != exitOK || stdout != "backups/2-00000000000000000077: 12,345 packs, 1.00 MiB\n" {
		t.Errorf("got %d, %s", code, stdout)
	}
	code, stdout, _ = run("backup", "ls")
	want := `KEY                             MADE                  PACKS   SIZE
backups/2-00000000000000000077  2026-01-02T03:04:05Z  12,345  1.00 MiB
the last try failed: the store does not answer
`
	if code != exitOK || stdout != want {
		t.Errorf("got %d, %s", code, stdout)
	}
	fitsTerminal(t, stdout)
	if code, stdout, _ = run("backup", "ls", "-o", "json"); code != exitOK || !strings.Contains(stdout, `"index": 77`) {
		t.Errorf("got %d, %s", code, stdout)
	}
	if got := node.requests(); !strings.HasPrefix(got, "POST /cluster/backup {}\nGET /cluster/backups\n") {
		t.Errorf("asked for %s", got)
	}
	node.backups = api.BackupList{}
	if code, stdout, _ = run("backup", "ls"); code != exitOK || stdout != "no backups\n" {
		t.Errorf("got %d, %s", code, stdout)
	}
}
