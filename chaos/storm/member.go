package main

import (
	"context"
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

	node  *rig.Node // of its owner
	nodes int       // so many there have been; of its owner

	mu     sync.Mutex // guards what follows
	client *http.Client
	base   *url.URL        // nil: no process has an HTTP face
	ended  <-chan struct{} // closed when that process has ended
	fit    time.Time       // zero: something is done to it
}

// Name is that of the place, which stays when its node is replaced.
func (m *member) Name() string { return m.name }

// Do sends a request to the node that is there now.
func (m *member) Do(req *http.Request) (*http.Response, error) {
	m.mu.Lock()
	base, client := m.base, m.client
	m.mu.Unlock()
	if base == nil {
		return nil, fmt.Errorf("%s: %w", m.name, errClosed)
	}
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = base.Scheme, base.Host
	return client.Do(req)
}

// Fit says since when nothing is done to the node.
func (m *member) Fit() (since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fit.IsZero() {
		return time.Time{}, false
	}
	select {
	case <-m.ended:
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
	m.fit, m.base = time.Time{}, nil
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
	base, err := url.Parse(m.node.Base)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.client, m.base, m.ended = m.node.Client, base, m.node.Ended()
	m.mu.Unlock()
	m.well()
	return nil
}

// kill ends the process at once.
func (m *member) kill() error {
	m.retire()
	err := m.node.Kill()
	m.gone()
	return err
}

// members asks the node for the members it knows.
func (m *member) members(ctx context.Context) (rig.MemberList, error) { return m.node.Members(ctx) }

// setClock steps the node's clock to that much beside the machine's.
func (m *member) setClock(offset time.Duration) error {
	next := m.clock + ".next"
	if err := os.WriteFile(next, []byte(strconv.FormatInt(int64(offset/time.Second), 10)), 0o600); err != nil {
		return err
	}
	return os.Rename(next, m.clock)
}

// ended is why the last life ended, from its log, in one line.
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

// filler is the file that takes what is left of the node's disk.
func (m *member) filler() string { return filepath.Join(m.node.Data(), "filler") }
