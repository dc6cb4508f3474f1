package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// member is one place in the cluster: a host and, there, one node after
// another, each in several lives. Only who has claimed it touches its node; its
// methods as a door may be called by anybody.
type member struct {
	name  string
	host  *rig.Host // nil: this machine's own network
	clock string    // file with the offset of its clock, in seconds
	disk  int       // bytes of its own file system; 0: it has none

	node    *rig.Node // of its owner
	nodes   int       // so many there have been; of its owner
	trace   string    // file that tells which system calls were tampered with last; of its owner
	mounted []string  // their data dirs, where they have file systems of their own; of its owner

	mu   sync.Mutex // guards what follows
	face *rig.Node  // the node as it was when this life was ready; nil: nobody answers
	fit  time.Time  // zero: something is done to it
}

// Name is that of the place, which stays when its node is replaced.
func (m *member) Name() string { return m.name }

// Do sends a request to the node that is there now.
func (m *member) Do(req *http.Request) (*http.Response, error) {
	face := m.seen()
	if face == nil {
		return nil, fmt.Errorf("%s: %w", m.name, errClosed)
	}
	base, err := url.Parse(face.Base)
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = base.Scheme, base.Host
	return face.Client.Do(req)
}

// seen is the node as anybody may use it: to ask, not to touch. nil: nobody
// answers.
func (m *member) seen() *rig.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.face
}

// Fit says since when nothing is done to the node.
func (m *member) Fit() (since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fit.IsZero() || m.face == nil {
		return time.Time{}, false
	}
	select {
	case <-m.face.Ended():
		return time.Time{}, false
	default:
		return m.fit, true
	}
}

// retire says that something is about to be done to the node.
func (m *member) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fit = time.Time{}
}

// gone says that no process has the HTTP face any more.
func (m *member) gone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fit, m.face = time.Time{}, nil
}

// well says that nothing is done to the node from now on.
func (m *member) well() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fit = time.Now()
}

// replace makes the folder of the place's next node, with that configuration.
func (m *member) replace(bin, dir, config string, env []string) error {
	m.nodes++
	name := m.name
	if m.nodes > 1 {
		name += "-" + strconv.Itoa(m.nodes)
	}
	n, err := rig.NewNode(bin, dir, name, m.host)
	if err != nil {
		return err
	}
	if m.disk > 0 {
		if err := os.Mkdir(n.Data(), 0o700); err != nil {
			return err
		}
		if err := rig.MountMemory(n.Data(), m.disk); err != nil {
			return err
		}
		m.mounted = append(m.mounted, n.Data())
	}
	n.Env = append([]string{"DESNODE_CHAOS_CLOCK=" + m.clock}, env...)
	m.node = n
	return os.WriteFile(n.Config(), []byte(config), 0o600)
}

// start begins a life of the node and waits until it is ready. A process that
// ends is a failure of this start.
func (m *member) start(ctx context.Context, verb ...string) error {
	if err := m.node.Start(verb...); err != nil {
		return err
	}
	if err := m.node.Ready(ctx); err != nil {
		return err
	}
	face := *m.node
	m.mu.Lock()
	defer m.mu.Unlock()
	m.face, m.fit = &face, time.Now()
	return nil
}

// kill ends the process at once.
func (m *member) kill() error {
	m.retire()
	err := m.node.Kill()
	m.gone()
	return err
}

// setClock steps the node's clock to that much beside the machine's.
func (m *member) setClock(offset time.Duration) error {
	next := m.clock + ".next"
	if err := os.WriteFile(next, []byte(strconv.FormatInt(int64(offset/time.Second), 10)), 0o600); err != nil {
		return err
	}
	return os.Rename(next, m.clock)
}

// lastError is why the last life ended, from its log, in one line.
func (m *member) lastError() string {
	last := "nothing is logged"
	err := m.node.ScanLog(func(line rig.LogLine, raw []byte) {
		if line.Level == "ERROR" || line.Msg == "" {
			last = strings.TrimSpace(string(raw[:min(len(raw), 400)]))
		}
	})
	if err != nil {
		return err.Error()
	}
	return last
}

// unmount takes the file systems of all the place's nodes away.
func (m *member) unmount() (err error) {
	if m.disk == 0 {
		return nil
	}
	for _, dir := range m.mounted {
		err = errors.Join(err, rig.Unmount(dir))
	}
	return err
}

// filler is the file that takes what is left of the node's disk.
func (m *member) filler() string { return filepath.Join(m.node.Data(), "filler") }
