package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
)

// history records what the clients of a cluster did, in the order in which it
// happened: virtual time stands still while things happen.
type history struct {
	clock atomic.Int64

	mu  sync.Mutex // guards ops
	ops []porcupine.Operation
}

func (h *history) now() int64 { return h.clock.Add(1) }

func (h *history) add(client int, call int64, input, output any, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Call: call, Input: input, Output: output, Return: end})
}

// check holds the history against a model.
func (h *history) check(t *testing.T, model porcupine.Model) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	result, info := porcupine.CheckOperationsVerbose(model, h.ops, time.Minute)
	if result == porcupine.Ok {
		return
	}
	t.Errorf("%d operations: %s; longest linearizable parts: %v", len(h.ops), result, info.PartialLinearizationsOperations())
	for _, op := range h.ops {
		t.Logf("client %d: %d to %d: %+v: %+v", op.ClientId, op.Call, op.Return, op.Input, op.Output)
	}
}

// storm is a cluster under clients and under faults.
type storm struct {
	*cluster
	history
	random *rand.Rand // the faults'; each client has its own
	seed   uint64
	client func(ctx context.Context, n *node, number int, random *rand.Rand)

	crews []func() // ends the clients of a node, by index
}

// clientsPerNode is enough to have two at the same thing.
const clientsPerNode = 2

// board starts the clients of a node. Those of a process end with it.
func (s *storm) board(i int) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for k := range clientsPerNode {
		number := i*clientsPerNode + k
		random := rand.New(rand.NewPCG(s.seed, uint64(number)))
		group.Go(func() {
			for ctx.Err() == nil {
				s.client(ctx, s.nodes[i], number, random)
				pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
			}
		})
	}
	s.crews[i] = func() {
		cancel()
		group.Wait()
	}
}

// blow lets faults come and go for a number of steps, then ends all clients
// and mends everything.
func (s *storm) blow(steps int) {
	for i := range s.nodes {
		s.board(i)
	}
	for range steps {
		s.fault()
		time.Sleep(time.Duration(200+s.random.IntN(8000)) * time.Millisecond) // virtual
		if s.random.IntN(2) == 0 {
			s.calm()
			time.Sleep(time.Duration(s.random.IntN(4000)) * time.Millisecond) // virtual
		}
	}
	s.calm()
	time.Sleep(5 * time.Second) // virtual
	for _, end := range s.crews {
		end()
	}
}

func (s *storm) calm() {
	s.heal()
	s.wires.set(func(w *wires) { w.lose = nil })
}

// fault brings one fault.
func (s *storm) fault() {
	one := s.random.IntN(len(s.nodes))
	if lead := s.leader(); lead >= 0 && s.random.IntN(2) == 0 {
		one = lead
	}
	side := []*node{s.nodes[one]}
	if len(s.nodes) > 3 && s.random.IntN(2) == 0 {
		side = append(side, s.others(side...)[s.random.IntN(len(s.nodes)-1)])
	}
	switch s.random.IntN(6) {
	case 0: // a minority
		s.separate(side, s.others(side...), true)
	case 1: // it hears nobody
		for _, other := range s.others(side...) {
			s.wires.cutOneWay(other.cfg.Node, side[0].cfg.Node, true)
		}
	case 2: // nobody hears it
		for _, other := range s.others(side...) {
			s.wires.cutOneWay(side[0].cfg.Node, other.cfg.Node, true)
		}
	case 3: // a third of all answers are lost
		losing := rand.New(rand.NewPCG(s.seed, s.random.Uint64())) // under the lock of wires
		s.wires.set(func(w *wires) { w.lose = func(_, _ NodeID, _ []byte) bool { return losing.IntN(3) == 0 } })
	case 4: // the leader gives up
		if lead := s.leader(); lead >= 0 {
			_ = s.nodes[lead].raft.LeadershipTransfer().Error() // or not
		}
	case 5: // a process dies and comes back
		s.crews[one]()
		if err := s.nodes[one].stop(); err != nil {
			s.t.Errorf("stop: %v", err)
		}
		time.Sleep(time.Duration(s.random.IntN(3000)) * time.Millisecond) // virtual
		s.nodes[one].run()
		s.board(one)
	}
}

// leader returns the index of a node that leads, -1: none.
func (s *storm) leader() int {
	return slices.IndexFunc(s.nodes, func(n *node) bool { return n.leading.now() != nil })
}

// weather runs clients under faults, once for each seed and size of cluster.
func weather(t *testing.T, run func(t *testing.T, s *storm)) {
	seeds := []uint64{1, 2, 3, rand.Uint64()}
	if testing.Short() {
		seeds = seeds[:1]
	}
	for i, seed := range seeds {
		nodes := 3 + i%2*2
		t.Run(fmt.Sprintf("%d nodes, seed %d", nodes, seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &storm{
					cluster: startClusterOf(t, nodes, func(c *Config) { c.LeaseTTL = 5 * time.Second }),
					random:  rand.New(rand.NewPCG(seed, 0)),
					seed:    seed,
					crews:   make([]func(), nodes),
				}
				slow := rand.New(rand.NewPCG(seed, 1))
				s.wires.set(func(w *wires) {
					w.delay = func(_, _ NodeID, _ []byte) time.Duration {
						return time.Duration(slow.IntN(20)) * time.Millisecond
					}
				})
				run(t, s)
			})
		})
	}
}

// TestLeasesAreLocks: however leaders, wires and processes fail, nobody's work
// under a lease goes on when somebody else's has begun.
func TestLeasesAreLocks(t *testing.T) {
	type step struct {
		job    Job
		locked bool
	}
	lock := porcupine.Model{
		Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
			byJob := map[string][]porcupine.Operation{}
			for _, op := range ops {
				name := op.Input.(step).job.String()
				byJob[name] = append(byJob[name], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byJob {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return false },
		Step: func(held, input, _ any) (bool, any) {
			return held != input.(step).locked, input.(step).locked
		},
	}
	weather(t, func(t *testing.T, s *storm) {
		jobs := []Job{{Kind: JobCollect}, {Kind: JobMark, Source: "files"}}
		var held, lost atomic.Int64
		s.client = func(ctx context.Context, n *node, number int, random *rand.Rand) {
			job := jobs[random.IntN(len(jobs))]
			length := time.Duration(random.IntN(12_000)) * time.Millisecond
			called := s.now()
			_ = n.WithLease(ctx, job, func(ctx context.Context, _ Lease) error { // a fault's, or another's turn
				held.Add(1)
				s.add(number, called, step{job, true}, nil, s.now())
				if !pause(ctx, length) && !errors.Is(context.Cause(ctx), context.Canceled) {
					lost.Add(1)
				}
				at := s.now()
				s.add(number, at, step{job, false}, nil, s.now())
				return nil
			})
		}
		s.blow(20)
		s.check(t, lock)
		t.Logf("%d leases held, %d of them lost", held.Load(), lost.Load())
		if held.Load() < 10 {
			t.Error("hardly anything was leased")
		}
		s.converge()
	})
}

// TestManifestIsLinearizable: what a client was told is in the manifest, each
// confirmed view holds, on whatever node; and no view holds less than one
// before it.
func TestManifestIsLinearizable(t *testing.T) {
	const packs = 60 // bits of a word; 0: a confirmed look
	set := porcupine.Model{
		Init: func() any { return uint64(0) },
		Step: func(have, input, output any) (bool, any) {
			if n := input.(int); n > 0 {
				return true, have.(uint64) | 1<<n
			}
			return have == output, have
		},
	}
	weather(t, func(t *testing.T, s *storm) {
		var next, looks, unknown atomic.Int64
		add := func(ctx context.Context, n *node, number int) {
			id := int(next.Add(1))
			if id > packs {
				return
			}
			job := Job{Kind: JobPack, Range: mustRange(t, fmt.Sprintf("%02x/8", id))}
			_ = n.WithLease(ctx, job, func(ctx context.Context, l Lease) error { // what counts is recorded
				if err := n.BeginUpload(ctx, testUpload(l, packID(uint64(id)))); err != nil {
					return err
				}
				called := s.now()
				_, err := n.AddPack(ctx, testPack(l, packID(uint64(id))))
				end := s.now()
				if err != nil {
					unknown.Add(1)
					end = 1 << 62 // it may take effect at any time
				}
				s.add(number, called, id, nil, end)
				return err
			})
		}
		s.client = func(ctx context.Context, n *node, number int, random *rand.Rand) {
			if random.IntN(40) == 0 {
				add(ctx, n, number)
				return
			}
			called := s.now()
			v, err := n.Confirm(ctx)
			if err != nil {
				return
			}
			looks.Add(1)
			s.add(number, called, 0, manifestBits(v, packs), s.now())
		}
		s.blow(20)
		for _, n := range s.nodes {
			called := s.now()
			v, err := n.Confirm(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.add(99, called, 0, manifestBits(v, packs), s.now())
		}
		s.check(t, set)
		t.Logf("%d packs, %d outcomes unknown, %d looks", min(next.Load(), packs), unknown.Load(), looks.Load())
		if looks.Load() < 20 || next.Load() < 10 {
			t.Error("hardly anything was done")
		}
		s.converge()
	})
}

func manifestBits(v *View, packs int) (bits uint64) {
	for i := range packs {
		if v.Pack(packID(uint64(i+1))) != nil {
			bits |= 1 << (i + 1)
		}
	}
	return bits
}
