package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// leakChecked fails a run of tests that leaves goroutines behind.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestMain lets this test binary be desnode too: for the scripts, and for the
// nodes that the demo starts.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"desnode": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script against real nodes in processes of their own.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: the scripts start nodes")
		return
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			tmp := filepath.Join(env.WorkDir, "tmp")
			env.Setenv("TMPDIR", tmp)
			env.Values[nodeKey{}] = new(*child)
			docs, err := filepath.Abs("../../docs")
			env.Setenv("DOCS", docs)
			if err != nil {
				return err
			}
			return os.MkdirAll(tmp, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":      exits,
			"startnode":  startNode,
			"joinnode":   joinNodeByLine,
			"until":      until,
			"stopnode":   stopNode,
			"flip":       flip,
			"flippacked": flipPacked,
			"cutto":      cutTo,
			"mkfifo":     mkfifo,
			"oddname":    oddName,
			"stoppid":    stopPID,
			"copyone":    copyOne,
			"emptydir":   emptyDir,
			"documented": documented,
		},
	})
}

// exits CODE PROGRAM ARGS…: runs the program, which must end with that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// nodeKey finds the node that a script started last.
type nodeKey struct{}

// startnode FLAGS…: starts a node and puts its address into DESNODE_ADDR.
func startNode(ts *testscript.TestScript, _ bool, args []string) {
	n, err := startChild(context.Background(), ts.MkAbs("node.log"), args...)
	ts.Check(err)
	ts.Defer(func() { _ = n.stop() })
	ts.Setenv("DESNODE_ADDR", "http://"+n.addr)
	ts.Setenv("NODE_HTTP", n.addr)
	*ts.Value(nodeKey{}).(**child) = n
}

// stopnode: the node must end by itself, in order, when told to.
func stopNode(ts *testscript.TestScript, _ bool, _ []string) {
	n := *ts.Value(nodeKey{}).(**child)
	ts.Check(n.stop())
	if n.result != nil {
		ts.Fatalf("the node ended with %v", n.result)
	}
}

// flip FILE OFFSET: changes one bit; a negative offset counts from the end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// flippacked PATTERN CONTENT: changes one bit where the only file that the
// pattern matches holds that content.
func flipPacked(ts *testscript.TestScript, _ bool, args []string) {
	path := only(ts, args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	at := bytes.Index(b, []byte(args[1]))
	if at < 0 {
		ts.Fatalf("%s does not hold %q", path, args[1])
	}
	b[at] ^= 1
	fi, err := os.Stat(path)
	ts.Check(err)
	ts.Check(os.Chmod(path, 0o600))
	ts.Check(os.WriteFile(path, b, 0o600))
	ts.Check(os.Chtimes(path, fi.ModTime(), fi.ModTime())) // rot leaves it alone
}

// only returns the only file that the pattern matches.
func only(ts *testscript.TestScript, pattern string) string {
	found, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s matches %d files, want 1", pattern, len(found))
	}
	return found[0]
}

// cutto FILE SIZE: cuts a file; a negative size counts from the end.
func cutTo(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	if size < 0 {
		size += len(b)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b[:size], 0o600))
}

// mkfifo PATH: makes a pipe, a special file that nobody may open for reading.
func mkfifo(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

// oddname DIR: writes files whose names the archive refuses.
func oddName(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range []string{"not-utf8-\xff", "back\\slash", "line\nbreak"} {
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), name), []byte("x"), 0o600))
	}
}

// stoppid: kills the processes whose ids stand after "as process " in stderr.
func stopPID(ts *testscript.TestScript, _ bool, _ []string) {
	found := regexp.MustCompile(`as process ([0-9]+)\.`).FindAllStringSubmatch(ts.ReadFile("stderr"), -1)
	if len(found) == 0 {
		ts.Fatalf("stderr names no process")
	}
	for _, match := range found {
		pid, err := strconv.Atoi(match[1])
		ts.Check(err)
		p, err := os.FindProcess(pid)
		ts.Check(err)
		ts.Check(p.Kill()) // what it still wrote would be in the way of the clean-up
	}
}

// copyone PATTERN TO: copies the only file that the pattern matches.
func copyOne(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(only(ts, args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// emptydir DIR: the folder must hold nothing.
func emptyDir(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s holds %v", args[0], entries)
	}
}

// documented URL: every metric of ours at URL stands in the operator's guide.
func documented(ts *testscript.TestScript, _ bool, args []string) {
	guide, err := os.ReadFile(filepath.Join(ts.Getenv("DOCS"), "operator.md"))
	ts.Check(err)
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	found := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, ours := strings.CutPrefix(lines.Text(), "# TYPE des_")
		if !ours {
			continue
		}
		found++
		if name, _, _ = strings.Cut("des_"+name, " "); !bytes.Contains(guide, []byte("| `"+name+"`")) {
			ts.Fatalf("docs/operator.md does not list the metric %s", name)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if found == 0 {
		ts.Fatalf("%s has no metric of ours", args[0])
	}
}
