package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// packInfo is one entry of the manifest.
type packInfo struct {
	ID           string    `json:"id"`
	Key          string    `json:"key"`
	Records      int       `json:"records"`
	Dead         int       `json:"dead"`
	Acknowledged bool      `json:"acknowledged"`
	Created      time.Time `json:"created"`
	Copies       []struct {
		VerifiedAt time.Time `json:"verified_at"`
		Damage     string    `json:"damage"`
	} `json:"copies"`
}

// packWatch is what the nodes have said of the packs so far.
type packWatch struct {
	mu       sync.Mutex           // guards what follows
	verified map[string]time.Time // by pack: when an answer first said so
	stamped  map[string]time.Time // by pack: when it was, by the verifier's clock
	created  map[string]time.Time // by the packer's clock
	damaged  map[string]bool
}

// lookAtPacks notes which packs are verified.
func (c *checker) lookAtPacks(ctx context.Context) error {
	d, err := c.anyDoor()
	if err != nil {
		return err
	}
	packs, err := manifest(ctx, d)
	if err != nil {
		return err
	}
	c.packs.take(c.verdict, packs, time.Now())
	return nil
}

// manifest asks a node for the live packs.
func manifest(ctx context.Context, d door) ([]packInfo, error) {
	var l struct {
		Packs []packInfo `json:"packs"`
	}
	err := get(ctx, d, "/cluster/packs", &l)
	return l.Packs, err
}

func (w *packWatch) take(v *verdict, packs []packInfo, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.verified == nil {
		w.verified, w.stamped, w.created, w.damaged = map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}, map[string]bool{}
	}
	for _, p := range packs {
		w.created[p.ID] = p.Created
		for _, one := range p.Copies {
			if one.Damage != "" && !w.damaged[p.ID] {
				w.damaged[p.ID] = true
				v.breach(badPacks, "pack %s is called damaged: %s", p.ID, one.Damage)
			}
			if _, known := w.verified[p.ID]; !known && !one.VerifiedAt.IsZero() && one.Damage == "" {
				w.verified[p.ID], w.stamped[p.ID] = now, one.VerifiedAt
			}
		}
	}
}

// proven says whether a pack was verified by then: an answer had said so, or
// the verifier's clock says so, which may be wrong by skew. known is false
// while no answer has said that the pack is verified at all.
func (w *packWatch) proven(pack string, by time.Time, skew time.Duration) (proven, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, known := w.verified[pack]
	return known && (!at.After(by) || !w.stamped[pack].After(by.Add(skew))), known
}

// ahead reports whether a pack was made by a clock that is ahead of now.
func (w *packWatch) ahead(pack string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.created[pack].After(now)
}

// record is one record of a pack's own listing.
type record struct {
	Ordinal uint32 `json:"ordinal"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	SHA256  string `json:"sha256"`
}

// listing runs `desnode pack ls` on a pack's object.
func (c *checker) listing(ctx context.Context, p packInfo) (records []record, err error) {
	cmd := exec.CommandContext(ctx, c.bin, "pack", "ls", "-o", "json", filepath.Join(c.objects, filepath.FromSlash(p.Key))) // #nosec G204 -- the program under test
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var r record
		switch err := dec.Decode(&r); {
		case errors.Is(err, io.EOF):
			return records, nil
		case err != nil:
			return nil, err
		}
		records = append(records, r)
	}
}

// lookAtObjects finds objects in the bucket that the cluster can't name. The
// folder is listed first: an object is announced before it is there. A node
// may lag, though, so that what one does not name another is asked for.
func (c *checker) lookAtObjects(ctx context.Context) error {
	strange, err := c.objectKeys()
	for try := 0; try < 4 && len(strange) > 0 && err == nil; try++ {
		if try > 0 && !sleep(ctx, time.Now().Add(2*time.Second)) {
			return nil
		}
		strange, err = c.unnamed(ctx, strange)
	}
	if err != nil {
		return err
	}
	still, err := c.objectKeys()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, key := range still {
		there[key] = true
	}
	for _, key := range strange {
		if there[key] && !c.strange[key] {
			c.strange[key] = true
			c.verdict.breach(strangeObjects, "%s", key)
		}
	}
	return nil
}

// unnamed returns the keys that a node does not name.
func (c *checker) unnamed(ctx context.Context, keys []string) ([]string, error) {
	d, err := c.anyDoor()
	if err != nil {
		return nil, err
	}
	// An upload that is committed between two answers is in the last one.
	packs, err := manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	var status struct {
		Uploads []struct{ Key string } `json:"uploads"`
	}
	if err := get(ctx, d, "/cluster/status", &status); err != nil {
		return nil, err
	}
	later, err := manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{"cluster.json": true, ".desnode-probe": true}
	for _, u := range status.Uploads {
		known[u.Key] = true
	}
	for _, p := range append(packs, later...) {
		known[p.Key] = true
	}
	return unnamedKeys(keys, known), nil
}

// unnamedKeys returns the keys that nothing explains.
func unnamedKeys(keys []string, known map[string]bool) (out []string) {
	for _, key := range keys {
		switch top, _, _ := strings.Cut(key, "/"); {
		case known[key], top == "generations", top == "nodes", top == "backups", top == "quarantine":
		default:
			out = append(out, key)
		}
	}
	return out
}

// objectKeys lists the store from below, past the server.
func (c *checker) objectKeys() (keys []string, err error) {
	err = filepath.WalkDir(c.objects, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(c.objects, path)
		keys = append(keys, filepath.ToSlash(key))
		return err
	})
	return keys, err
}
