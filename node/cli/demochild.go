package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Limits of a node that the demo starts.
const (
	childStart = time.Minute      // until it is ready
	childStop  = 20 * time.Second // after SIGTERM, before SIGKILL
	childPoll  = 10 * time.Millisecond
	tailLines  = 10
)

// launch is how a node is started in a process of its own.
type launch struct {
	log      string   // file for what it logs
	args     []string // start or join, and the rest of the command line
	environ  []string // beside ours, such as secrets that stand in no list of processes
	outlives bool     // it stays when this process dies
}

// child is a node in a process of its own. It logs to a file, not to a pipe,
// so that it can outlive its parent.
type child struct {
	cmd    *exec.Cmd
	log    string
	addr   string        // host:port of its HTTP face
	told   bool          // to end, by kill, stop or end
	exited chan struct{} // closed when the process has ended
	result error         // of Wait, once exited is closed
}

// start starts this very program as a node, and returns when it is ready.
func (l launch) start(ctx context.Context) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &child{log: l.log, exited: make(chan struct{})}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	n.cmd = exec.Command(self, l.args...) //nolint:gosec,noctx // this very program; stop ends it, not a context
	n.cmd.Args[0] = "desnode"
	n.cmd.Stderr = log
	n.cmd.Env = append(withoutOurs(os.Environ()), l.environ...)
	n.cmd.SysProcAttr = childAttributes(l.outlives)
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(n.exited)
		n.result = n.cmd.Wait()
	}()
	if err := n.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a node: %w%s", err, n.logTail(err)), n.stop())
	}
	return n, nil
}

// withoutOurs drops DESNODE_ variables: the demo's nodes are not the operator's.
func withoutOurs(environ []string) []string {
	var rest []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "DESNODE_") {
			rest = append(rest, e)
		}
	}
	return rest
}

// awaitReady waits for the log line that says where the node listens.
func (n *child) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, childStart)
	defer cancel()
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for {
		if addr, err := readyAddr(n.log); err != nil || addr != "" {
			n.addr = addr
			return err
		}
		select {
		case <-tick.C:
		case <-n.exited:
			return fmt.Errorf("%w: it ended at once: %w", errFailed, n.result)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readyAddr returns the address in the log's line "ready"; empty: not there yet.
func readyAddr(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		var entry struct {
			Msg  string `json:"msg"`
			HTTP string `json:"http"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Msg == readyMessage {
			return entry.HTTP, nil
		}
	}
	return "", nil
}

// logTail returns the last lines of the node's log, for errors that the node
// may know more about; nothing when the user interrupted.
func (n *child) logTail(err error) string {
	if errors.Is(err, context.Canceled) {
		return ""
	}
	f, err := os.Open(n.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	var last []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if last = append(last, lines.Text()); len(last) > tailLines {
			last = last[1:]
		}
	}
	if len(last) == 0 {
		return ""
	}
	return "\nThe node's last words:\n" + strings.Join(last, "\n")
}

// hasExited reports whether the process has ended.
func (n *child) hasExited() bool {
	select {
	case <-n.exited:
		return true
	default:
		return false
	}
}

// kill ends the process as a crash would, and waits until it has ended.
func (n *child) kill() error {
	n.told = true
	err := n.cmd.Process.Kill()
	<-n.exited
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// stop ends the process in order and waits until it has ended.
func (n *child) stop() error {
	n.told = true
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return n.awaitExit(childStop)
}

// awaitExit waits for the end of a process that was told to end. One that takes
// too long is killed.
func (n *child) awaitExit(patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-n.exited:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("the node did not stop within %s and was killed", patience), n.kill())
	}
}
