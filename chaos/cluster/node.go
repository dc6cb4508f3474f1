package main

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
	"syscall"
	"time"
)

// Limits of one node.
const (
	readyWithin = time.Minute
	stopWithin  = 30 * time.Second // after SIGTERM
	stackWithin = 5 * time.Second  // after SIGQUIT
)

var errEnded = errors.New("the node ended by itself")

// node is one node of a cluster, one process after another over one data dir.
type node struct {
	name  string // n1, n2, …
	bin   string
	dir   string // of its configuration, its logs and, in data, its data dir
	host  *host  // nil: this machine's own network
	env   []string
	extra []string // flags of every start

	client *http.Client
	lives  int
	id     string // the cluster's word for it, once it was ready
	base   string // URL of this life's HTTP face

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	result error         // of Wait, once ended is closed
}

func newNode(bin, dir, name string, h *host) (*node, error) {
	n := &node{name: name, bin: bin, dir: filepath.Join(dir, name), host: h}
	n.client = &http.Client{Transport: &http.Transport{
		DialContext:         n.dial,
		MaxIdleConnsPerHost: 256,
		DisableCompression:  true,
	}}
	return n, os.Mkdir(n.dir, 0o700)
}

// dial opens a connection from where the node is.
func (n *node) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if n.host != nil {
		return n.host.dial(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// config returns the file of the node's configuration.
func (n *node) config() string { return filepath.Join(n.dir, "desnode.yaml") }

// log returns the file that this life logs to.
func (n *node) log() string { return filepath.Join(n.dir, fmt.Sprintf("life-%d.log", n.lives)) }

// command is the program with args, run where the node is.
func (n *node) command(args ...string) *exec.Cmd {
	program := append([]string{n.bin}, args...)
	if n.host != nil {
		program = n.host.inside(program)
	}
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(environ(), n.env...)
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

// start begins a life: `desnode start`, or `desnode join …`, on any free ports.
// It returns at once.
func (n *node) start(verb ...string) error {
	args := append(verb, "--config", n.config(), "--data-dir", filepath.Join(n.dir, "data"))
	if n.host == nil {
		args = append(args, "--http", "127.0.0.1:0", "--cluster", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
	} else {
		args = append(args, "--http", "127.0.0.1:8080", "--cluster", n.host.addr+":7947", "--gossip", n.host.addr+":7946")
	}
	n.lives++
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := n.command(append(args, n.extra...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	ended := make(chan struct{})
	n.cmd, n.ended, n.base = cmd, ended, ""
	go func() {
		defer close(ended)
		n.result = cmd.Wait()
	}()
	return nil
}

// running reports whether a process of this node is there, frozen or not.
func (n *node) running() bool {
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

// ready waits until this life answers.
func (n *node) ready(ctx context.Context) error {
	err := await(ctx, n.name+" is ready", readyWithin, func(context.Context) error {
		if !n.running() {
			return nil
		}
		line, err := n.logged("node ready")
		if err != nil {
			return err
		}
		n.base = "http://" + line.HTTP
		return nil
	})
	if err == nil && !n.running() {
		err = fmt.Errorf("%s: %w: %w", n.name, errEnded, n.result)
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, n.lastWords())
	}
	var s status
	if err := n.get(ctx, "/cluster/status", &s); err != nil {
		return err
	}
	n.id = s.Node
	return nil
}

// logLine is what is looked for in the JSON lines of a node's log.
type logLine struct {
	Level string `json:"level"`
	Msg   string `json:"msg"`
	HTTP  string `json:"http"`
	Error string `json:"error"`
}

var errNotLogged = errors.New("not logged")

// logged returns the first line of this life's log with that message.
func (n *node) logged(msg string) (found logLine, err error) {
	err = errNotLogged
	scanErr := n.scanLog(func(line logLine, _ []byte) {
		if err != nil && line.Msg == msg {
			found, err = line, nil
		}
	})
	return found, errors.Join(err, scanErr)
}

// scanLog calls each for all whole lines of this life's log so far; what is
// not JSON (a panic, say) has only raw.
func (n *node) scanLog(each func(line logLine, raw []byte)) error {
	b, err := os.ReadFile(n.log())
	if err != nil {
		return err
	}
	for raw := range bytes.Lines(b) {
		var line logLine
		if json.Unmarshal(raw, &line) != nil {
			line = logLine{}
		}
		each(line, raw)
	}
	return nil
}

// lastWords is the end of this life's log, for errors.
func (n *node) lastWords() string {
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
	text := fmt.Sprintf("\n  %s's last words (%s):", n.name, n.log())
	for _, l := range last {
		text += "\n    " + l
	}
	return text
}

// cpu is the time that the cores have given to a life that is over.
func (n *node) cpu() time.Duration {
	if n.cmd == nil || n.cmd.ProcessState == nil {
		return 0
	}
	return n.cmd.ProcessState.UserTime() + n.cmd.ProcessState.SystemTime()
}

// signal sends this life a signal.
func (n *node) signal(sig syscall.Signal) error {
	if !n.running() {
		return fmt.Errorf("%s: %w", n.name, errEnded)
	}
	return n.cmd.Process.Signal(sig)
}

// freeze stops the process where it is; thaw lets it go on.
func (n *node) freeze() error { return n.signal(syscall.SIGSTOP) }
func (n *node) thaw() error   { return n.signal(syscall.SIGCONT) }

// kill ends this life with SIGKILL, frozen or not, and waits until the process
// is gone. It is an error when it was gone already.
func (n *node) kill() error {
	err := n.signal(syscall.SIGKILL)
	if n.cmd != nil {
		<-n.ended
	}
	n.client.CloseIdleConnections()
	return err
}

// stop ends this life with SIGTERM and waits until the process is gone.
func (n *node) stop(ctx context.Context) error {
	defer n.client.CloseIdleConnections()
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := n.exited(ctx, stopWithin); err != nil {
		return errors.Join(err, n.dump(ctx))
	}
	if n.result != nil {
		return fmt.Errorf("%s was told to stop: %w%s", n.name, n.result, n.lastWords())
	}
	return nil
}

// exited waits for the end of the process.
func (n *node) exited(ctx context.Context, within time.Duration) error {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-n.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("%w for %s, %s ends", errTimeout, within, n.name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// dump has a process that hangs write its goroutines to its log, which ends it.
func (n *node) dump(ctx context.Context) error {
	if !n.running() {
		return nil
	}
	err := errors.Join(n.thaw(), n.signal(syscall.SIGQUIT))
	if waitErr := n.exited(context.WithoutCancel(ctx), stackWithin); waitErr != nil {
		return errors.Join(err, waitErr)
	}
	return err
}
