package raftmeta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

// Journal is the log of committed commands, and nothing else: what a cluster of
// Locals keeps when all of them have ended. It may be used by any number of
// Locals at once.
type Journal struct {
	mu      sync.Mutex // guards entries; held while a command is committed
	entries [][]byte   // entries[i] has index i+1; never changed in place
}

// Copy returns the journal as it is now, to go back to.
func (j *Journal) Copy() *Journal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &Journal{entries: slices.Clone(j.entries)}
}

// Len returns the index of the last command.
func (j *Journal) Len() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(len(j.entries))
}

// Local is the state machine without Raft below it, for tests and tools: it has
// the methods of Meta by which the write path works, and holds each command
// against the very state machine that Meta drives, encoded as in Raft's log. A
// command is committed when it stands in the journal, and at once.
//
// It elects nobody, sends nothing and starts no goroutine. Leases have no
// timers: they end with their work, by Expire, or with the Local, whose
// successor on the journal releases them as Meta's does.
type Local struct {
	cfg     LocalConfig
	machine *machine
}

// LocalConfig says which node a Local is. Node, Cluster and Journal have no
// default.
type LocalConfig struct {
	Node       NodeID
	Cluster    desformat.ClusterID
	Journal    *Journal
	ShardBits  uint8  // 0: the cluster's own, 10 when it is formed
	Generation uint64 // 0: the cluster's own, 1 when it is formed

	// Through, unless nil, is called for every command and confirmation, with
	// the command's kind in the log, or "confirm", and do to carry it out. What it
	// returns is the caller's answer, so that an answer may be lost.
	Through func(ctx context.Context, what string, do func() error) error
}

// OpenLocal applies the journal, forms the cluster when it is empty, and
// releases what an earlier Local of this node has held.
func OpenLocal(cfg LocalConfig) (*Local, error) {
	if cfg.Node == "" || cfg.Journal == nil || cfg.Cluster == (desformat.ClusterID{}) {
		return nil, fmt.Errorf("raftmeta local: Node, Cluster and Journal are required: %w", ErrInvalid)
	}
	l := &Local{cfg: cfg, machine: newMachine(func(error) {})}
	if l.cfg.Through == nil {
		l.cfg.Through = func(_ context.Context, _ string, do func() error) error { return do() }
	}
	if err := l.CatchUp(); err != nil {
		return nil, err
	}
	v := l.View()
	form := formCommand{
		Cluster:    cfg.Cluster,
		ShardBits:  orDefault(cfg.ShardBits, orDefault(v.shardBits, defaultShardBits)),
		Generation: orDefault(cfg.Generation, orDefault(v.generation, 1)),
	}
	if form != (formCommand{v.cluster, v.shardBits, v.generation}) {
		if _, err := l.commit(&form); err != nil {
			return nil, err
		}
	}
	_, err := l.commit(&releaseAllCommand{Holder: cfg.Node, UpTo: l.View().applied})
	if err != nil && !errors.Is(err, ErrNotMember) {
		return nil, err
	}
	return l, nil
}

// CatchUp applies what other Locals have committed.
func (l *Local) CatchUp() error {
	l.cfg.Journal.mu.Lock()
	defer l.cfg.Journal.mu.Unlock()
	l.applyRest()
	if h := l.machine.halted.Load(); h != nil {
		return h.error
	}
	return nil
}

// applyRest applies the journal's entries that the view lacks and returns the
// answer of the last; the journal is locked.
func (l *Local) applyRest() answer {
	entries := l.cfg.Journal.entries
	var logs []*raft.Log
	for i := l.View().applied; i < uint64(len(entries)); i++ {
		logs = append(logs, &raft.Log{Index: i + 1, Term: 1, Type: raft.LogCommand, Data: entries[i]})
	}
	if len(logs) == 0 {
		return answer{}
	}
	answers := l.machine.ApplyBatch(logs)
	last, _ := answers[len(answers)-1].(answer)
	return last
}

// commit appends a command to the journal and applies it.
func (l *Local) commit(c command) (any, error) {
	data, err := encodeCommand(l.cfg.Node, c)
	if err != nil {
		return nil, err
	}
	j := l.cfg.Journal
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, data)
	a := l.applyRest()
	return a.value, a.err
}

// propose is commit by way of Config.Through.
func (l *Local) propose(ctx context.Context, c command) (value any, err error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", c.kind(), context.Cause(ctx))
	}
	err = l.cfg.Through(ctx, c.kind(), func() (err error) {
		value, err = l.commit(c)
		return err
	})
	return value, err
}

// View is Meta.View.
func (l *Local) View() *View { return l.machine.view.Load() }

// Changed is Meta.Changed.
func (l *Local) Changed() <-chan struct{} { return l.View().changed }

// Confirm is Meta.Confirm.
func (l *Local) Confirm(ctx context.Context) (*View, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnconfirmed, context.Cause(ctx))
	}
	if err := l.cfg.Through(ctx, "confirm", l.CatchUp); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	return l.View(), nil
}

// AppliedEverywhere is Meta.AppliedEverywhere. Of other members it knows what
// PutMember has said.
func (l *Local) AppliedEverywhere(index uint64) bool {
	return l.View().appliedEverywhere(l.cfg.Node, index)
}

// WithLease is Meta.WithLease, without timers.
func (l *Local) WithLease(ctx context.Context, job Job, work func(context.Context, Lease) error) error {
	value, err := l.propose(ctx, &grantCommand{Job: job, Holder: l.cfg.Node, Request: rand.Text()})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	lease, ok := value.(Lease)
	if !ok {
		return fmt.Errorf("lease: answered %T: %w", value, ErrInvalid)
	}
	err = work(context.WithValue(ctx, leaseKey{}, lease.Token), lease)
	// When that fails the lease stays until Expire ends it.
	_, _ = l.propose(context.WithoutCancel(ctx), &releaseCommand{lease.Token})
	return err
}

// Expire ends leases as the leader does whose timers have run out. Their
// holders are not told: they may stand still.
func (l *Local) Expire(tokens ...desformat.Token) error {
	for _, t := range tokens {
		if _, err := l.commit(&releaseCommand{t}); err != nil {
			return err
		}
	}
	return nil
}

// BeginUpload is Meta.BeginUpload.
func (l *Local) BeginUpload(ctx context.Context, u Upload) error {
	_, err := l.propose(ctx, &beginUploadCommand{u})
	return err
}

// ForgetUpload is Meta.ForgetUpload.
func (l *Local) ForgetUpload(ctx context.Context, key string) error {
	_, err := l.propose(ctx, &forgetUploadCommand{key})
	return err
}

// AddPack is Meta.AddPack.
func (l *Local) AddPack(ctx context.Context, p Pack) (*Pack, error) {
	value, err := l.propose(ctx, &addPackCommand{p})
	if err != nil {
		return nil, err
	}
	added, ok := value.(*Pack)
	if !ok {
		return nil, fmt.Errorf("add pack: answered %T: %w", value, ErrInvalid)
	}
	return added, nil
}

// AckPack is Meta.AckPack.
func (l *Local) AckPack(ctx context.Context, pack desformat.PackID, dead []uint32) error {
	sorted := slices.Compact(slices.Sorted(slices.Values(dead)))
	_, err := l.propose(ctx, &ackPackCommand{Pack: pack, Dead: sorted, Token: tokenOf(ctx)})
	return err
}

// VerifyPack is Meta.VerifyPack.
func (l *Local) VerifyPack(ctx context.Context, pack desformat.PackID, seen, found Copy) error {
	_, err := l.propose(ctx, &verifyPackCommand{pack, seen, found})
	return err
}

// Adopt is Meta.Adopt.
func (l *Local) Adopt(ctx context.Context, a Adoption) error { return adopt(ctx, a, l.propose) }

// Set is Meta.Set.
func (l *Local) Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error {
	_, err := l.propose(ctx, &setCommand{key, value, ifModIndex})
	return err
}

// RecordRebuild is Meta.RecordRebuild.
func (l *Local) RecordRebuild(ctx context.Context) error {
	return l.Set(ctx, rebuildKey(l.View().generation), []byte("done"), 0)
}

// PutMember is Meta.PutMember.
func (l *Local) PutMember(ctx context.Context, member Member) error {
	_, err := l.propose(ctx, &memberCommand{member})
	return err
}

// RemoveMember takes a node out of the cluster for ever, at once: nobody votes
// here.
func (l *Local) RemoveMember(ctx context.Context, id NodeID) error {
	_, err := l.propose(ctx, &removeMemberCommand{id})
	return err
}
