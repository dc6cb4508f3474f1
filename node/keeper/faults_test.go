package keeper

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

var (
	errInjected = errors.New("injected fault")
	errCrashed  = errors.New("the process is dead")
)

// fault is how one call fails.
type fault int

const (
	notApplied    fault = iota // nothing happens, an error comes back
	appliedFailed              // it happens, an error comes back
	crashAfter                 // it happens, and the process is dead from then on
)

// faults counts the calls that go out of a keeper, makes one of them fail, and
// looks at the world after each.
type faults struct {
	mu    sync.Mutex // guards what follows
	calls []string
	at    int                   // 1 for the first call; 0: none
	mode  fault                 // of that call
	on    func(op string) error // before each call; its error is the call's
	after func(op string)
	dead  bool
}

// do is one call.
func (f *faults) do(op string, call func() error) error {
	f.mu.Lock()
	f.calls = append(f.calls, op)
	hit := f.at == len(f.calls)
	dead, on, after, mode := f.dead, f.on, f.after, f.mode
	if hit && mode == crashAfter {
		f.dead = true
	}
	f.mu.Unlock()
	if dead {
		return errCrashed
	}
	if hit && mode == notApplied {
		return errInjected
	}
	if on != nil {
		if err := on(op); err != nil {
			return err
		}
	}
	err := call()
	if after != nil {
		after(op)
	}
	switch {
	case hit && mode == appliedFailed:
		return errInjected
	case hit && mode == crashAfter:
		return errCrashed
	}
	return err
}

// reset forgets the calls and the faults: a new process.
func (f *faults) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at, f.on, f.after, f.dead = nil, 0, nil, nil, false
}

type faultyTable struct {
	source.Table
	f *faults
}

func (t faultyTable) Acknowledge(ctx context.Context, acks []source.Ack, limit int, at time.Time) (r []source.AckResult, err error) {
	err = t.f.do("rows.Acknowledge", func() (err error) { r, err = t.Table.Acknowledge(ctx, acks, limit, at); return err })
	return r, err
}

func (t faultyTable) Deletable(ctx context.Context, p desformat.PackID, before time.Time, after string, n int) (r []source.Row, err error) {
	err = t.f.do("rows.Deletable", func() (err error) { r, err = t.Table.Deletable(ctx, p, before, after, n); return err })
	return r, err
}

func (t faultyTable) Claim(ctx context.Context, row source.Row, claim string) (ok bool, err error) {
	err = t.f.do("rows.Claim", func() (err error) { ok, err = t.Table.Claim(ctx, row, claim); return err })
	return ok, err
}

func (t faultyTable) Unclaim(ctx context.Context, row source.Row, claim, code, text string, at time.Time) error {
	return t.f.do("rows.Unclaim", func() error { return t.Table.Unclaim(ctx, row, claim, code, text, at) })
}

func (t faultyTable) Deleted(ctx context.Context, row source.Row, claim string, at time.Time) (ok bool, err error) {
	err = t.f.do("rows.Deleted", func() (err error) { ok, err = t.Table.Deleted(ctx, row, claim, at); return err })
	return ok, err
}

func (t faultyTable) Sharing(ctx context.Context, row source.Row, id string, paths []string) (n int, err error) {
	err = t.f.do("rows.Sharing", func() (err error) { n, err = t.Table.Sharing(ctx, row, id, paths); return err })
	return n, err
}

func (t faultyTable) ByID(ctx context.Context, id string) (row source.Row, err error) {
	err = t.f.do("rows.ByID", func() (err error) { row, err = t.Table.ByID(ctx, id); return err })
	return row, err
}

type faultyFiles struct {
	source.Originals
	f *faults
}

func (o faultyFiles) Open(ctx context.Context, path string) (r source.Original, err error) {
	err = o.f.do("files.Open", func() (err error) { r, err = o.Originals.Open(ctx, path); return err })
	return closedOn(r, err)
}

func (o faultyFiles) OpenHidden(ctx context.Context, path string) (r source.Original, err error) {
	err = o.f.do("files.OpenHidden", func() (err error) { r, err = o.Originals.OpenHidden(ctx, path); return err })
	return closedOn(r, err)
}

// closedOn closes what a call opened whose answer was lost.
func closedOn(r source.Original, err error) (source.Original, error) {
	if err != nil && r != nil {
		err = errors.Join(err, r.Close())
		r = nil
	}
	return r, err
}

func (o faultyFiles) Same(ctx context.Context, other string) (p []string, err error) {
	err = o.f.do("files.Same", func() (err error) { p, err = o.Originals.Same(ctx, other); return err })
	return p, err
}

func (o faultyFiles) Hide(ctx context.Context, path string) error {
	return o.f.do("files.Hide", func() error { return o.Originals.Hide(ctx, path) })
}

func (o faultyFiles) PutBack(ctx context.Context, path string) (at string, err error) {
	err = o.f.do("files.PutBack", func() (err error) { at, err = o.Originals.PutBack(ctx, path); return err })
	return at, err
}

func (o faultyFiles) Remove(ctx context.Context, path string, judged source.Info) error {
	return o.f.do("files.Remove", func() error { return o.Originals.Remove(ctx, path, judged) })
}

func (o faultyFiles) VersionGone(ctx context.Context, path, version string) (gone bool, err error) {
	v, ok := o.Originals.(versioned)
	if !ok {
		return false, nil
	}
	err = o.f.do("files.VersionGone", func() (err error) { gone, err = v.VersionGone(ctx, path, version); return err })
	return gone, err
}

type faultyStore struct {
	store.Store
	f *faults
}

func (s faultyStore) Get(ctx context.Context, key, version string, off, n int64) (r io.ReadCloser, err error) {
	err = s.f.do("store.Get", func() (err error) { r, err = s.Store.Get(ctx, key, version, off, n); return err })
	if err != nil && r != nil {
		err = errors.Join(err, r.Close())
		r = nil
	}
	return r, err
}

func (s faultyStore) Head(ctx context.Context, key, version string) (o store.Object, err error) {
	err = s.f.do("store.Head", func() (err error) { o, err = s.Store.Head(ctx, key, version); return err })
	return o, err
}

func (s faultyStore) Move(ctx context.Context, from, to string) error {
	return s.f.do("store.Move", func() error { return s.Store.Move(ctx, from, to) })
}

func (s faultyStore) Delete(ctx context.Context, key string) error {
	return s.f.do("store.Delete", func() error { return s.Store.Delete(ctx, key) })
}

type faultyCommands struct {
	Commands
	f *faults
}

func (c faultyCommands) AckPack(ctx context.Context, p desformat.PackID, dead []uint32) error {
	return c.f.do("meta.AckPack", func() error { return c.Commands.AckPack(ctx, p, dead) })
}

func (c faultyCommands) VerifyPack(ctx context.Context, p desformat.PackID, seen, found raftmeta.Copy) error {
	return c.f.do("meta.VerifyPack", func() error { return c.Commands.VerifyPack(ctx, p, seen, found) })
}

func (c faultyCommands) ForgetUpload(ctx context.Context, key string) error {
	return c.f.do("meta.ForgetUpload", func() error { return c.Commands.ForgetUpload(ctx, key) })
}

func (c faultyCommands) Set(ctx context.Context, key string, value []byte, mod uint64) error {
	return c.f.do("meta.Set", func() error { return c.Commands.Set(ctx, key, value, mod) })
}

type faultyManifest struct {
	Manifest
	f *faults
}

func (m faultyManifest) Confirm(ctx context.Context) (v *raftmeta.View, err error) {
	err = m.f.do("meta.Confirm", func() (err error) { v, err = m.Manifest.Confirm(ctx); return err })
	return v, err
}

func (m faultyManifest) AppliedEverywhere(index uint64) bool {
	if err := m.f.do("meta.AppliedEverywhere", func() error { return nil }); err != nil {
		return false
	}
	return m.Manifest.AppliedEverywhere(index)
}

func (m faultyManifest) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	if err := m.f.do("meta.WithLease", func() error { return nil }); err != nil {
		return err
	}
	return m.Manifest.WithLease(ctx, job, work)
}

// countingAcks acknowledges everything and notes how much at once.
type countingAcks struct {
	source.Table
	batches []int
}

func (c *countingAcks) Acknowledge(_ context.Context, acks []source.Ack, _ int, _ time.Time) ([]source.AckResult, error) {
	c.batches = append(c.batches, len(acks))
	return make([]source.AckResult, len(acks)), nil // AckDone
}
