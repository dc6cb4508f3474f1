package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// readyWithin is how long a node may take to become ready after a kill.
const readyWithin = time.Minute

var errEnded = errors.New("the node ended by itself")

// node is the process under test, one life after another.
type node struct {
	bin, config, log string

	addr  string // of this life
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	lives int
}

// start runs the node on a free port and returns at once.
func (n *node) start() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	n.addr = fmt.Sprintf("127.0.0.1:%d", port)
	n.lives++
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(log, "--- life %d\n", n.lives)
	n.cmd = exec.Command(n.bin, "start", "--config", n.config, "--http", n.addr) // #nosec G204 -- the binary under test
	n.cmd.Stdout, n.cmd.Stderr = log, log
	err = n.cmd.Start()
	if closeErr := log.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		n.cmd = nil
		return err
	}
	ended, cmd := make(chan struct{}), n.cmd
	n.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is seen by who looks
	}()
	return nil
}

// kill ends this life with SIGKILL and waits until the process is gone. It
// reports whether the node was still alive.
func (n *node) kill() bool {
	if n == nil || n.cmd == nil {
		return false
	}
	alive := true
	select {
	case <-n.ended:
		alive = false
	default:
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
	n.cmd = nil
	return alive
}

// ready waits until the node says it is ready.
func (n *node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready after %s", readyWithin))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if n.asksReady(ctx) {
			return nil
		}
		select {
		case <-n.ended:
			return fmt.Errorf("%w; see the end of %s", errEnded, n.log)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (n *node) asksReady(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// writeConfig writes the node's configuration: a store beside the data dir,
// small packs so that there are many, deletion at once.
func writeConfig(path, dir string) error {
	text := fmt.Sprintf(`data_dir: %q
store: {url: %q}
sources:
  files:
    url: %q
    roots: [%q]
archive: {min_age: 0s, pack_size: 4MiB, max_wait: 1s, delete_source: true, delete_grace: 0s}
`, filepath.Join(dir, "data"), "file://"+filepath.Join(dir, "store"),
		"sqlite://"+filepath.Join(dir, "files.db"), filepath.Join(dir, "src"))
	return os.WriteFile(path, []byte(text), 0o600)
}
