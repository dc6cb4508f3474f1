package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// startChild starts a node with 'desnode start' and returns when it is ready.
func startChild(ctx context.Context, logFile string, flags ...string) (*child, error) {
	return launch{log: logFile, args: append([]string{"start"}, flags...)}.start(ctx)
}

func TestReadsAreDueWhetherOrNotTheEarlierOnesHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+time.Millisecond)
		defer cancel()
		due := make(chan time.Time, 2*loadRate)
		pace(ctx, due)
		if len(due) != loadRate {
			t.Errorf("%d reads were due in a second in which none ended, want %d", len(due), loadRate)
		}
		synctest.Wait()
		if at := <-due; time.Since(at) < 900*time.Millisecond {
			t.Errorf("the first was due %s ago, want about a second", time.Since(at))
		}
	})
}

func TestWhatAReadUnderLoadCountsAs(t *testing.T) {
	other := errors.New("x")
	cases := []struct {
		name                      string
		dead                      bool
		err                       error
		right, failed, wrong, cut int64
	}{
		{"right", false, nil, 1, 0, 0, 0},
		{"failed", false, other, 0, 1, 0, 0},
		{"different", false, fmt.Errorf("%w near byte 1", errDiffers), 0, 0, 1, 0},
		{"right at a dying node", true, nil, 1, 0, 0, 0},
		{"failed at a dying node", true, other, 0, 0, 0, 1},
		{"different at a dying node", true, errDiffers, 0, 0, 1, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			n := nodeLoad{dead: tc.dead}
			n.note(time.Second, tc.err)
			s := n.take()
			if s.latencies.Count() != tc.right || s.failed != tc.failed || s.wrong != tc.wrong || s.cut != tc.cut {
				t.Errorf("got %d right, %d failed, %d wrong, %d cut", s.latencies.Count(), s.failed, s.wrong, s.cut)
			}
			if bad := tc.failed+tc.wrong > 0; bad != (s.first != nil) {
				t.Errorf("first error: %v", s.first)
			}
			if again := n.take(); again != (loadSum{}) {
				t.Error("what was taken is still there")
			}
		})
	}
}

// drainingNode answers reads of the only file, and whether it is ready.
type drainingNode struct {
	ready atomic.Bool
	after atomic.Int64 // reads after it has said that it is not ready
	said  atomic.Bool
	reads atomic.Int64
}

func (f *drainingNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == readyPath {
		if !f.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			f.said.Store(true)
		}
		return
	}
	if f.said.Load() {
		f.after.Add(1)
	}
	f.reads.Add(1)
	file("alpha", "alpha", "p")(w, r)
}

func TestANodeThatIsNotReadyIsSentNothingMore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("alpha"), 0o600); err != nil {
		t.Fatal(err)
	}
	fake := new(drainingNode)
	fake.ready.Store(true)
	s := httptest.NewServer(fake)
	defer s.Close()
	c, err := newClient(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	load, err := newDemoLoad(dir, []demoFile{{"a", 5}})
	if err != nil {
		t.Fatal(err)
	}
	n := &demoNode{client: c, name: "n1"}
	if err := load.add(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() { defer close(drained); load.of(n).drain(t.Context()) }()
	for fake.reads.Load() < 20 {
		select {
		case <-drained:
			t.Fatal("drained while the node was ready")
		case <-time.After(time.Millisecond):
		}
	}
	fake.ready.Store(false)
	<-drained
	read := fake.reads.Load()
	sum := load.of(n).take()
	if err := load.stop(); err != nil {
		t.Fatal(err)
	}
	if sum.failed+sum.wrong+sum.cut > 0 || sum.latencies.Count() != read || fake.reads.Load() != read {
		t.Errorf("%d failed, %d wrong, %d cut, %d right of %d: %v", sum.failed, sum.wrong, sum.cut, sum.latencies.Count(), read, sum.first)
	}
	if fake.after.Load() > loadReaders {
		t.Errorf("%d reads were sent after the node was not ready", fake.after.Load())
	}
}

func TestAwait(t *testing.T) {
	terminal := errors.New("x")
	cases := []struct {
		name   string
		look   func(n int) (string, error) // the n-th look, from 1
		looks  int
		failed error
		say    string
	}{
		{"at once", func(int) (string, error) { return "", nil }, 1, nil, ""},
		{"later", func(n int) (string, error) { return strings.Repeat("x", max(0, 3-n)), nil }, 3, nil, ""},
		{"nobody answers at first", func(n int) (string, error) {
			if n < 3 {
				return "", errUnavailable
			}
			return "", nil
		}, 3, nil, ""},
		{"hopeless", func(int) (string, error) { return "", terminal }, 1, terminal, "x"},
		{"never", func(int) (string, error) { return "this is missing", nil }, int(demoPatience/upkeepPoll) + 1, errFailed, "this is missing"},
		{"nobody ever answers", func(int) (string, error) { return "", errUnavailable }, int(demoPatience/upkeepPoll) + 1, errFailed, "unavailable"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := 0
				err := await(t.Context(), "waiting", func(context.Context) (string, error) {
					looks++
					return tc.look(looks)
				})
				if !errors.Is(err, tc.failed) || tc.say != "" && !strings.Contains(err.Error(), tc.say) {
					t.Errorf("got %v", err)
				}
				if looks < tc.looks-1 || looks > tc.looks {
					t.Errorf("looked %d times, want %d", looks, tc.looks)
				}
			})
		})
	}
}

func TestTheDemosVerdict(t *testing.T) {
	good := loadSum{}
	good.latencies.Add(time.Millisecond)
	cases := []struct {
		name string
		load loadSum
		pass comparison
		ok   bool
	}{
		{"all is well", good, comparison{identical: 2}, true},
		{"a read failed", loadSum{failed: 1, first: errFailed}, comparison{identical: 2}, false},
		{"a read was wrong", loadSum{wrong: 1, first: errDiffers}, comparison{identical: 2}, false},
		{"the killed node cut reads", loadSum{cut: 3}, comparison{identical: 2}, true},
		{"a file is missing in a later pass", good, comparison{identical: 1}, false},
		{"a file differs in a later pass", good, comparison{identical: 1, wrong: []wrongFile{{"a", "x"}}}, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var r demoReport
			r.Import.Files = 2
			r.addReads("read back through n1", comparison{identical: 2}, 2)
			r.addLoad("nothing happens", "n1", tc.load)
			r.addReads("read back through n4", tc.pass, 2)
			if err := r.verdict(); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
			var text strings.Builder
			if err := r.write(&text); err != nil {
				t.Fatal(err)
			}
			if tc.load.first != nil && !strings.Contains(text.String(), "FAILED nothing happens, through n1, first: "+tc.load.first.Error()) {
				t.Errorf("the report does not say what failed first:\n%s", text.String())
			}
		})
	}
}

// TestAnInterruptedDemoLeavesNothing ends a demo whose nodes run, by Ctrl-C and
// by a death, after which the system ends the nodes.
func TestAnInterruptedDemoLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: it starts nodes")
		return
	}
	for _, tc := range []struct {
		name   string
		signal syscall.Signal
		code   int
		empty  bool // the temporary folder, afterwards
	}{
		{"Ctrl-C", syscall.SIGINT, exitInterrupted, true},
		{"killed", syscall.SIGKILL, -1, false},
	} {
		if tc.signal == syscall.SIGKILL && runtime.GOOS != "linux" {
			continue // nobody else ends the children of the dead
		}
		t.Run(tc.name, func(t *testing.T) {
			docs, tmp := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(docs, "a"), []byte("alpha"), 0o600); err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, "demo", docs)
			cmd.Args[0] = "desnode"
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			addrs := runningNodes(t, tmp)
			if err := cmd.Process.Signal(tc.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tc.code {
				t.Errorf("exit code %d, want %d", got, tc.code)
			}
			for _, addr := range addrs {
				err := await(t.Context(), "a node lives on", func(context.Context) (string, error) {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						return "", nil //nolint:nilerr // that is what is waited for
					}
					return addr, c.Close()
				})
				if err != nil {
					t.Error(err)
				}
			}
			left, err := os.ReadDir(tmp)
			if err != nil || tc.empty != (len(left) == 0) {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// runningNodes waits until the nodes of the demo in tmp run, and returns their
// addresses.
func runningNodes(t *testing.T, tmp string) (addrs []string) {
	t.Helper()
	err := await(t.Context(), "the nodes do not start", func(context.Context) (string, error) {
		logs, err := filepath.Glob(filepath.Join(tmp, "desnode-demo-*", "n*.log"))
		addrs = nil
		for _, log := range logs {
			addr, err := readyAddr(log)
			if err != nil || addr == "" {
				return log, err
			}
			addrs = append(addrs, addr)
		}
		if len(addrs) < demoNodes {
			return fmt.Sprintf("%d run", len(addrs)), err
		}
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}
