package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Limits of one node.
const (
	readyWithin = time.Minute
	stopWithin  = 30 * time.Second // after SIGTERM
	stackWithin = 5 * time.Second  // after SIGQUIT
)

// ErrEnded: a process is not there that should be.
var ErrEnded = errors.New("the node ended by itself")

// Node is one node of a cluster, one process after another over one data dir.
type Node struct {
	Name  string // n1, n2, …
	bin   string
	dir   string   // of its configuration, its logs and, in data, its data dir
	Host  *Host    // nil: this machine's own network
	Env   []string // added to this program's own
	extra []string // flags of every start

	// Shift is added to the ports of the next life, where they are fixed: in a
	// host of its own.
	Shift int

	Client *http.Client
	lives  int
	ID     string // the cluster's word for it, once it was ready
	Base   string // URL of this life's HTTP face

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	result error         // of Wait, once ended is closed
}

// NewNode makes the folder of a node of that binary in dir; nil: no host of its own.
func NewNode(bin, dir, name string, h *Host) (*Node, error) {
	n := &Node{Name: name, bin: bin, dir: filepath.Join(dir, name), Host: h}
	n.Client = &http.Client{Transport: &http.Transport{
		DialContext:         n.dial,
		MaxIdleConnsPerHost: 256,
		DisableCompression:  true,
	}}
	return n, os.Mkdir(n.dir, 0o700)
}

// dial opens a connection from where the node is.
func (n *Node) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if n.Host != nil {
		return n.Host.dial(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// Config returns the file of the node's configuration.
func (n *Node) Config() string { return filepath.Join(n.dir, "desnode.yaml") }

// log returns the file that this life logs to.
func (n *Node) log() string { return filepath.Join(n.dir, fmt.Sprintf("life-%d.log", n.lives)) }

// command is the program with args, run where the node is.
func (n *Node) command(args ...string) *exec.Cmd {
	program := append([]string{n.bin}, args...)
	if n.Host != nil {
		program = n.Host.inside(program)
	}
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(environ(), n.Env...)
	return cmd
}

// environ is this program's environment without the operator's settings.
func environ() (rest []string) {
	for _, e := range os.Environ() {
		if !bytes.HasPrefix([]byte(e), []byte("DESNODE_")) {
			rest = append(rest, e)
		}
	}
	return rest
}

// Start begins a life: `desnode start`, or `desnode join …`, on any free ports.
// It returns at once.
func (n *Node) Start(verb ...string) error {
	args := append(verb, "--config", n.Config(), "--data-dir", n.Data())
	if n.Host == nil {
		args = append(args, "--http", "127.0.0.1:0", "--cluster", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
	} else {
		at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port+n.Shift)) }
		args = append(args, "--http", at("127.0.0.1", 8080), "--cluster", at(n.Host.addr, 7947), "--gossip", at(n.Host.addr, 7946))
	}
	n.lives++
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := n.command(append(args, n.extra...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = DieWithParent()
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	ended := make(chan struct{})
	n.cmd, n.ended, n.Base = cmd, ended, ""
	go func() {
		defer close(ended)
		n.result = cmd.Wait()
	}()
	return nil
}

// Running reports whether a process of this node is there, frozen or not.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// Ended is closed when the process of this life has ended.
func (n *Node) Ended() <-chan struct{} { return n.ended }

// PID is the process of this life; 0: none was started.
func (n *Node) PID() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Data is the node's data dir.
func (n *Node) Data() string { return filepath.Join(n.dir, "data") }

// Ready waits until this life answers.
func (n *Node) Ready(ctx context.Context) error {
	err := Await(ctx, n.Name+" is ready", readyWithin, func(context.Context) error {
		if !n.Running() {
			return nil
		}
		line, err := n.logged("node ready")
		if err != nil {
			return err
		}
		n.Base = "http://" + line.HTTP
		return nil
	})
	if err == nil && !n.Running() {
		err = fmt.Errorf("%s: %w: %w", n.Name, ErrEnded, n.result)
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, n.lastWords())
	}
	var s Status
	if err := n.Get(ctx, "/cluster/status", &s); err != nil {
		return err
	}
	n.ID = s.Node
	return nil
}

// LogLine is what is looked for in the JSON lines of a node's log.
type LogLine struct {
	Level string `json:"level"`
	Msg   string `json:"msg"`
	HTTP  string `json:"http"`
	Error string `json:"error"`
}

// ErrNotLogged: a message is not in a log.
var ErrNotLogged = errors.New("not logged")

// logged returns the first line of this life's log with that message.
func (n *Node) logged(msg string) (found LogLine, err error) {
	err = ErrNotLogged
	scanErr := n.ScanLog(func(line LogLine, _ []byte) {
		if err != nil && line.Msg == msg {
			found, err = line, nil
		}
	})
	return found, errors.Join(err, scanErr)
}

// ScanLog calls each for all whole lines of this life's log so far; what is
// not JSON (a panic, say) has only raw.
func (n *Node) ScanLog(each func(line LogLine, raw []byte)) error {
	b, err := os.ReadFile(n.log())
	if err != nil {
		return err
	}
	for raw := range bytes.Lines(b) {
		var line LogLine
		if json.Unmarshal(raw, &line) != nil {
			line = LogLine{}
		}
		each(line, raw)
	}
	return nil
}

// lastWords is the end of this life's log, for errors.
func (n *Node) lastWords() string {
	f, err := os.Open(n.log())
	if err != nil {
		return ""
	}
	defer f.Close()
	var last []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if last = append(last, lines.Text()); len(last) > 5 {
			last = last[1:]
		}
	}
	text := fmt.Sprintf("\n  %s's last words (%s):", n.Name, n.log())
	for _, l := range last {
		text += "\n    " + l
	}
	return text
}

// CPU is the time that the cores have given to a life that is over.
func (n *Node) CPU() time.Duration {
	if n.cmd == nil || n.cmd.ProcessState == nil {
		return 0
	}
	return n.cmd.ProcessState.UserTime() + n.cmd.ProcessState.SystemTime()
}

// signal sends this life a signal.
func (n *Node) signal(sig syscall.Signal) error {
	if !n.Running() {
		return fmt.Errorf("%s: %w", n.Name, ErrEnded)
	}
	return n.cmd.Process.Signal(sig)
}

// Freeze stops the process where it is.
func (n *Node) Freeze() error { return n.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (n *Node) Thaw() error { return n.signal(syscall.SIGCONT) }

// Kill ends this life with SIGKILL, frozen or not, and waits until the process
// is gone. It is an error when it was gone already.
func (n *Node) Kill() error {
	err := n.signal(syscall.SIGKILL)
	if n.cmd != nil {
		<-n.ended
	}
	n.Client.CloseIdleConnections()
	return err
}

// Stop ends this life with SIGTERM and waits until the process is gone.
func (n *Node) Stop(ctx context.Context) error {
	defer n.Client.CloseIdleConnections()
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := n.exited(ctx, stopWithin); err != nil {
		return errors.Join(err, n.dump(ctx))
	}
	if n.result != nil {
		return fmt.Errorf("%s was told to stop: %w%s", n.Name, n.result, n.lastWords())
	}
	return nil
}

// exited waits for the end of the process.
func (n *Node) exited(ctx context.Context, within time.Duration) error {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-n.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("%w for %s, %s ends", ErrTimeout, within, n.Name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// dump has a process that hangs write its goroutines to its log, which ends it.
func (n *Node) dump(ctx context.Context) error {
	if !n.Running() {
		return nil
	}
	err := errors.Join(n.Thaw(), n.signal(syscall.SIGQUIT))
	if waitErr := n.exited(context.WithoutCancel(ctx), stackWithin); waitErr != nil {
		return errors.Join(err, waitErr)
	}
	return err
}
