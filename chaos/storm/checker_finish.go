package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// sampled is how many names are read through each node but the first, which
// reads all of them.
const sampled = 500

// finish checks everything. It is called when run has returned, all faults are
// healed and the load is finished. It waits until everything is archived, for
// so long at most. An error means that the check could not be made.
func (c *checker) finish(ctx context.Context, within time.Duration) error {
	began := time.Now()
	lap := func(what string) {
		c.logf("%s in %.1fs", what, time.Since(began).Seconds())
		began = time.Now()
	}
	rows, err := c.settle(ctx, within)
	if err != nil {
		return err
	}
	lap("all rows are finished or given up")
	early := 0
	for _, r := range rows {
		if why := c.unfinished(r); why != "" {
			c.verdict.breach(unfinishedRows, "%s: %s", r.name, why)
		} else if c.deletes && r.state == statePacked {
			early++
		}
	}
	c.verdict.figure("originals kept, since the clock that packed or acknowledged them was ahead", "%d", early)
	packs, err := c.settledPacks(ctx, time.Minute)
	if err != nil {
		return err
	}
	c.packs.take(c.verdict, packs, time.Now())
	if err := c.lookAtOriginals(ctx); err != nil {
		return err
	}
	c.originals.giveUp(c.scene)
	if err := findLeftovers(c.scene, rows); err != nil {
		return err
	}
	if err := c.lookAtObjects(ctx); err != nil {
		return err
	}
	lap("packs, originals and objects were looked at")
	listed, err := c.listings(ctx, packs)
	if err != nil {
		return err
	}
	dead, err := c.backedUp(ctx, packs)
	if err != nil {
		return err
	}
	if dead != nil {
		weigh(c.scene, packs, listed, dead)
	}
	c.verdict.figure("live packs in the end", "%d", len(packs))
	lap("records were weighed")
	if err := c.verify(ctx); err != nil {
		return err
	}
	lap("packs were verified")
	err = c.readBack(ctx)
	lap("files were read back")
	return err
}

// settle waits until all rows are as they should be in the end and returns
// them; after that time as they are.
func (c *checker) settle(ctx context.Context, within time.Duration) ([]row, error) {
	deadline := time.Now().Add(within)
	var flush time.Time
	for {
		rows, err := c.readTable(ctx)
		left := 0
		if err == nil {
			c.rows.take(c.scene, rows, time.Now())
			for _, r := range rows {
				if c.unfinished(r) != "" {
					left++
				}
			}
			if left == 0 && len(rows) == len(c.ledger.all()) {
				return rows, nil
			}
		}
		if time.Now().After(deadline) {
			return rows, err
		}
		if time.Since(flush) > 20*time.Second { // nothing waits for company any more
			flush = time.Now()
			c.logf("%d rows are not finished: %v", left, err)
			if err := c.flush(ctx); err != nil {
				c.logf("archive: %v", err)
			}
		}
		// The other watches go on while rows are waited for.
		for _, look := range []func(context.Context) error{c.lookAtPacks, c.lookAtOriginals} {
			if err := look(ctx); err != nil && !errors.Is(err, errLater) {
				return nil, err
			}
		}
		if !sleep(ctx, time.Now().Add(time.Second)) {
			return nil, context.Cause(ctx)
		}
	}
}

func (c *checker) flush(ctx context.Context) error {
	d, err := c.anyDoor()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, archiveWithin)
	defer cancel()
	return archive(ctx, d)
}

// unfinished says what a row still waits for; "" when nothing. A node whose
// clock was ahead begins the grace before deletion in the future: nothing is
// lost by that, and nobody waits for it here.
func (c *checker) unfinished(r row) string {
	now := time.Now()
	ahead := r.packed.After(now) || c.packs.ahead(r.pack, now)
	done := r.state == stateDeleted || r.state == statePacked && (!c.deletes || ahead)
	f := c.ledger.named(r.name)
	switch {
	case f == nil:
		return "" // told already
	case !done:
		return fmt.Sprintf("%s at version %d after %d attempts: %s", r.state, r.version, r.attempts, r.problem)
	case c.ledger.current(f).sum != r.sum:
		return r.state + " with the content of an older version"
	}
	return ""
}

// settledPacks returns the packs once all of them are acknowledged and
// verified, after that time as they are.
func (c *checker) settledPacks(ctx context.Context, within time.Duration) (packs []packInfo, err error) {
	for deadline := time.Now().Add(within); ; {
		var d door
		if d, err = c.anyDoor(); err == nil {
			packs, err = manifest(ctx, d)
		}
		open := 0
		for _, p := range packs {
			if !p.Acknowledged || len(p.Copies) == 0 || p.Copies[0].VerifiedAt.IsZero() {
				open++
			}
		}
		if err == nil && open == 0 {
			return packs, nil
		}
		if time.Now().After(deadline) {
			if err == nil {
				c.verdict.breach(badPacks, "%d packs are not acknowledged and verified", open)
			}
			return packs, err
		}
		if !sleep(ctx, time.Now().Add(time.Second)) {
			return nil, context.Cause(ctx)
		}
	}
}

// listings returns what each pack lists, by the pack's id.
func (c *checker) listings(ctx context.Context, packs []packInfo) (map[string][]record, error) {
	listed := map[string][]record{}
	var mu sync.Mutex // guards listed
	err := someAtOnce(ctx, packs, func(p packInfo) {
		records, err := c.listing(ctx, p)
		if err != nil && ctx.Err() == nil {
			c.verdict.breach(badPacks, "pack ls %s: %v", p.Key, err)
		}
		mu.Lock()
		defer mu.Unlock()
		listed[p.ID] = records
	})
	return listed, err
}

// someAtOnce calls do for all things, some at once, and returns when all calls
// have ended.
func someAtOnce[T any](ctx context.Context, things []T, do func(T)) error {
	const workers = 6
	var wg sync.WaitGroup
	next := make(chan T)
	for range workers {
		wg.Go(func() {
			for one := range next {
				do(one)
			}
		})
	}
	defer wg.Wait()
	defer close(next)
	for _, one := range things {
		select {
		case next <- one:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// verify has a node read every pack back.
func (c *checker) verify(ctx context.Context) error {
	d, err := c.anyDoor()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/cluster/verify", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for events := bufio.NewReader(resp.Body); ; {
		line, err := events.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e struct {
				Pack, Damage, Unread string
				OK, Done             bool
			}
			if err := json.Unmarshal(line, &e); err != nil {
				return err
			}
			switch {
			case e.Done && !e.OK:
				c.verdict.breach(badPacks, "verify: %s", bytes.TrimSpace(line))
				return nil
			case e.Done:
				return nil
			case !e.OK:
				c.verdict.breach(badPacks, "pack %s: %s%s", e.Pack, e.Damage, e.Unread)
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("verify at %s: %w", d.Name(), err)
		}
	}
}

// readBack reads every name through one node, and some through each other one.
// Each must be there with its last content.
func (c *checker) readBack(ctx context.Context) error {
	all := c.ledger.all()
	rnd := rand.New(rand.NewPCG(c.ledger.seed, 7)) // #nosec G404 -- repeatable on purpose
	reads := 0
	for i, d := range c.doors {
		files := all
		if i > 0 {
			files = c.ledger.sample(rnd, sampled, 0)
		}
		reads += len(files)
		if err := someAtOnce(ctx, files, func(f *file) { c.readOne(ctx, d, f) }); err != nil {
			return err
		}
	}
	c.verdict.figure("files in the end", "%d, read back whole %d times through %d nodes", len(all), reads, len(c.doors))
	return nil
}

// patience is how often a read is tried again in the end, and after what time.
const (
	patience   = 5
	patientFor = 3 * time.Second
)

// readOne reads one file in the end.
func (c *checker) readOne(ctx context.Context, d door, f *file) {
	want := c.ledger.current(f)
	q := question{file: f, name: f.name}
	for try := 1; ; try++ {
		one, cancel := context.WithTimeout(ctx, secondWithin)
		r, err := fetch(one, d, q, 0)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && r.status == http.StatusOK && r.matches(q)(&want):
			return
		case err == nil && r.status == http.StatusOK && c.ledger.state(f).holding(r.sum) != nil:
			c.verdict.breach(lostFiles, "%s through %s: an older version, of %d bytes", f.name, d.Name(), r.size)
			return
		case err == nil && r.status == http.StatusOK:
			c.verdict.breach(wrongBytes, "%s through %s in the end: %d bytes", f.name, d.Name(), r.size)
			return
		case try == patience:
			c.verdict.breach(lostFiles, "%s through %s: %d %s %v", f.name, d.Name(), r.status, r.code, err)
			return
		}
		if !sleep(ctx, time.Now().Add(patientFor)) {
			return
		}
	}
}
