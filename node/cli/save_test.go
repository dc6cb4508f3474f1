package cli

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestGetWritesToAPipeAndLeavesIt(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string, 1)
	go func() {
		b, err := os.ReadFile(pipe)
		if err != nil {
			b = []byte(err.Error())
		}
		read <- string(b)
	}()
	code, _, stderr := serve(t, file("alpha", "alpha", "p"))("get", "a", "-f", pipe)
	if got := <-read; code != exitOK || got != "alpha" {
		t.Errorf("got %d, %q; the reader got %q", code, stderr, got)
	}
	if fi, err := os.Lstat(pipe); err != nil || fi.Mode().Type() != fs.ModeNamedPipe {
		t.Errorf("the pipe is now %v, %v", fi.Mode(), err)
	}
}

func TestGetKeepsLinksAndModes(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	real, link := filepath.Join(inner, "real"), filepath.Join(dir, "link")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(real, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		announced, want string
		code            int
	}{
		{"alphb", "before", exitFailed},
		{"alpha", "alpha", exitOK},
	} {
		if code, _, stderr := serve(t, file("alpha", step.announced, "p"))("get", "a", "-f", link); code != step.code {
			t.Errorf("got %d, %q, want %d", code, stderr, step.code)
		}
		if got, err := os.ReadFile(real); err != nil || string(got) != step.want {
			t.Errorf("the file holds %q, %v, want %q", got, err, step.want)
		}
		if to, err := os.Readlink(link); err != nil || to != real {
			t.Errorf("the link leads to %q, %v", to, err)
		}
		if fi, err := os.Stat(real); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("the mode is %v, %v", fi.Mode(), err)
		}
		if entries, err := os.ReadDir(inner); err != nil || len(entries) != 1 {
			t.Errorf("the folder holds %v, %v", entries, err)
		}
	}
}

func TestGetToStdoutByItsOtherName(t *testing.T) {
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.WriteString(out, "before "); err != nil {
		t.Fatal(err)
	}
	a := &app{stdout: out}
	to, err := a.target(out.Name())
	if err != nil || to.direct != io.Writer(out) {
		t.Errorf("got %+v, %v, want stdout itself", to, err)
	}
}
