package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// world is the cluster of a run with all that is around it.
type world struct {
	bin  string
	dir  string // of the run
	logf func(format string, args ...any)

	servers      *rig.Servers
	postgres, s3 *proxy
	network      *rig.Network // nil: nodes share this machine's network
	disks        bool         // nodes have file systems of their own
	clocks       bool         // nodes have clocks of their own
	members      []*member
	claims       *claims

	config string
	env    []string

	kills atomic.Int64 // processes of nodes that were killed

	mu    sync.Mutex // guards what follows
	skew  time.Duration
	idle  map[string]int      // by kind: faults that hit nothing
	wrong map[string][]string // by what it is: what went wrong that no checker sees
}

// diskBytes is the size of a node's own file system: of its log and snapshots,
// and of a few packs that it builds.
const diskBytes = 192 << 20

// The ports at which a node finds the servers in its host.
const (
	postgresPort = "127.0.0.1:7432"
	s3Port       = "127.0.0.1:7480"
)

// settings are every node's. Packs are small and soon built, so that many
// things are under way at once; no file fails for good, however often a fault
// is in its way.
const settings = `store: {url: %q}
sources: {files: {url: %q, roots: [%q]}}
archive: {min_age: 1h, pack_size: 4MiB, max_wait: 2s, attempts: 1000, delete_source: true, delete_grace: 2s}
backup: {every: 30s, keep: 3}
cache: {data: 4MiB} # so that reads need the store
`

// newWorld starts the servers, the proxies and a cluster of that many nodes.
// What it returns is to be closed, also beside an error.
func newWorld(ctx context.Context, o options, dir string, logf func(string, ...any)) (*world, error) {
	w := &world{bin: o.bin, dir: dir, logf: logf, claims: newClaims((o.nodes - 1) / 2), clocks: hasTag(o.bin, "chaos"), wrong: map[string][]string{}, idle: map[string]int{}}
	for _, d := range []string{w.source(), w.incoming(), filepath.Join(dir, "servers"), filepath.Join(dir, "nodes"), filepath.Join(dir, "clocks")} {
		if err := os.Mkdir(d, 0o755); err != nil { // Postgres looks for its own, as somebody else
			return w, err
		}
	}
	var err error
	// What Postgres says it has committed must be there after its death.
	if w.servers, err = rig.StartServers(ctx, filepath.Join(dir, "servers"), "synchronous_commit=on"); err != nil {
		return w, err
	}
	w.postgres = newProxy(w.servers.Postgres.Addr(), o.seed, func() listener { return &postgresEar{} })
	w.s3 = newProxy(w.servers.S3.Addr(), o.seed+1, func() listener { return newHTTPEar() })
	if err := w.place(ctx, o.nodes); err != nil {
		return w, err
	}
	return w, w.found(ctx)
}

// hasTag reports whether a Go program was built with a tag.
func hasTag(bin, tag string) bool {
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			for one := range strings.SplitSeq(s.Value, ",") {
				if one == tag {
					return true
				}
			}
		}
	}
	return false
}

// place makes the members' hosts, where that is allowed, and the ways from
// there to the servers.
func (w *world) place(ctx context.Context, nodes int) error {
	network, err := rig.NewNetwork(ctx, nodes)
	if err != nil {
		w.logf("on this machine's own network: %v", err)
	} else {
		w.network = network
	}
	w.disks = os.Geteuid() == 0
	postgresAt, s3At := postgresPort, s3Port
	if w.network == nil {
		if postgresAt, err = open(ctx, w.postgres, nil, "127.0.0.1:0", "nodes"); err != nil {
			return err
		}
		if s3At, err = open(ctx, w.s3, nil, "127.0.0.1:0", "nodes"); err != nil {
			return err
		}
	}
	for i := range nodes {
		m := &member{name: fmt.Sprintf("n%d", i+1), clock: filepath.Join(w.dir, "clocks", fmt.Sprintf("n%d", i+1))}
		if w.disks {
			m.disk = diskBytes
		}
		if w.network != nil {
			m.host = w.network.Hosts[i]
			_, errPostgres := open(ctx, w.postgres, m.host, postgresPort, m.name)
			_, errS3 := open(ctx, w.s3, m.host, s3Port, m.name)
			if err := errors.Join(errPostgres, errS3); err != nil {
				return err
			}
		}
		w.members = append(w.members, m)
	}
	w.config = fmt.Sprintf(settings, w.servers.StoreAt(s3At), "postgres://postgres@"+postgresAt+"/postgres?sslmode=disable", w.source())
	w.env = w.servers.Environ()
	return nil
}

// open has a proxy serve a port, in a host where there is one.
func open(ctx context.Context, p *proxy, h *rig.Host, at, from string) (addr string, err error) {
	listen := func(ctx context.Context, at string) (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", at)
	}
	if h != nil {
		listen = h.Listen
	}
	port, err := listen(ctx, at)
	if err != nil {
		return "", err
	}
	p.serve(port, from)
	return port.Addr().String(), nil
}

// found forms the cluster: the first node founds it, the others join.
func (w *world) found(ctx context.Context) error {
	founder := w.members[0]
	if err := w.fresh(founder); err != nil {
		return err
	}
	if _, err := founder.node.Run(ctx, "source", "init", "files", "--apply", "--config", founder.node.Config()); err != nil {
		return err
	}
	if err := founder.start(ctx, "start"); err != nil {
		return err
	}
	for _, m := range w.members[1:] {
		verb, err := founder.node.Invite(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(w.fresh(m), m.start(ctx, verb...)); err != nil {
			return err
		}
	}
	for _, m := range w.members[min(len(w.members)-1, 1):] {
		if err := w.votes(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// fresh makes a member's next node.
func (w *world) fresh(m *member) error {
	if err := m.setClock(0); err != nil {
		return err
	}
	return m.replace(w.bin, filepath.Join(w.dir, "nodes"), w.config, w.env)
}

func (w *world) source() string   { return filepath.Join(w.dir, "originals") }
func (w *world) incoming() string { return filepath.Join(w.dir, "incoming") }

// objects is where the S3 server keeps the objects of the store.
func (w *world) objects() string { return w.servers.Object("") }

// kill ends a member's process and counts it.
func (w *world) kill(m *member) error {
	err := m.kill()
	if err == nil {
		w.kills.Add(1)
	}
	return err
}

// reviveWithin is how long a node may take to be ready again once nothing is in
// its way but faults of the servers, which last less long.
const reviveWithin = 3 * time.Minute

// revive starts a member's node, again when it ends, as whoever looks after
// services does.
func (w *world) revive(ctx context.Context, m *member, verb ...string) error {
	began := time.Now()
	for {
		err := m.start(ctx, verb...)
		if err == nil {
			return nil
		}
		if m.node.Running() {
			_ = m.node.Kill() // it is not ready in time
		}
		if ctx.Err() != nil || time.Since(began) > reviveWithin {
			w.wrongly(notBack, "%s: %v", m.name, err)
			return err
		}
		w.logf("%s did not start: %s", m.name, m.lastError())
		if err := rig.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// through asks a member other than without, one after the other until one
// answers.
func (w *world) through(ctx context.Context, without *member, ask func(context.Context, *rig.Node) error) error {
	err := errClosed
	for _, m := range w.members {
		if _, fit := m.Fit(); m == without || !fit {
			continue
		}
		if face := m.seen(); face != nil {
			if err = ask(ctx, face); err == nil {
				return nil
			}
		}
	}
	return err
}

// What goes wrong that no checker sees.
const (
	notBack  = "nodes that did not come back"
	byItself = "nodes that ended by themselves without a failing disk"
	badFault = "faults that could not be put on or taken off"
)

// wrongly notes that something happened that must not.
func (w *world) wrongly(what, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong[what] = append(w.wrong[what], fmt.Sprintf(format, args...))
	w.logf("%s: %s", what, w.wrong[what][len(w.wrong[what])-1])
}

// missed notes that a fault hit nothing.
func (w *world) missed(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle[kind]++
	w.logf("%s hit nothing", kind)
}

// skewed notes that a clock is wrong by that much.
func (w *world) skewed(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skew = max(w.skew, by.Abs())
}

// largestSkew is the largest step that a clock has made so far.
func (w *world) largestSkew() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.skew
}

// close ends everything that was started, whatever state it is in.
func (w *world) close() (err error) {
	for _, m := range w.members {
		if m.node == nil {
			continue
		}
		if m.node.Running() {
			_ = m.node.Kill() // it ends, or has
		}
		m.gone()
		m.node.Client.CloseIdleConnections()
	}
	for _, p := range []*proxy{w.postgres, w.s3} {
		if p != nil {
			p.close()
		}
	}
	if w.servers != nil {
		err = w.servers.Stop()
	}
	if w.network != nil {
		err = errors.Join(err, w.network.Close())
	}
	for _, m := range w.members {
		err = errors.Join(err, m.unmount())
	}
	return err
}
