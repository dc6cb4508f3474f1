package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/source"
)

// TestImportOfAList: more files than one batch, some of which can't be taken,
// each told with its line; the second time nothing is new.
func TestImportOfAList(t *testing.T) {
	files := t.TempDir()
	n, _ := start(t, testConfig(t))
	const count = 2*source.MaxBatch + 7
	req := api.ImportRequest{Dir: files, Prefix: "p/"}
	want := map[int]string{}
	for i := range count {
		f := api.ImportFile{Line: 10 + i, Path: fmt.Sprintf("%04d", i)}
		switch i {
		case 3, count - 1: // the first and the last batch
			want[f.Line] = f.Path // and no file is made
		case 5, source.MaxBatch + 5:
			writeFile(t, filepath.Join(files, f.Path), "x")
			f.Name = "bad//name"
			want[f.Line] = "p/bad//name"
		case 7, source.MaxBatch + 7:
			writeFile(t, filepath.Join(files, f.Path), "x")
			f.Name = "0000"
			want[f.Line] = "p/0000" // another path has it
		default:
			writeFile(t, filepath.Join(files, f.Path), "x")
		}
		req.Files = append(req.Files, f)
	}
	writeFile(t, filepath.Join(files, "not-listed"), "x")
	for _, again := range []bool{false, true} {
		e := n.testImport(t, req)
		good := int64(count - len(want))
		if !again && (e.New != good || e.Unchanged != 0) || again && (e.New != 0 || e.Unchanged != good) {
			t.Errorf("again %v: %+v, want %d files", again, e, good)
		}
		got := map[int]string{}
		for _, r := range e.Refused {
			got[r.Line] = r.Name
		}
		if len(got) != len(e.Refused) || len(got) != len(want) || len(e.Taken) != 0 {
			t.Errorf("again %v: refused %+v, taken %v", again, e.Refused, e.Taken)
		}
		for line, name := range want {
			if got[line] != name {
				t.Errorf("again %v: line %d is %q, want %q", again, line, got[line], name)
			}
		}
	}
	if status, _, _ := n.get(t, "p/not-listed"); status != 404 {
		t.Errorf("a file that is not listed: %d", status)
	}
	if e := n.testImport(t, api.ImportRequest{Dir: files}); e.OtherName != int64(count-len(want)) {
		t.Errorf("without the prefix: %+v", e)
	}
}

// TestAFolderIsForgotten: its files fail, those of other folders go on, what
// was archived stays, and the next import takes up where it was left.
func TestAFolderIsForgotten(t *testing.T) {
	cfg := testConfig(t)
	fixed, gone, other := t.TempDir(), t.TempDir(), t.TempDir()
	s := cfg.Sources["files"]
	s.Roots = []string{fixed}
	cfg.Sources["files"] = s
	n, _ := start(t, cfg)
	writeFile(t, filepath.Join(gone, "early"), "early")
	n.testImport(t, api.ImportRequest{Dir: gone, Prefix: "gone/"})
	if e := n.testArchive(t); e.Packed != 1 {
		t.Fatalf("archive: %+v", e)
	}
	writeFile(t, filepath.Join(gone, "late"), "late")
	writeFile(t, filepath.Join(other, "other"), "other")
	n.testImport(t, api.ImportRequest{Dir: gone, Prefix: "gone/"})
	n.testImport(t, api.ImportRequest{Dir: other})
	if err := os.Rename(gone, gone+"-away"); err != nil {
		t.Fatal(err)
	}
	forget := func(dir string) error {
		return n.Import(t.Context(), api.ImportRequest{Dir: dir, Forget: true}, func(api.ImportEvent) error { return nil })
	}
	for _, dir := range []string{fixed, filepath.Join(gone, "sub"), t.TempDir(), ""} {
		if err := forget(dir); !errors.Is(err, api.ErrInvalidRequest) {
			t.Errorf("forget %q: %v, want ErrInvalidRequest", dir, err)
		}
	}
	if err := forget(gone); err != nil {
		t.Fatal(err)
	}
	st, err := n.Status(t.Context())
	if err != nil || len(st.Sources) != 1 || !slices.Equal(st.Sources[0].Roots, []string{fixed, other}) {
		t.Errorf("roots %+v, %v; want %s and %s", st.Sources, err, fixed, other)
	}
	if e := n.testArchive(t); e.Packed != 1 || e.Failed != 1 {
		t.Errorf("archive: %+v, want the other file and one failure", e)
	}
	page, err := n.Failed(t.Context(), api.FailedQuery{Limit: 10})
	if err != nil || len(page.Rows) != 1 || page.Rows[0].Name != "gone/late" || page.Rows[0].Code != source.CodeInvalidPath {
		t.Errorf("failed: %+v, %v", page, err)
	}
	if len(page.Codes) != 1 || page.Codes[0].Code != source.CodeInvalidPath || page.Codes[0].Rows != 1 || page.Codes[0].Source != "files" {
		t.Errorf("codes: %+v", page.Codes)
	}
	if status, _, got := n.get(t, "gone/early"); status != 200 || got != "early" {
		t.Errorf("what was archived: %d %q", status, got)
	}

	if err := os.Rename(gone+"-away", gone); err != nil {
		t.Fatal(err)
	}
	n.testImport(t, api.ImportRequest{Dir: gone, Prefix: "gone/"})
	if r, err := n.Retry(t.Context(), api.RetryRequest{Code: source.CodeInvalidPath, Source: "files"}); err != nil || r.Retried != 1 {
		t.Errorf("retry: %+v, %v", r, err)
	}
	if e := n.testArchive(t); e.Packed != 1 || e.Failed != 0 {
		t.Errorf("archive: %+v", e)
	}
	if status, h, got := n.get(t, "gone/late"); status != 200 || got != "late" || h.Get("X-Des-Pack") == "" {
		t.Errorf("the late file: %d %q", status, got)
	}
}

func TestFailedAndRetryNameASource(t *testing.T) {
	n, _ := start(t, testConfig(t))
	if _, err := n.Failed(t.Context(), api.FailedQuery{Source: "absent", Limit: 1}); !errors.Is(err, api.ErrInvalidRequest) {
		t.Errorf("failed: %v", err)
	}
	if _, err := n.Retry(t.Context(), api.RetryRequest{Source: "absent"}); !errors.Is(err, api.ErrInvalidRequest) {
		t.Errorf("retry: %v", err)
	}
}
