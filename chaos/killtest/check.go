package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	readers       = 8
	maxViolations = 50
)

// violations collects what did not hold.
type violations struct {
	mu   sync.Mutex // guards what follows
	all  []string
	more int
}

func (v *violations) add(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.all) >= maxViolations {
		v.more++
		return
	}
	v.all = append(v.all, fmt.Sprintf(format, args...))
}

func (v *violations) tooMany() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.all) >= maxViolations
}

func (v *violations) list() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.more > 0 {
		return append(v.all, fmt.Sprintf("and %d more", v.more))
	}
	return v.all
}

// checkOriginals looks for every original while the node is dead, and returns
// how many are gone so far.
func (r *run) checkOriginals(killed time.Time) (gone int) {
	for _, f := range r.led.files[:r.led.made] {
		path := filepath.Join(r.src, filepath.FromSlash(f.name))
		hidden := quarantinePath(path)
		at, atErr := sizeOf(path)
		hid, hidErr := sizeOf(hidden)
		switch {
		case atErr == nil && hidErr == nil:
			r.bad.add("original %q is both at its path and in quarantine", f.name)
		case atErr == nil && at != f.size:
			r.bad.add("original %q has %d bytes, not %d", f.name, at, f.size)
		case atErr == nil && f.gone:
			r.bad.add("original %q is back after it was deleted", f.name)
		case atErr == nil:
		case !errors.Is(atErr, fs.ErrNotExist) || hidErr != nil && !errors.Is(hidErr, fs.ErrNotExist):
			r.bad.add("original %q: %v", f.name, errors.Join(atErr, hidErr))
		case hidErr == nil:
			if ok, err := f.whole(hidden); !ok || hid != f.size {
				r.bad.add("quarantined original %q is not what it was: %v", f.name, err)
			}
		default:
			gone++
			if _, known := r.missing[f]; !known && !f.gone {
				r.missing[f] = killed
			}
		}
	}
	return gone
}

func sizeOf(path string) (int64, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// checkAlive holds a node that has just become ready against the ledger.
func (r *run) checkAlive(ctx context.Context, c client) error {
	if err := r.checkStore(ctx, c); err != nil {
		return err
	}
	if err := r.checkMissing(ctx, c); err != nil {
		return err
	}
	return r.checkRead(ctx, c, r.led.sample(r.rnd, r.o.sample))
}

// checkStore finds objects that the node can't name. The folder comes first:
// what is in it was announced before.
func (r *run) checkStore(ctx context.Context, c client) error {
	keys, err := r.objects()
	if err != nil {
		return err
	}
	packs, err := r.packs(ctx, c)
	if err != nil {
		return err
	}
	var s status
	if err := c.getJSON(ctx, "/cluster/status", &s); err != nil {
		return err
	}
	// An upload that is committed between the two answers is in the second one.
	later, err := r.packs(ctx, c)
	if err != nil {
		return err
	}
	known := map[string]bool{"cluster.json": true}
	for _, u := range s.Uploads {
		known[u.Key] = true
	}
	for _, p := range packs {
		known[p.Key] = true
	}
	for _, p := range later {
		known[p.Key] = true
	}
	for _, key := range unknownObjects(keys, known) {
		r.bad.add("life %d: object %s is neither a pack nor an announced upload", r.node.lives, key)
	}
	return nil
}

// unknownObjects returns the keys that nothing explains.
func unknownObjects(keys []string, known map[string]bool) (out []string) {
	for _, key := range keys {
		switch top, _, _ := strings.Cut(key, "/"); {
		case known[key], top == "generations", top == "quarantine", top == "tmp":
		default:
			out = append(out, key)
		}
	}
	return out
}

// objects lists the files of the store's folder as object keys.
func (r *run) objects() (keys []string, err error) {
	err = filepath.WalkDir(r.store, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that went meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(r.store, path)
		keys = append(keys, filepath.ToSlash(key))
		return err
	})
	return keys, err
}

func (r *run) packs(ctx context.Context, c client) (map[string]packInfo, error) {
	var l packList
	if err := c.getJSON(ctx, "/cluster/packs", &l); err != nil {
		return nil, err
	}
	out := make(map[string]packInfo, len(l.Packs))
	for _, p := range l.Packs {
		out[p.ID] = p
	}
	return out, nil
}

// checkMissing asks for the packs of originals that were gone: each must have
// been verified before the node was killed.
func (r *run) checkMissing(ctx context.Context, c client) error {
	if len(r.missing) == 0 {
		return nil
	}
	packs, err := r.packs(ctx, c)
	if err != nil {
		return err
	}
	var files []*file
	for f := range r.missing {
		files = append(files, f)
	}
	err = each(ctx, files, func(f *file) error {
		var l located
		if err := c.getJSON(ctx, "/cluster/locate/"+escape(f.name), &l); err != nil {
			if errors.Is(err, errStatus) {
				r.bad.add("original %q is gone and can't be located: %v", f.name, err)
				return nil
			}
			return err
		}
		if why := unproven(l, packs[l.Pack], r.missing[f]); why != "" {
			r.bad.add("original %q was gone while the node was dead, but %s", f.name, why)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for f := range r.missing {
		f.gone = true
	}
	clear(r.missing)
	return nil
}

// unproven says why an original should not have been deleted by then; "" when
// all is well.
func unproven(l located, p packInfo, by time.Time) string {
	switch {
	case l.In != "pack" || l.Pack == "" || p.ID != l.Pack:
		return fmt.Sprintf("it is in no pack (%q)", l.In)
	case len(p.Copies) == 0:
		return "its pack " + p.ID + " has no copy"
	case p.Copies[0].Damage != "":
		return "its pack " + p.ID + " is damaged: " + p.Copies[0].Damage
	case p.Copies[0].VerifiedAt.IsZero():
		return "its pack " + p.ID + " was never verified"
	case p.Copies[0].VerifiedAt.After(by):
		return "its pack " + p.ID + " was verified only afterwards"
	}
	return ""
}

// checkRead reads files by name and compares them with the ledger.
func (r *run) checkRead(ctx context.Context, c client, files []*file) error {
	return each(ctx, files, func(f *file) error {
		code, sum, err := c.read(ctx, f.name)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			r.bad.add("life %d: read %q: %v", r.node.lives, f.name, err)
		case code == http.StatusNotFound && !f.confirmed:
		case code != http.StatusOK:
			r.bad.add("life %d: read %q: status %d", r.node.lives, f.name, code)
		case sum != f.sum:
			r.bad.add("life %d: read %q: 200 with other bytes", r.node.lives, f.name)
		}
		return nil
	})
}

// each calls f for all files, several at once, and returns the first error.
func each(ctx context.Context, files []*file, f func(*file) error) error {
	next := make(chan *file)
	errs := make(chan error, readers)
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for one := range next {
				if err := f(one); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	stopped := make(chan struct{})
	go func() { wg.Wait(); close(stopped) }()
feed:
	for _, one := range files {
		select {
		case next <- one:
		case <-stopped: // all readers have failed
			break feed
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	<-stopped
	select {
	case err := <-errs:
		return err
	default:
		return context.Cause(ctx)
	}
}
