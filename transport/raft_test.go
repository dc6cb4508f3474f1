package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// raftStreams is all that Raft's network transport needs beside a RaftLayer.
type raftStreams struct{ *RaftLayer }

func (s raftStreams) Dial(node raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.RaftLayer.Dial(string(node), timeout)
}

// raftOver returns Raft's transport over a node. One idle connection a peer is
// kept, so that a peer that restarts costs one failed call at most; Raft's
// pipelines have their own, and heartbeats alone use the pool all the time.
func raftOver(n *node) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: raftStreams{n.Raft()}, MaxPool: 1, Timeout: 2 * time.Second, MsgpackUseNewTimeFormat: true, Logger: hclog.NewNullLogger(),
	})
}

// tally is a state machine: the commands that it has applied, and much ballast
// in its snapshots.
type tally struct {
	mu       sync.Mutex // guards what follows
	n, last  uint64
	restored int
}

const ballast = 3 << 20

func (s *tally) Apply(l *raft.Log) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.last = binary.LittleEndian.Uint64(l.Data)
	return s.n
}

func (s *tally) Snapshot() (raft.FSMSnapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := binary.LittleEndian.AppendUint64(nil, s.n)
	return snapshot(append(binary.LittleEndian.AppendUint64(b, s.last), pattern(ballast)...)), nil
}

func (s *tally) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(b) != 16+ballast || string(b[16:]) != string(pattern(ballast)) {
		return errors.New("the snapshot came changed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.last = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	s.restored++
	return r.Close()
}

func (s *tally) state() (n, last uint64, restored int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.last, s.restored
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(s)
	return errors.Join(err, sink.Close())
}
func (snapshot) Release() {}

// voter is a raft node over a transport node. Its stores outlive it.
type voter struct {
	*raft.Raft
	node  *node
	trans *raft.NetworkTransport
	fsm   *tally
	log   *raft.InmemStore
	snaps *raft.InmemSnapshotStore
}

// vote runs raft on a node, with what v had before.
func (w *world) vote(n *node, v *voter) *voter {
	w.t.Helper()
	if v == nil {
		v = &voter{log: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
	}
	v.node, v.fsm, v.trans = n, &tally{}, raftOver(n)
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(n.name)
	cfg.Logger = hclog.NewNullLogger()
	cfg.TrailingLogs = 10
	cfg.SnapshotThreshold = 1 << 30 // when the test says
	r, err := raft.NewRaft(cfg, v.fsm, v.log, v.log, v.snaps, v.trans)
	if err != nil {
		w.t.Fatal(err)
	}
	v.Raft = r
	return v
}

// stop ends raft, then its transport and its node.
func (v *voter) stop(t *testing.T) {
	t.Helper()
	if err := v.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	if err := v.trans.Close(); err != nil {
		t.Error(err)
	}
	v.node.halt()
}

// leader waits for one that all of them know.
func leader(t *testing.T, voters ...*voter) *voter {
	t.Helper()
	for range 600 {
		time.Sleep(100 * time.Millisecond)
		known := map[raft.ServerID]int{}
		for _, v := range voters {
			_, id := v.LeaderWithID()
			known[id]++
		}
		for _, v := range voters {
			if known[raft.ServerID(v.node.name)] == len(voters) && v.State() == raft.Leader {
				return v
			}
		}
	}
	t.Fatal("no leader in a minute")
	return nil
}

// apply has the leader take n commands, numbered from the one after from.
func (v *voter) apply(t *testing.T, from, n uint64) {
	t.Helper()
	var all []raft.ApplyFuture
	for i := range n {
		all = append(all, v.Apply(binary.LittleEndian.AppendUint64(nil, from+i+1), 0))
	}
	for i, f := range all {
		if err := f.Error(); err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
	}
}

// follows waits until v has applied n commands.
func (v *voter) follows(t *testing.T, n uint64) {
	t.Helper()
	for range 300 {
		if got, last, _ := v.fsm.state(); got == n && last == n {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	got, last, _ := v.fsm.state()
	t.Fatalf("node %s has %d commands, the last %d, not %d", v.node.name, got, last, n)
}

// Raft's own network transport over the layer: an election, commands, a leader
// that dies, a node that comes back at another port and needs a snapshot.
func TestRaftOverTheLayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var voters []*voter
		var servers []raft.Server
		for i, name := range []string{"a", "b", "c"} {
			voters = append(voters, w.vote(w.start(name, i+1, nil), nil))
			servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
		}
		if err := voters[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			t.Fatal(err)
		}
		first := leader(t, voters...)
		first.apply(t, 0, 1000)
		for _, v := range voters {
			v.follows(t, 1000)
		}
		var made float64
		for _, v := range voters {
			made += testutil.ToFloat64(v.node.m.raft.handshakesOut)
		}
		if made > 20 {
			t.Errorf("%v handshakes for an election and 1000 commands: connections are not kept", made)
		}

		// The leader dies, the others go on without it.
		first.stop(t)
		var rest []*voter
		for _, v := range voters {
			if v != first {
				rest = append(rest, v)
			}
		}
		second := leader(t, rest...)
		second.apply(t, 1000, 1000)
		if err := second.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}

		// It comes back elsewhere and is told by a snapshot.
		id, err := LoadIdentity(w.path(first.node.name), nil)
		if err != nil {
			t.Fatal(err)
		}
		back := w.vote(w.run(id, 9, nil), first)
		back.follows(t, 2000)
		if _, _, restored := back.fsm.state(); restored == 0 {
			t.Error("no snapshot was installed")
		}
		third := leader(t, append(rest, back)...)
		third.apply(t, 2000, 10)
		for _, v := range append(rest, back) {
			v.follows(t, 2010)
		}
		for _, v := range append(rest, back) {
			v.stop(t)
		}
	})
}

// A member that is removed loses its raft connections, pooled ones too, and gets
// no new one; what it asks is not answered.
func TestRaftOfARemovedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, func(c *Config) { c.Allowed = func(string) bool { return true } })
		b := w.start("b", 2, nil)
		from, to := raftOver(a), raftOver(b)
		var answers answering
		answers.run(to)
		if err := heartbeat(from, "b"); err != nil {
			t.Fatal(err)
		}
		w.remove("a")
		b.Recheck()
		for range 3 {
			if err := heartbeat(from, "b"); err == nil {
				t.Error("a removed member was answered")
			}
		}
		answers.end(t, from, to)
		if answers.n != 1 {
			t.Errorf("%d calls were answered", answers.n)
		}
	})
}

// A peer that restarts, at its address or another, costs one failed call at most,
// however many ran before.
func TestRaftPeerRestarts(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
	}{{"at its address", 2}, {"at another", 3}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, b := w.start("a", 1, nil), w.start("b", 2, nil)
				from, to := raftOver(a), raftOver(b)
				var answers answering
				answers.run(to)
				var calls sync.WaitGroup
				for range 10 { // each on a connection of its own
					calls.Go(func() {
						if err := heartbeat(from, "b"); err != nil {
							t.Error(err)
						}
					})
				}
				calls.Wait()
				answers.end(t, to)
				b.halt()
				id, err := LoadIdentity(w.path("b"), nil)
				if err != nil {
					t.Fatal(err)
				}
				to = raftOver(w.run(id, tt.n, nil))
				answers.run(to)
				time.Sleep(time.Second)
				failed := 0
				for range 10 {
					if err := heartbeat(from, "b"); err != nil {
						failed++
					}
				}
				if failed > 1 {
					t.Errorf("%d calls failed", failed)
				}
				answers.end(t, from, to)
			})
		})
	}
}

func heartbeat(from *raft.NetworkTransport, to string) error {
	var resp raft.AppendEntriesResponse
	return from.AppendEntries(raft.ServerID(to), raft.ServerAddress(to), &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: 1,
	}, &resp)
}

// answering takes the place of raft behind a transport.
type answering struct {
	n    int
	stop chan struct{}
	done sync.WaitGroup
}

func (a *answering) run(trans *raft.NetworkTransport) {
	stop := make(chan struct{})
	a.stop = stop
	a.done.Go(func() {
		for {
			select {
			case rpc := <-trans.Consumer():
				a.n++
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	})
}

func (a *answering) end(t *testing.T, all ...*raft.NetworkTransport) {
	t.Helper()
	close(a.stop)
	a.done.Wait()
	for _, trans := range all {
		trans.CloseStreams()
		if err := trans.Close(); err != nil {
			t.Error(err)
		}
	}
}
