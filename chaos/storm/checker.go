package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// checker holds what it sees of the source's rows, the originals, the manifest
// and the bucket against the ledger, during the run and after it. It asks no
// node what is right: rows are read as the customer reads them, originals and
// objects from the disk, and of the nodes' answers only the lists of packs and
// of announced uploads are used, to be compared with the rest.
//
// Each watcher has what it knows to itself, but for the packs.
type checker struct {
	*scene
	deletes bool // originals are deleted once they are safe

	rows      rowWatch
	originals originalWatch
	packs     packWatch
	strange   map[string]bool // objects that were told of
}

// How often each thing is looked at.
const (
	rowsEvery      = 3 * time.Second
	packsEvery     = 2 * time.Second
	originalsEvery = 4 * time.Second
	objectsEvery   = time.Minute
)

// lookShare is how much longer than a look the time between two is at least:
// with many files the watchers must not be the load.
const lookShare = 15

// askWithin bounds one question to a node or to the database.
const askWithin = 10 * time.Second

// newChecker prepares a checker of a scene. deletes: originals are deleted.
func newChecker(s *scene, deletes bool) *checker {
	return &checker{scene: s, deletes: deletes, strange: map[string]bool{}}
}

// run watches until ctx ends. What can't be asked now is asked again later: an
// error is one of the harness.
func (c *checker) run(ctx context.Context) error {
	watchers := newGroup(ctx)
	watch := func(every time.Duration, look func(context.Context) error) {
		watchers.start(func(ctx context.Context) error {
			for next := time.Now(); sleep(ctx, next); {
				began := time.Now()
				if err := look(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errLater) {
					return err
				}
				next = began.Add(max(every, lookShare*time.Since(began)))
			}
			return nil
		})
	}
	watch(rowsEvery, c.lookAtRows)
	watch(packsEvery, c.lookAtPacks)
	watch(originalsEvery, c.lookAtOriginals)
	watch(objectsEvery, c.lookAtObjects)
	return watchers.wait()
}

// errLater: it can't be asked now, since something was taken away.
var errLater = errors.New("no answer now")

// get asks a node for a JSON document. Its errors are errLater.
func get(ctx context.Context, d door, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	resp, err := d.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errLater, d.Name(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errLater, d.Name(), err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s: %s: %s", errLater, d.Name(), path, resp.Status)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%w: %s: %s: %w", errLater, d.Name(), path, err)
	}
	return nil
}

// anyDoor returns a node that nothing is done to.
func (c *checker) anyDoor() (door, error) {
	if d := pickFit(c.doors, rand.IntN(len(c.doors)), nil); d != nil { // #nosec G404 -- whichever
		return d, nil
	}
	return nil, fmt.Errorf("%w: no node is alive", errLater)
}
