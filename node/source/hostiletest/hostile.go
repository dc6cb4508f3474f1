// Package hostiletest has rows and files that mean harm, and what must become
// of each: whoever may write to the customer's table, or to its folders, can
// make no node read what it must not, block, or stop working for the others.
//
// Plant makes the files; the caller inserts the rows as the customer would,
// marks and packs them, and holds the end against each case and against
// Untouched.
package hostiletest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/datavision/desnode/node/source"
)

// Case is one row and its end.
type Case struct {
	What string
	Name string
	Path string
	Size int64
	// Modified is the listed time.
	Modified time.Time
	SHA256   []byte   // nil: the row lists none
	Content  string   // of the row's content type
	Null     []string // columns that are NULL, by their names in the contract

	// Code is the failure with which the row ends; empty: it is PACKED, and Body
	// is what is served.
	Code string
	Body string
	// Refusable: the table itself may refuse the row, by a constraint or because
	// its type can't hold it.
	Refusable bool
}

// World is what Plant made.
type World struct {
	Roots []source.Root
	Cases []Case

	t       testing.TB
	root    string
	outside string // a folder beside the roots, watched
	watch   *os.File
	written time.Time
}

// secret stands in every file outside of the roots.
const secret = "nobody may read this"

// sql is a text that does harm wherever it is taken for a part of a statement.
const sql = `x'"; DROP TABLE files; DELETE FROM files; UPDATE files SET status='PACKED'; --$1%s\`

// Plant makes hostile files below dir, which must be on a local file system,
// and the rows that list them.
func Plant(t testing.TB, dir string) *World {
	t.Helper()
	w := &World{
		t: t, root: filepath.Join(dir, "inside"), outside: filepath.Join(dir, "outside"),
		written: time.Date(2024, 3, 4, 5, 6, 7, 0, time.UTC),
	}
	w.Roots = []source.Root{source.FolderRoot(w.root), source.FolderRoot("/dev"), source.FolderRoot("/proc")}
	w.write(filepath.Join(w.outside, "secret"), secret)
	w.write(filepath.Join(w.outside, "folder", "secret"), secret)
	w.names()
	w.paths()
	w.files()
	w.columns()
	w.watchOutside()
	return w
}

func (w *World) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *World) write(path, content string) {
	w.t.Helper()
	w.check(os.MkdirAll(filepath.Dir(path), 0o755))
	w.check(os.WriteFile(path, []byte(content), 0o644))
	w.check(os.Chtimes(path, time.Time{}, w.written))
}

func (w *World) add(c Case) {
	if c.Modified.IsZero() {
		c.Modified = w.written
	}
	w.Cases = append(w.Cases, c)
}

// names adds rows of good files under names that can't be served.
func (w *World) names() {
	for i, c := range []struct {
		what, name string
		refusable  bool
	}{
		{"a name that climbs", "../../etc/passwd", false},
		{"a name that climbs in the middle", "a/../../b", false},
		{"a name of dots", "..", false},
		{"an absolute name", "/etc/passwd", false},
		{"an empty segment", "a//b", false},
		{"a slash at the end", "a/", false},
		{"no name", "", true},
		{"control characters", "a\x01\x1b[31mb", false},
		{"lines that forge a header", "a\r\nSet-Cookie: x=y", false},
		{"a NUL byte", "a\x00b", true},
		{"not UTF-8", "a\xff\xfeb", true},
		{"a bidirectional override", "a\u202egpj.exe", false},
		{"a zero-width character", "pay\u200bpal", false},
		{"not composed", "e\u0301", false},
		{"a private character", "a\ue000", false},
		{"a backslash", `..\..\windows`, false},
		{"5000 bytes", strings.Repeat("n", 5000), false},
		{"5000 bytes of segments", strings.Repeat("n/", 2499) + "n", false},
		{"SQL and a backslash", sql, false},
	} {
		path := filepath.Join(w.root, "names", fmt.Sprint(i))
		w.write(path, "a good file")
		w.add(Case{What: "name: " + c.what, Name: c.name, Path: path, Size: 11, Code: source.CodeInvalidName, Refusable: c.refusable})
	}
}

// paths adds rows whose paths mean other files than those below the roots.
func (w *World) paths() {
	secretPath := filepath.Join(w.outside, "secret")
	for i, c := range []struct {
		what, path, code string
		refusable        bool
	}{
		{"out of every root", secretPath, source.CodeInvalidPath, false},
		{"out of every root, of the system", "/etc/passwd", source.CodeInvalidPath, false},
		{"up and out", w.root + "/../outside/secret", source.CodeInvalidPath, true},
		{"up, out and back in", w.root + "/../inside/names/0", source.CodeInvalidPath, true},
		{"relative, up and out", "../outside/secret", source.CodeInvalidPath, true},
		{"relative, with several roots", "names/0", source.CodeInvalidPath, false},
		{"a root itself", w.root, source.CodeInvalidPath, false},
		{"no path", "", source.CodeInvalidPath, true},
		{"a NUL byte", w.root + "/names/0\x00.txt", source.CodeInvalidPath, true},
		{"another system's", `C:\Windows\win.ini`, source.CodeInvalidPath, false},
		{"a share", `\\server\share\secret`, source.CodeInvalidPath, false},
		{"a URL", "file://" + secretPath, source.CodeInvalidPath, true},
		{"a bucket that is no root", "s3://bucket/secret", source.CodeInvalidPath, true},
		{"a device", "/dev/zero", source.CodeNotRegular, false},
		{"a terminal", "/dev/tty", source.CodeNotRegular, false},
		{"a file of the kernel that lies about its size", "/proc/self/environ", source.CodeChanged, false},
		{"a link of the kernel to a root folder", "/proc/self/root" + secretPath, source.CodeInvalidPath, false},
		{"a link of the kernel to the working folder", "/proc/self/cwd/hostile.go", source.CodeInvalidPath, false},
		{"5000 bytes", w.root + "/" + strings.Repeat("p", 5000), source.CodeReadError, false},
		{"a file for a folder", w.root + "/names/0/below", source.CodeReadError, false},
		{"a file that is not there", w.root + "/names/none", source.CodeNoFile, false},
	} {
		w.add(Case{What: "path: " + c.what, Name: fmt.Sprintf("path-%d", i), Path: c.path, Size: int64(len(secret)), Code: c.code, Refusable: c.refusable})
	}
}

// files adds rows of what stands below a root and is no plain file of its own.
func (w *World) files() {
	dir := filepath.Join(w.root, "files")
	w.check(os.MkdirAll(filepath.Join(dir, "folder"), 0o755))
	add := func(what, name, code string) {
		w.add(Case{What: "file: " + what, Name: "file-" + name, Path: filepath.Join(dir, name), Size: int64(len(secret)), Code: code})
	}
	add("a folder", "folder", source.CodeNotRegular)
	w.check(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	add("a pipe that nobody writes to", "fifo", source.CodeNotRegular)
	w.socket(filepath.Join(dir, "socket"))
	add("a socket", "socket", source.CodeNotRegular)
	for _, l := range []struct{ what, name, target, code string }{
		{"an absolute link out", "absolute", filepath.Join(w.outside, "secret"), source.CodeInvalidPath},
		{"a relative link out", "relative", "../../outside/secret", source.CodeInvalidPath},
		{"a linked folder out", "linked", "../../outside", source.CodeInvalidPath},
		{"a link to a device", "device", "/dev/zero", source.CodeInvalidPath},
		{"a link to a pipe", "to-fifo", "fifo", source.CodeNotRegular},
		{"a link to nothing", "dangling", "nothing", source.CodeNoFile},
		{"a link to itself", "loop", "loop", source.CodeReadError},
	} {
		w.check(os.Symlink(l.target, filepath.Join(dir, l.name)))
		if l.name == "linked" {
			l.name = "linked/secret"
		}
		add(l.what, l.name, l.code)
	}
}

func (w *World) socket(path string) {
	w.t.Helper()
	var at net.ListenConfig
	l, err := at.Listen(w.t.Context(), "unix", path)
	w.check(err)
	w.t.Cleanup(func() { _ = l.Close() }) // its file goes with the folder
}

// columns adds rows whose other columns lie, and good ones that only look odd.
func (w *World) columns() {
	dir := filepath.Join(w.root, "columns")
	add := func(c Case, content string) {
		name := fmt.Sprintf("column-%d", len(w.Cases))
		if c.Name == "" {
			c.Name = name
		}
		if c.Path == "" {
			c.Path = filepath.Join(dir, name)
		}
		w.write(c.Path, content)
		w.add(c)
	}
	const body = "an honest file"
	full := int64(len(body))
	add(Case{What: "a size of all there is", Size: 1<<63 - 1, Code: source.CodeChanged}, body)
	add(Case{What: "a size of zero", Size: 0, Code: source.CodeChanged}, body)
	add(Case{What: "a byte too many", Size: full + 1, Code: source.CodeChanged}, body)
	add(Case{What: "a byte too few", Size: full - 1, Code: source.CodeChanged}, body)
	add(Case{What: "a negative size", Size: -1, Code: source.CodeInvalidRow, Refusable: true}, body)
	add(Case{What: "the smallest size", Size: -1 << 63, Code: source.CodeInvalidRow, Refusable: true}, body)
	add(Case{What: "another time", Size: full, Modified: w.written.Add(time.Hour), Code: source.CodeChanged}, body)
	add(Case{What: "a time before all time", Size: full, Modified: time.Date(1700, 1, 1, 0, 0, 0, 0, time.UTC), Code: source.CodeChanged}, body)
	add(Case{What: "another checksum", Size: full, SHA256: bytes.Repeat([]byte{7}, 32), Code: source.CodeChecksum}, body)
	add(Case{What: "a checksum that is none", Size: full, SHA256: []byte("short"), Code: source.CodeInvalidRow, Refusable: true}, body)
	for _, column := range []string{"name", "path", "size", "modified_at"} {
		code := source.CodeInvalidRow
		switch column {
		case "name":
			code = source.CodeInvalidName
		case "path":
			code = source.CodeInvalidPath
		}
		add(Case{What: column + " is NULL", Size: full, Null: []string{column}, Code: code, Refusable: true}, body)
	}
	sparse := filepath.Join(dir, "sparse")
	w.write(sparse, body)
	w.check(os.Truncate(sparse, 1<<40))
	w.check(os.Chtimes(sparse, time.Time{}, w.written))
	w.add(Case{What: "a terabyte of holes that the row does not list", Name: "sparse", Path: sparse, Size: full, Code: source.CodeChanged})

	odd := strings.ReplaceAll(sql, `\`, "")
	add(Case{What: "SQL in every column", Name: odd, Path: filepath.Join(dir, odd), Size: full, Content: odd, Body: body}, body)
	add(Case{What: "the longest name", Name: strings.Repeat("n", 1024), Size: full, Body: body}, body)
	add(Case{What: "a path that is no text", Size: full, Path: filepath.Join(dir, "line\nbreak \x1b[31m"), Body: body}, body)
	add(Case{What: "a plain row", Name: "plain", Size: full, Body: body}, body)
	add(Case{What: "an empty file", Name: "empty", Size: 0}, "")
}

// watchOutside begins to watch whatever is opened or read outside of the roots.
func (w *World) watchOutside() {
	w.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	w.check(err)
	w.watch = os.NewFile(uintptr(fd), "inotify")
	w.t.Cleanup(func() { _ = w.watch.Close() }) // only read from
	for _, dir := range []string{w.outside, filepath.Join(w.outside, "folder")} {
		_, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN|unix.IN_ACCESS)
		w.check(err)
	}
}

// events reads what the watch has seen.
func (w *World) events() (n int) {
	w.t.Helper()
	buf := make([]byte, 1<<16)
	raw, err := w.watch.SyscallConn()
	w.check(err)
	var errRead error
	w.check(raw.Read(func(fd uintptr) bool {
		n, errRead = unix.Read(int(fd), buf)
		return true
	}))
	if errors.Is(errRead, unix.EAGAIN) {
		return 0
	}
	w.check(errRead)
	return n
}

// Untouched fails the test if anything outside of the roots was opened or read
// since Plant, and proves that the watch would have seen it.
func (w *World) Untouched() {
	w.t.Helper()
	if n := w.events(); n > 0 {
		w.t.Errorf("files outside of the roots were opened or read: %d bytes of events", n)
	}
	f, err := os.Open(filepath.Join(w.outside, "secret"))
	w.check(err)
	_, err = io.ReadAll(f)
	w.check(errors.Join(err, f.Close()))
	if w.events() == 0 {
		w.t.Error("the watch sees nothing: it proves nothing")
	}
}

// Secret reports whether content holds what stands in the files outside.
func Secret(content []byte) bool { return bytes.Contains(content, []byte(secret)) }
