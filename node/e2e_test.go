package node

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/hostiletest"
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
			// Finer than the row can say.
			path := r.file(fmt.Sprint("plain/", i), content)
			if err := os.Chtimes(path, old, old.Add(123456789)); err != nil {
				t.Fatal(err)
			}
			insert(name, path, content, old)
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

// Rows and files that mean harm, in a customer's table without one constraint:
// each ends FAILED with its code, the others are archived, and nothing outside
// of the roots is read.
func TestHostileRows(t *testing.T) {
	r := newReal(t)
	h := hostiletest.Plant(t, r.folder)
	r.exec(r.sql, `CREATE TABLE hostile (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, path text,
 size bigint, modified_at timestamptz, status text DEFAULT 'ACTIVE', checksum bytea, content_type text)`)
	r.exec(r.sql, `CREATE UNIQUE INDEX ON hostile (name)`)
	roots := make([]string, 0, len(h.Roots))
	for _, root := range h.Roots {
		roots = append(roots, root.String())
	}
	cfg := r.config(config.Source{
		Table: "public.hostile", Columns: map[string]string{"checksum": "checksum", "content_type": "content_type"},
		URLs: r.roles(), Roots: roots,
	})
	cfg.Archive.Attempts = 1
	r.prepare(cfg)
	planted := map[int64]hostiletest.Case{}
	for _, c := range h.Cases {
		values := map[string]any{
			"name": c.Name, "path": c.Path, "size": c.Size, "modified_at": c.Modified, "checksum": c.SHA256, "content_type": nil,
		}
		if c.Content != "" {
			values["content_type"] = c.Content
		}
		for _, column := range c.Null {
			values[column] = nil
		}
		var id int64
		err := r.sql.QueryRow(t.Context(), `INSERT INTO hostile (name, path, size, modified_at, checksum, content_type)
 VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`, values["name"], values["path"], values["size"],
			values["modified_at"], values["checksum"], values["content_type"]).Scan(&id)
		switch {
		case err == nil:
			planted[id] = c
		case !c.Refusable:
			t.Errorf("%s: the table refuses it: %v", c.What, err)
		}
	}
	if len(planted) < 60 {
		t.Fatalf("the table took %d rows only", len(planted))
	}
	n, _ := start(t, cfg)
	n.testArchive(t)
	for id, c := range planted {
		var state, failure string
		err := r.sql.QueryRow(t.Context(), "SELECT status, coalesce(archive_error, '') FROM hostile WHERE id = $1", id).Scan(&state, &failure)
		if err != nil {
			t.Fatal(err)
		}
		code, _, _ := strings.Cut(failure, ":")
		if c.Code != "" {
			if state != string(source.Failed) || code != c.Code {
				t.Errorf("%s: %s %q, want FAILED %q", c.What, state, failure, c.Code)
			}
			continue
		}
		if state != string(source.Packed) {
			t.Errorf("%s: %s %q, want PACKED", c.What, state, failure)
		}
		if status, _, got := n.get(t, c.Name); status != http.StatusOK || got != c.Body || hostiletest.Secret([]byte(got)) {
			t.Errorf("%s: %d %q, want %q", c.What, status, got, c.Body)
		}
	}
	h.Untouched()
}
