package main

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/chaos/rig"
)

// fakeWhole is an archive of two files in one pack, as its parts tell of it.
type fakeWhole struct {
	files   []*rig.File
	packs   []rig.PackInfo
	listing []string       // names that `pack ls` prints
	rows    []row          // of the source
	bytes   map[string]int // added to a file's first byte when it is read
	places  map[string]rig.Located
	verify  int // exit code of `desnode verify`
}

const fakePack = "00112233445566778899aabbccddeeff"

func newFakeWhole() *fakeWhole {
	w := &fakeWhole{files: rig.NewFiles(1, "f", 2, rig.Always(100)), bytes: map[string]int{}, places: map[string]rig.Located{}}
	w.packs = []rig.PackInfo{{ID: fakePack, Key: "packs/x.des", Records: 2, Acknowledged: true}}
	for _, f := range w.files {
		w.listing = append(w.listing, f.Name)
		w.rows = append(w.rows, row{f.Name, "PACKED", fakePack})
		w.places[f.Name] = rig.Located{In: "pack", Pack: fakePack, SHA256: fmt.Sprintf("%x", f.Sum), Size: f.Size}
	}
	return w
}

// cluster makes a cluster of one node that tells the archive's parts.
func (w *fakeWhole) cluster(t *testing.T) *cluster {
	t.Helper()
	c, err := newCluster(&trial{dir: t.TempDir(), rep: &report{}}, "c", "")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", c.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE files (name TEXT, des_name TEXT, status TEXT, des_pack BLOB)"); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.rows {
		pack, err := hex.DecodeString(r.pack)
		if err == nil {
			_, err = db.Exec("INSERT INTO files VALUES ('other', ?, ?, ?)", r.name, r.state, pack)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/sh\ncase \"$1\" in verify) exit " + fmt.Sprint(w.verify) + ";; esac\n"
	for _, name := range w.listing {
		script += "echo '{\"name\":\"" + name + "\"}'\n"
	}
	bin := filepath.Join(c.Dir, "desnode")
	if err := os.WriteFile(bin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := rig.NewNode(bin, c.Dir, "n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(srv.Close)
	t.Cleanup(n.Client.CloseIdleConnections)
	n.Base = srv.URL
	c.Nodes, c.patience = []*rig.Node{n}, 0
	return c
}

func (w *fakeWhole) serve(rw http.ResponseWriter, r *http.Request) {
	for _, f := range w.files {
		switch r.URL.Path {
		case "/files/" + f.Name:
			b := f.Content()
			b[0] += byte(w.bytes[f.Name])
			_, _ = rw.Write(b)
		case "/cluster/locate/" + f.Name:
			l, ok := w.places[f.Name]
			if !ok {
				rw.WriteHeader(http.StatusNotFound)
				return
			}
			_, _ = fmt.Fprintf(rw, `{"in":%q,"pack":%q,"sha256":%q,"size":%d}`, l.In, l.Pack, l.SHA256, l.Size)
		}
	}
	if r.URL.Path == "/cluster/packs" {
		var packs []string
		for _, p := range w.packs {
			packs = append(packs, fmt.Sprintf(`{"id":%q,"key":%q,"records":%d,"dead":%d,"acknowledged":%t}`, p.ID, p.Key, p.Records, p.Dead, p.Acknowledged))
		}
		_, _ = fmt.Fprintf(rw, `{"packs":[%s]}`, strings.Join(packs, ","))
	}
}

// The check is held against archives in which one thing is wrong.
func TestWholeFindsWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(w *fakeWhole)
		want  []string // the bars that are missed
	}{
		{"nothing", func(*fakeWhole) {}, nil},
		{"packed twice", func(w *fakeWhole) {
			second := w.packs[0]
			second.ID = strings.Repeat("1", 32)
			w.packs = append(w.packs, second)
		}, []string{notOnce}},
		{"a dead record too many", func(w *fakeWhole) { w.packs[0].Dead = 1 }, []string{notOnce}},
		{"lost", func(w *fakeWhole) { delete(w.places, w.files[0].Name) }, []string{notOnce}},
		{"in a pack that is no more", func(w *fakeWhole) { w.places[w.files[0].Name] = rig.Located{In: "pack", Pack: "gone"} }, []string{notOnce}},
		{"only in the source", func(w *fakeWhole) { w.places[w.files[0].Name] = rig.Located{In: "source"} }, []string{notOnce}},
		{"not acknowledged", func(w *fakeWhole) { w.packs[0].Acknowledged = false }, []string{strangeRecs}},
		{"a stranger in a pack", func(w *fakeWhole) { w.listing[1] = "stranger" }, []string{strangeRecs}},
		{"a short listing", func(w *fakeWhole) { w.listing = w.listing[:1] }, []string{strangeRecs}},
		{"a row still MARKED", func(w *fakeWhole) { w.rows[0].state = "MARKED" }, []string{strangeRows}},
		{"a row of another pack", func(w *fakeWhole) { w.rows[0].pack = strings.Repeat("2", 32) }, []string{strangeRows}},
		{"no row", func(w *fakeWhole) { w.rows = w.rows[:1] }, []string{strangeRows}},
		{"other bytes", func(w *fakeWhole) { w.bytes[w.files[1].Name] = 1 }, []string{badReads}},
		{"damage", func(w *fakeWhole) { w.verify = 1 }, []string{badPacks}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFakeWhole()
			tc.spoil(w)
			c := w.cluster(t)
			if err := c.whole(t.Context(), w.files, c.Nodes...); err != nil {
				t.Fatal(err)
			}
			c.t.rep.judge()
			var missed []string
			for _, b := range c.t.rep.Bars {
				if !b.OK {
					missed = append(missed, b.What)
				}
			}
			if strings.Join(missed, ";") != strings.Join(tc.want, ";") {
				t.Errorf("missed %q, want %q", missed, tc.want)
			}
		})
	}
}

func TestFilesFollowFromTheSeed(t *testing.T) {
	files, again := rig.NewFiles(7, "f", 50, rig.Small), rig.NewFiles(7, "f", 50, rig.Small)
	other := rig.NewFiles(8, "f", 50, rig.Small)
	dir := t.TempDir()
	if err := rig.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i, f := range files {
		if *f != *again[i] || f.Sum == other[i].Sum {
			t.Errorf("file %d: %v, again %v, with another seed %v", i, f, again[i], other[i])
		}
		if b, err := os.ReadFile(f.Path(dir)); err != nil || string(b) != string(f.Content()) {
			t.Errorf("%s is not what the ledger says: %v", f.Name, err)
		}
		names[f.Name] = true
	}
	if len(names) != len(files) {
		t.Errorf("%d names for %d files", len(names), len(files))
	}
	if err := os.Remove(files[3].Path(dir)); err != nil {
		t.Fatal(err)
	}
	if left, err := rig.Originals(dir, files); left != 49 || err != nil {
		t.Errorf("originals = %d, %v; want 49", left, err)
	}
}
