package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
)

func TestLookUp(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	modified := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	for _, name := range []string{"a.txt", "sub/b.txt", ".desnode-quarantine-x"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	given := filepath.Join(t.TempDir(), "given") // DIR itself may be a link
	for link, to := range map[string]string{given: dir, filepath.Join(dir, "link"): "a.txt", filepath.Join(dir, "away"): "sub"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	size := func(n int64) *int64 { return &n }
	at := func(d time.Duration) *time.Time { when := modified.Truncate(time.Microsecond).Add(d); return &when }
	sum := strings.Repeat("0f", 32)
	cases := []struct {
		name   string
		listed api.ImportFile
		want   string // the file's name, or, beginning with "!", a part of the error
	}{
		{"relative", api.ImportFile{Path: "a.txt"}, "a.txt"},
		{"not clean", api.ImportFile{Path: "./sub/../sub//b.txt"}, "sub/b.txt"},
		{"absolute", api.ImportFile{Path: filepath.Join(dir, "sub/b.txt")}, "sub/b.txt"},
		{"absolute through DIR as it was given", api.ImportFile{Path: filepath.Join(given, "sub/b.txt")}, "sub/b.txt"},
		{"a name of its own", api.ImportFile{Path: "a.txt", Name: "x/y"}, "x/y"},
		{"all as listed", api.ImportFile{Path: "a.txt", Size: size(5), Modified: at(0), SHA256: sum}, "a.txt"},
		{"whole seconds", api.ImportFile{Path: "a.txt", Modified: new(modified.Truncate(time.Second))}, "a.txt"},
		{"milliseconds", api.ImportFile{Path: "a.txt", Modified: new(modified.Truncate(time.Millisecond))}, "a.txt"},
		{"rounded up", api.ImportFile{Path: "a.txt", Modified: new(modified.Truncate(time.Second).Add(time.Second))}, "a.txt"},
		{"nanoseconds", api.ImportFile{Path: "a.txt", Modified: &modified}, "a.txt"},
		{"another second", api.ImportFile{Path: "a.txt", Modified: new(modified.Truncate(time.Second).Add(-time.Second))}, "!modified 2026-01-02T03:04:05.678901234Z, listed with 2026-01-02T03:04:04Z"},
		{"another microsecond", api.ImportFile{Path: "a.txt", Modified: at(-2 * time.Microsecond)}, "!not as listed"},
		{"another nanosecond", api.ImportFile{Path: "a.txt", Modified: new(modified.Add(1))}, "!not as listed"},
		{"another size", api.ImportFile{Path: "a.txt", Size: size(0)}, "!5 bytes, listed with 0"},
		{"bad hash", api.ImportFile{Path: "a.txt", SHA256: "0f"}, "!no SHA-256"},
		{"hash that is not hex", api.ImportFile{Path: "a.txt", SHA256: strings.Repeat("zz", 32)}, "!no SHA-256"},
		{"missing", api.ImportFile{Path: "missing"}, "!no regular file"},
		{"missing folder", api.ImportFile{Path: "missing/a"}, "!no regular file"},
		{"a file as a folder", api.ImportFile{Path: "a.txt/x"}, "!not a directory"},
		{"folder", api.ImportFile{Path: "sub"}, "!no regular file"},
		{"DIR itself", api.ImportFile{Path: "."}, "!no regular file"},
		{"link", api.ImportFile{Path: "link"}, "!no regular file"},
		{"through a link", api.ImportFile{Path: "away/b.txt"}, "!no regular file"},
		{"quarantined", api.ImportFile{Path: ".desnode-quarantine-x"}, "!no regular file"},
		{"out of DIR", api.ImportFile{Path: "../x"}, "!leads out of"},
		{"absolute elsewhere", api.ImportFile{Path: "/etc/passwd"}, "!not below"},
		{"absolute beside", api.ImportFile{Path: dir + "-other/a.txt"}, "!not below"},
		{"absolute and out again", api.ImportFile{Path: dir + "/../../etc/passwd"}, "!not below"},
		{"zero byte", api.ImportFile{Path: "a.txt\x00"}, "!zero byte"},
		{"no path", api.ImportFile{}, "!leads out of"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f, err := lookUp(dir, given, tc.listed)
			if part, bad := strings.CutPrefix(tc.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %+v, %v; want an error that says %q", f, err, part)
				}
				return
			}
			if err != nil || f.Name != tc.want {
				t.Fatalf("got %q, %v; want %q", f.Name, err, tc.want)
			}
			if !strings.HasPrefix(f.Path, dir+"/") || f.Size != 5 || !f.ModTime.Equal(modified) || f.FileID == "" {
				t.Errorf("got %+v", f)
			}
			if (f.SHA256 != nil) != (tc.listed.SHA256 != "") {
				t.Errorf("the checksum is %x", f.SHA256)
			}
		})
	}
}
