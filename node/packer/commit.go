package packer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// causePack is the cause of the packer's requests to the store.
const causePack = "pack"

// commit uploads a sealed pack and adds it to the manifest. Only when it
// returns nil does the pack certainly exist; after an error it may, and then
// the keeper acknowledges it, or else collects the object.
func (b *build) commit(ctx context.Context) (*raftmeta.Pack, error) {
	ctx = store.WithCause(ctx, causePack)
	p, f := b.p, b.footer
	key := desformat.PackKey(b.rng, b.lease.Token, b.id)
	announce := raftmeta.Upload{Key: key, Pack: b.id, Token: b.lease.Token, BeganAt: p.cfg.Now()}
	err := p.retry(ctx, "announce", func() error { return p.cfg.Manifest.BeginUpload(ctx, announce) })
	if err != nil {
		return nil, err
	}
	stored, err := p.upload(ctx, key, b.content(), f.Size)
	if err != nil {
		return nil, err
	}
	var added *raftmeta.Pack
	err = p.retry(ctx, "commit", func() (err error) {
		added, err = p.cfg.Manifest.AddPack(ctx, raftmeta.Pack{
			ID: b.id, Token: b.lease.Token, Range: b.rng, Size: f.Size, SHA256: f.SHA256,
			Records: f.Records, PayloadBytes: f.PayloadBytes, Catalog: f.Catalog, Index: f.Index,
			MinSeq: f.MinSeq, MaxSeq: f.MaxSeq, Created: f.Created,
			Copies: []raftmeta.Copy{{Key: key, Version: stored.Version}},
		})
		return err
	})
	return added, err
}

// upload creates the object and asks the store what it holds now.
func (p *Packer) upload(ctx context.Context, key string, body store.Body, size int64) (store.Object, error) {
	var put, head store.Object
	err := p.retry(ctx, "upload", func() (err error) {
		put, err = p.cfg.Store.Put(ctx, key, body, size)
		if errors.Is(err, store.ErrExists) {
			// The key holds this build's random id: an earlier attempt of ours
			// did arrive. The look at the object below has the last word.
			put, err = store.Object{}, nil
		}
		return err
	})
	if err != nil {
		return store.Object{}, err
	}
	err = p.retry(ctx, "check", func() (err error) {
		head, err = p.cfg.Store.Head(ctx, key, put.Version)
		return err
	})
	if err != nil {
		return store.Object{}, err
	}
	if head.Size != size || put.Version != "" && head.Version != put.Version {
		return store.Object{}, fmt.Errorf("object %s has %d bytes and version %q, sent were %d bytes and version %q: %w",
			key, head.Size, head.Version, size, put.Version, ErrMismatch)
	}
	return head, nil
}

const firstPause = 200 * time.Millisecond

// hopelessErrors stay what they are however often a step is repeated.
var hopelessErrors = []error{raftmeta.ErrStale, raftmeta.ErrNoUpload, raftmeta.ErrInvalid, raftmeta.ErrClosed}

// retry repeats a step that may be repeated, with doubling pauses, until it
// succeeds, can't any more, or has failed often enough.
func (p *Packer) retry(ctx context.Context, step string, f func() error) error {
	pause := firstPause
	for attempt := 0; ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		hopeless := slices.ContainsFunc(hopelessErrors, func(target error) bool { return errors.Is(err, target) })
		if hopeless || attempt >= p.cfg.PutRetries || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		p.metrics.retries.Inc()
		p.cfg.Logger.WarnContext(ctx, "step tried again", "step", step, "err", err, "wait", pause)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", step, err)
		case <-time.After(pause):
		}
		pause *= 2
	}
}
