package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sys/unix"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// keep runs the keeper, beside the node's own rounds, until all rows of a table
// are in the state.
func (n *Node) keep(t *testing.T, r *real, table, column, state string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		changed := n.meta.Changed()
		err := n.keeper.Once(t.Context())
		if err != nil && !errors.Is(err, raftmeta.ErrClash) {
			t.Fatal(err)
		}
		if states := r.states(table, column); len(states) == 1 && states[state] > 0 {
			return
		}
		if err != nil { // the node's own round is under way
			select {
			case <-changed:
			case <-time.After(time.Second):
			}
		}
	}
	failures, err := n.sources[0].Rows.Failures(t.Context(), "", "", 100)
	t.Fatalf("states: %v, failures %+v, %v", r.states(table, column), failures, err)
}

// The whole life of files that a customer's own table lists, some in a folder
// and some in a bucket: marked, packed, their originals deleted, read by name
// and by id. Each role has the least of privileges.
func TestEndToEnd(t *testing.T) {
	for _, versions := range []bool{false, true} {
		t.Run(fmt.Sprintf("versions %v", versions), func(t *testing.T) { endToEnd(t, versions) })
	}
}

func endToEnd(t *testing.T, versions bool) {
	r := newReal(t)
	if versions {
		_, err := r.s3.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
			Bucket:                  &r.name,
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.exec(r.sql, `CREATE TABLE documents (
 doc_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), file_name text NOT NULL UNIQUE, location text NOT NULL UNIQUE,
 bytes bigint NOT NULL, changed timestamp(0) NOT NULL, state text NOT NULL DEFAULT 'A', kind text, owner text, secret text)`)
	cfg := r.config(config.Source{
		URLs:     r.roles(),
		Roots:    []string{r.folder, "//nas/share => " + r.folder + "/share", "s3://" + r.name + "/originals"},
		Table:    "public.documents",
		Columns:  map[string]string{"id": "doc_id", "name": "file_name", "path": "location", "size": "bytes", "modified_at": "changed", "status": "state", "content_type": "kind"},
		States:   map[string]string{"ACTIVE": "A", "MARKED": "M", "PACKED": "P", "DELETED_SOURCE": "D", "FAILED": "F"},
		Metadata: map[string]string{"owner": "owner"},
	})
	cfg.Archive.DeleteSource, cfg.Archive.DeleteGrace = true, 0
	cfg.Archive.MinAge = 0 // the objects are new
	r.prepare(cfg)

	want := map[string]string{} // content by name
	insert := func(name, location, content string, changed any) {
		want[name] = content
		r.exec(r.sql, `INSERT INTO documents (file_name, location, bytes, changed, kind, owner) VALUES ($1, $2, $3, $4, 'text/x-test', 'me')`,
			name, location, len(content), changed)
	}
	for i := range 20 {
		content := strings.Repeat(fmt.Sprint("file ", i, "\n"), i*100)
		name := fmt.Sprintf("reports/ł %02d.txt", i)
		switch i % 3 {
		case 0:
			insert(name, r.file(fmt.Sprint("plain/", i), content), content, old)
		case 1:
			r.file(fmt.Sprint("share/sub/", i), content)
			insert(name, fmt.Sprint("//nas/share/sub/", i), content, old)
		case 2:
			key := fmt.Sprint("originals/o/", i)
			at := r.object(key, content)
			insert(name, "s3://"+r.name+"/"+key, content, at.UTC())
		}
	}
	n, _ := start(t, cfg)
	if last := n.testArchive(t); last.Packed != 20 || last.Failed != 0 {
		t.Fatalf("archived: %+v", last)
	}
	n.keep(t, r, "documents", "state", "D")
	left := 0
	err := filepath.WalkDir(r.folder, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left++
		}
		return err
	})
	if err != nil || left > 0 {
		t.Errorf("%d originals left in the folder, %v", left, err)
	}
	prefix := "originals/"
	list, err := r.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &r.name, Prefix: &prefix})
	if err != nil || len(list.Contents) > 0 {
		t.Errorf("originals left in the bucket: %v, %v", list.Contents, err)
	}
	rows, err := r.sql.Query(t.Context(), "SELECT doc_id::text, file_name FROM documents")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for rows.Next() {
		var id, name string
		if err := rows.Scan(&id, &name); err != nil {
			t.Fatal(err)
		}
		ids[id] = name
	}
	for id, name := range ids {
		if status, h, got := n.get(t, name); status != 200 || got != want[name] || h.Get("Content-Type") != "text/x-test" || h.Get("X-Des-Pack") == "" {
			t.Errorf("%s: %d, %d bytes, %v", name, status, len(got), h)
		}
		if status, got := n.byID(t, "docs", id); status != 200 || got != want[name] {
			t.Errorf("%s: %d, %d bytes", id, status, len(got))
		}
	}
}

// Several sources side by side, each with a binding of its own; one file may
// not be served under a name that another has.
func TestSeveralSources(t *testing.T) {
	r := newReal(t)
	r.exec(r.sql, `CREATE TABLE letters (nr int PRIMARY KEY, name text UNIQUE, path text, size int, modified_at timestamptz)`)
	r.exec(r.sql, `CREATE TABLE scans (key text PRIMARY KEY, path text UNIQUE, size bigint, modified_at timestamptz, status text DEFAULT 'ACTIVE')`)
	cfg := r.config(config.Source{}) // the reference table
	cfg.Sources["letters"] = config.Source{URL: r.db, Roots: []string{r.folder}, Table: "public.letters", Binding: config.BindingSide, Columns: map[string]string{"id": "nr"}}
	cfg.Sources["scans"] = config.Source{
		URL: r.db, Roots: []string{r.folder}, Table: "public.scans", Naming: config.NamingGenerated,
		Columns: map[string]string{"id": "key", "name": "key"},
	}
	cfg.Sources["files"] = config.Default(cfg.DataDir).Sources["files"]
	r.prepare(config.Config{Sources: map[string]config.Source{
		"docs": cfg.Sources["docs"], "letters": cfg.Sources["letters"], "scans": cfg.Sources["scans"],
	}})
	doc, letter, scan := r.file("a", "the document"), r.file("b", "the letter"), r.file("c", "the scan")
	r.exec(r.sql, `INSERT INTO desnode.files (name, path, size, modified_at) VALUES ('doc', $1, 12, $2)`, doc, old)
	r.exec(r.sql, `INSERT INTO letters VALUES (7, 'letter', $1, 10, $2)`, letter, old)
	r.exec(r.sql, `INSERT INTO scans (key, path, size, modified_at) VALUES ('../not a name', $1, 8, $2)`, scan, old)
	n, _ := start(t, cfg)
	if last := n.testArchive(t); last.Packed != 3 || last.Failed != 0 {
		t.Fatalf("archived: %+v", last)
	}
	var generated string
	if err := r.sql.QueryRow(t.Context(), "SELECT des_name FROM scans").Scan(&generated); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"doc": "the document", "letter": "the letter", generated: "the scan"} {
		if status, h, got := n.get(t, name); status != 200 || got != want || h.Get("X-Des-Pack") == "" {
			t.Errorf("%s: %d %q", name, status, got)
		}
	}
	for _, id := range []struct{ source, id, want string }{
		{"docs", "1", "the document"}, {"letters", "7", "the letter"}, {"scans", "../not a name", "the scan"},
	} {
		if status, got := n.byID(t, id.source, id.id); status != 200 || got != id.want {
			t.Errorf("%s: %d %q", id.source, status, got)
		}
	}
	// A name that another source serves already.
	r.exec(r.sql, `INSERT INTO letters VALUES (8, 'doc', $1, 5, $2)`, r.file("d", "other"), old)
	if last := n.testArchive(t); last.Packed != 0 || last.Failed != 1 {
		t.Errorf("archived a name twice: %+v", last)
	}
	if status, _, got := n.get(t, "doc"); status != 200 || got != "the document" {
		t.Errorf("doc: %d %q", status, got)
	}
	failures, err := cfgRows(n, "letters").Failures(t.Context(), "", "", 10)
	if err != nil || len(failures) != 1 || failures[0].ErrorCode != source.CodeDuplicateName {
		t.Errorf("failures: %+v, %v", failures, err)
	}
}

func cfgRows(n *Node, name string) source.Table {
	i := slices.IndexFunc(n.sources, func(s source.Source) bool { return s.Name == name })
	return n.sources[i].Rows
}

// Rows that nobody should list: each ends FAILED with its code, the others are
// archived, and nothing outside of the roots is read.
func TestHostileRows(t *testing.T) {
	r := newReal(t)
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "secret")
	if err := os.Chtimes(secret, old, old); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link-out": secret, "link-up": "../../../etc/hostname"} {
		if err := os.Symlink(target, filepath.Join(r.folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(syscall.Mkfifo(filepath.Join(r.folder, "fifo"), 0o600), os.Mkdir(filepath.Join(r.folder, "folder"), 0o750)); err != nil {
		t.Fatal(err)
	}
	device := "/dev/null"
	if err := unix.Mknod(filepath.Join(r.folder, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err == nil {
		device = filepath.Join(r.folder, "device")
	}
	r.exec(r.sql, `CREATE TABLE hostile (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text, name text, path text, size bigint, modified_at timestamptz, status text DEFAULT 'ACTIVE', checksum text)`)
	cfg := r.config(config.Source{Table: "public.hostile", Columns: map[string]string{"checksum": "checksum"}, URLs: r.roles()})
	cfg.Archive.Attempts = 1
	r.exec(r.sql, `CREATE UNIQUE INDEX ON hostile (name)`)
	r.prepare(cfg)
	good := r.file("good", "good")
	sql := `'; DROP TABLE hostile; --`
	type row struct {
		label, want      string
		name, path, size any
		modified         any
		checksum         any
	}
	rows := []row{
		{label: "climbing name", name: "../../etc/passwd", want: "invalid-name"},
		{label: "control character", name: "a\nb", want: "invalid-name"},
		{label: "5000 bytes", name: strings.Repeat("x", 5000), want: "invalid-name"},
		{label: "bidirectional override", name: "a\u202eb", want: "invalid-name"},
		{label: "empty name", name: "", want: "invalid-name"},
		{label: "no name", name: nil, want: "invalid-name"},
		{label: "no path", name: "no path", path: nil, want: "invalid-path"},
		{label: "no size", name: "no size", size: nil, want: "invalid-row"},
		{label: "no time", name: "no time", modified: nil, want: "invalid-row"},
		{label: "negative size", name: "negative", size: -1, want: "invalid-row"},
		{label: "SQL", name: sql, path: sql, want: "no-file"},
		{label: "outside", name: "outside", path: secret, size: 6, want: "invalid-path"},
		{label: "climbing path", name: "climbing", path: r.folder + "/../../../../etc/hostname", want: "invalid-path"},
		{label: "link out", name: "link out", path: r.folder + "/link-out", size: 6, want: "invalid-path"},
		{label: "link up", name: "link up", path: r.folder + "/link-up", want: "invalid-path"},
		{label: "FIFO", name: "fifo", path: r.folder + "/fifo", want: "not-regular"},
		{label: "device", name: "device", path: device, want: "not-regular"},
		{label: "folder", name: "folder", path: r.folder + "/folder", want: "not-regular"},
		{label: "nothing there", name: "gone", path: r.folder + "/gone", want: "no-file"},
		{label: "other size", name: "other size", size: 5, want: "changed"},
		{label: "other time", name: "other time", modified: old.AddDate(0, 0, -1), want: "changed"},
		{label: "other checksum", name: "other checksum", checksum: strings.Repeat("ab", 32), want: "checksum-mismatch"},
	}
	if device == "/dev/null" {
		rows = slices.DeleteFunc(rows, func(r row) bool { return r.label == "device" }) // no right to make one
	}
	for _, x := range rows {
		for _, d := range []struct {
			value  *any
			usual  any
			absent string // the row that goes without
		}{{&x.path, good, "no path"}, {&x.size, 4, "no size"}, {&x.modified, old, "no time"}} {
			if *d.value == nil && x.label != d.absent {
				*d.value = d.usual
			}
		}
		r.exec(r.sql, `INSERT INTO hostile (label, name, path, size, modified_at, checksum) VALUES ($1, $2, $3, $4, $5, $6)`,
			x.label, x.name, x.path, x.size, x.modified, x.checksum)
	}
	sum := sha256.Sum256([]byte("good"))
	r.exec(r.sql, `INSERT INTO hostile (label, name, path, size, modified_at, checksum) VALUES ('good', 'good', $1, 4, $2, $3)`, good, old, fmt.Sprintf("%x", sum))
	accessed := func() unix.Timespec {
		var st unix.Stat_t
		if err := unix.Stat(secret, &st); err != nil {
			t.Fatal(err)
		}
		return st.Atim
	}
	before := accessed()
	n, _ := start(t, cfg)
	if last := n.testArchive(t); last.Packed != 1 || last.Failed != int64(len(rows)) {
		t.Errorf("archived: %+v, want 1 packed and %d failed", last, len(rows))
	}
	for _, x := range rows {
		var status, text string
		err := r.sql.QueryRow(t.Context(), "SELECT status, coalesce(archive_error, '') FROM hostile WHERE label = $1", x.label).Scan(&status, &text)
		if code, _, _ := strings.Cut(text, ":"); err != nil || status != "FAILED" || code != x.want {
			t.Errorf("%s: %s, %q, %v; want FAILED, %s", x.label, status, text, err, x.want)
		}
	}
	if status, _, got := n.get(t, "good"); status != http.StatusOK || got != "good" {
		t.Errorf("good: %d %q", status, got)
	}
	if after := accessed(); after != before {
		t.Error("a file outside of the roots was read")
	}
}
