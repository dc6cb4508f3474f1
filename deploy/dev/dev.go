// Package dev starts the real servers that tests and developers need, a
// Postgres and an S3 server, on loopback ports of their own and in folders of
// their own, and ends them.
//
// Nothing they keep is meant to last: neither waits for the disk.
//
// Not for: production, nor any address but loopback.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// startTimeout bounds the start of a server, stopTimeout its end.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
)

// portOf returns a loopback port that was free a moment ago: the one that the
// server of dir had before, if it can be had, or any. URLs of a folder that is
// used again then stay as they were.
func portOf(ctx context.Context, dir string) (int, error) {
	note := filepath.Join(dir, "port")
	before, err := os.ReadFile(note)
	if errors.Is(err, fs.ErrNotExist) {
		before, err = []byte("0"), nil
	}
	if err != nil {
		return 0, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", string(before)))
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close(), os.WriteFile(note, []byte(port), 0o600)); err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// process is one server's process.
type process struct {
	cmd  *exec.Cmd
	log  string        // the file that holds what it printed
	done chan struct{} // closed when it has ended
	err  error         // why it ended; read after done
}

// run starts cmd with its output in a file of dir.
func run(dir, name string, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// ready waits until ok says that the server answers.
func (p *process) ready(ctx context.Context, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended: %w; it printed: %s", errors.Join(p.err, err), p.printed())
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w; it printed: %s", err, p.printed())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) printed() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stop ends the process with sig, and with SIGKILL when it does not obey.
func (p *process) stop(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return errors.Join(fmt.Errorf("pid %d had to be killed", p.cmd.Process.Pid), err)
}

// moduleRoot is the folder of this module's go.mod, at or above the working
// directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the project: there is no go.mod above the working directory")
		}
		dir = parent
	}
}
