package source

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func parseRoots(t testing.TB, specs ...string) []Root {
	t.Helper()
	var out []Root
	for _, s := range specs {
		r, err := ParseRoot(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestParseRoot(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string
		want Root
		str  string // "": as in
	}{
		{"folder", "/mnt/docs", Root{Prefix: "/mnt/docs", Folder: "/mnt/docs"}, ""},
		{"unclean folder", "/mnt//docs/", Root{Prefix: "/mnt/docs", Folder: "/mnt/docs"}, "/mnt/docs"},
		{"the root folder", "/", Root{Prefix: "", Folder: "/"}, ""},
		{"bucket", "s3://b", Root{Prefix: "s3://b", Bucket: "b"}, "s3://b/"},
		{"bucket and prefix", "s3://b/p/q", Root{Prefix: "s3://b/p/q", Bucket: "b", Key: "p/q/"}, "s3://b/p/q/"},
		{"a slash at the end", "s3://b/p/", Root{Prefix: "s3://b/p", Bucket: "b", Key: "p/"}, ""},
		{"mapped folder", "/data/ => /mnt/share", Root{Prefix: "/data", Folder: "/mnt/share"}, "/data => /mnt/share"},
		{"mapped bucket", "/data => s3://b/data", Root{Prefix: "/data", Bucket: "b", Key: "data/"}, "/data => s3://b/data/"},
		{"share", "//server/share/ => /mnt/s", Root{Prefix: "//server/share", Folder: "/mnt/s"}, "//server/share => /mnt/s"},
		{"Windows share", `\\server\share\ => /mnt/s`, Root{Prefix: `\\server\share`, Folder: "/mnt/s"}, `\\server\share => /mnt/s`},
		{"drive", `D:\ => /mnt/d`, Root{Prefix: `D:`, Folder: "/mnt/d"}, `D: => /mnt/d`},
		{"relative prefix", "invoices => s3://b/i", Root{Prefix: "invoices", Bucket: "b", Key: "i/"}, "invoices => s3://b/i/"},
		{"all absolute paths", "/ => /mnt", Root{Prefix: "", Folder: "/mnt"}, ""},
		{"another bucket's words", "s3://old/ => s3://new/", Root{Prefix: "s3://old", Bucket: "new"}, "s3://old => s3://new/"},
		{"spaces around", "  /data   =>   /mnt/my docs ", Root{Prefix: "/data", Folder: "/mnt/my docs"}, "/data => /mnt/my docs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseRoot(c.in)
			if err != nil || got != c.want {
				t.Fatalf("ParseRoot(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			}
			str := c.str
			if str == "" {
				str = c.in
			}
			if got.String() != str {
				t.Errorf("String = %q, want %q", got.String(), str)
			}
			if again, err := ParseRoot(got.String()); err != nil || again != got {
				t.Errorf("ParseRoot of %q = %+v, %v; want %+v", got, again, err, got)
			}
		})
	}
}

func TestBadRoots(t *testing.T) {
	for _, in := range []string{
		"", "docs", "./docs", "http://b/p", "file:///mnt", "s3://", "s3:///p", "s3://b//p", "s3://b/p/../q", "s3://b/./p",
		"s3://user@b/p", "s3://b?region=x", "/mnt\x00/a", " => /mnt", "/data => ", "/data => docs", "/data/../x => /mnt",
		`\\server\..\share => /mnt`, "/da\x00ta => /mnt", "/a => /b => /c",
	} {
		if got, err := ParseRoot(in); !errors.Is(err, ErrBadRoot) {
			t.Errorf("ParseRoot(%q) = %+v, %v; want ErrBadRoot", in, got, err)
		}
	}
}

func TestFolderRootTakesAnyName(t *testing.T) {
	r := FolderRoot("/srv/a => b/")
	if r.Folder != "/srv/a => b" {
		t.Errorf("folder %q", r.Folder)
	}
	if at, err := findSpot([]Root{r}, "/srv/a => b/c"); err != nil || at.rest != "c" {
		t.Errorf("found %+v, %v", at, err)
	}
}

func TestFindSpot(t *testing.T) {
	mixed := parseRoots(t, "/mnt/docs", "/mnt/docs/deep => /mnt/other", "/data => s3://b/data", "/data/local => /mnt/local",
		"s3://raw/in", "//server/share => /mnt/share", `\\win\share => /mnt/win`, `E:\ => s3://b/e`, "invoices => s3://b/i")
	one := parseRoots(t, "/mnt/docs")
	oneBucket := parseRoots(t, "s3://b/p")
	for _, c := range []struct {
		name  string
		roots []Root
		path  string
		want  string // target and rest; "": ErrOutside
	}{
		{"folder", mixed, "/mnt/docs/a/b", "/mnt/docs a/b"},
		{"longest prefix", mixed, "/mnt/docs/deep/a", "/mnt/other a"},
		{"a segment that begins alike", mixed, "/mnt/docs/deeper/a", "/mnt/docs deeper/a"},
		{"no segment's end", mixed, "/mnt/docsx/a", ""},
		{"the prefix itself", mixed, "/mnt/docs", ""},
		{"the prefix and a slash", mixed, "/mnt/docs/", ""},
		{"unclean", mixed, "/mnt//docs/./a//b", "/mnt/docs a/b"},
		{"mapped to a bucket", mixed, "/data/a/b", "s3://b/data/ a/b"},
		{"a folder below a bucket's prefix", mixed, "/data/local/a", "/mnt/local a"},
		{"bucket by its own words", mixed, "s3://raw/in/a", "s3://raw/in/ a"},
		{"bucket beside its prefix", mixed, "s3://raw/inner/a", ""},
		{"another bucket", mixed, "s3://other/in/a", ""},
		{"share", mixed, "//server/share/a", "/mnt/share a"},
		{"another share", mixed, "//server/other/a", ""},
		{"Windows share", mixed, `\\win\share\dir\a.pdf`, "/mnt/win dir/a.pdf"},
		{"Windows share, slashes", mixed, `//win/share/dir/a.pdf`, "/mnt/win dir/a.pdf"},
		{"drive", mixed, `E:\dir\a`, "s3://b/e/ dir/a"},
		{"another drive", mixed, `F:\dir\a`, ""},
		{"backslash is a byte elsewhere", mixed, `/mnt/docs/a\b`, `/mnt/docs a\b`},
		{"relative prefix", mixed, "invoices/1", "s3://b/i/ 1"},
		{"relative without a prefix", mixed, "other/1", ""},
		{"up", mixed, "/mnt/docs/../x", ""},
		{"up and back", mixed, "/mnt/docs/a/../b", ""},
		{"up in a key", mixed, "/data/../x", ""},
		{"up, Windows", mixed, `\\win\share\..\x`, ""},
		{"dot in a key", mixed, "/data/./x", ""},
		{"empty segment of a key", mixed, "/data/a//x", ""},
		{"key that ends in a slash", mixed, "/data/a/", ""},
		{"NUL", mixed, "/data/a\x00", ""},
		{"no path", mixed, "", ""},
		{"relative to the one root", one, "a/b", "/mnt/docs a/b"},
		{"relative and up", one, "a/../../b", ""},
		{"relative, up and back", one, "a/../b", ""},
		{"only up", one, "..", ""},
		{"only here", one, ".", ""},
		{"absolute beside the one root", one, "/etc/passwd", ""},
		{"a bucket beside the one root", one, "s3://b/a", ""},
		{"Windows beside the one root", one, `\\server\share\a`, ""},
		{"relative to the one bucket", oneBucket, "a/b", "s3://b/p/ a/b"},
		{"relative to the one bucket, up", oneBucket, "../b", ""},
		{"the one bucket by its words", oneBucket, "s3://b/p/a", "s3://b/p/ a"},
		{"a local file beside the one bucket", oneBucket, "/etc/passwd", ""},
		{"no roots", nil, "a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, err := findSpot(c.roots, c.path)
			if c.want == "" {
				if !errors.Is(err, ErrOutside) {
					t.Errorf("found %+v, %v; want ErrOutside", at, err)
				}
				return
			}
			if got := at.root.target() + " " + strings.ReplaceAll(at.rest, "//", "/"); err != nil || strings.ReplaceAll(got, "./", "") != c.want {
				t.Errorf("found %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// Whatever a path says, what is found lies below the root's target, and its
// word leads back to it.
func TestFindSpotNeverLeadsOut(t *testing.T) {
	roots := parseRoots(t, "/mnt/docs", "/data => s3://b/data", `\\win\share => /mnt/win`, "/data/x => /mnt/x", "s3://raw", "rel => /mnt/rel")
	segment := rapid.SampledFrom([]string{"..", ".", "", "a", "docs", "data", "x", `..\..`, `a\b`, "...", " ", "ż"})
	head := rapid.SampledFrom([]string{"/", "", "/mnt/docs/", "/data/", "/data/x/", `\\win\share\`, "//win/share/", "s3://raw/", "s3://", "rel/", "rel"})
	rapid.Check(t, func(t *rapid.T) {
		separator := rapid.SampledFrom([]string{"/", `\`}).Draw(t, "separator")
		path := head.Draw(t, "head") + strings.Join(rapid.SliceOfN(segment, 0, 6).Draw(t, "segments"), separator)
		at, err := findSpot(roots, path)
		if err != nil {
			if !errors.Is(err, ErrOutside) {
				t.Fatalf("%q: %v", path, err)
			}
			return
		}
		for s := range strings.SplitSeq(at.rest, "/") {
			if s == ".." || at.root.Bucket != "" && (s == "" || s == ".") {
				t.Fatalf("%q led to %q below %s", path, at.rest, at.root)
			}
		}
		if strings.HasPrefix(at.rest, "/") || at.rest == "" {
			t.Fatalf("%q led to %q below %s", path, at.rest, at.root)
		}
		again, err := findSpot(roots, at.root.word(at.rest))
		if err != nil || again != at {
			t.Fatalf("%q led to %+v, its word %q to %+v, %v", path, at, at.root.word(at.rest), again, err)
		}
	})
}

// What finding a file's root costs each opening.
func BenchmarkFindSpot(b *testing.B) {
	roots := parseRoots(b, "/mnt/docs", "/mnt/docs/deep => /mnt/other", "/data => s3://b/data", "/data/local => /mnt/local",
		"s3://raw/in", "//server/share => /mnt/share", `\\win\share => /mnt/win`, "invoices => s3://b/i")
	for _, path := range []string{"/data/2024/05/06/scan-4711.tif", `\\win\share\2024\05\06\scan-4711.tif`} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := findSpot(roots, path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
