package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// archiveWithin bounds one run; the node's work goes on without it.
const archiveWithin = 2 * time.Minute

// archiveAll has everything archived at once, now and then, through whichever
// node is there. A run that a fault ends is no breach: its work is taken up by
// the others.
func (l *load) archiveAll(ctx context.Context, rnd *rand.Rand) error {
	runs := newGroup(ctx)
	for n := 1; sleep(ctx, l.timeline.start.Add(time.Duration(n)*l.cfg.Archive)); n++ {
		d := pickFit(l.doors, rnd.IntN(len(l.doors)), nil)
		if d == nil {
			l.archives[1].Add(1)
			continue
		}
		runs.start(func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, archiveWithin)
			defer cancel()
			if err := archive(ctx, d); err != nil {
				l.archives[1].Add(1)
				l.logf("archive through %s: %v", d.Name(), err)
				return nil
			}
			l.archives[0].Add(1)
			return nil
		})
	}
	return runs.wait()
}

// errUnexpected: a node answered, but not with what was asked for.
var errUnexpected = errors.New("unexpected answer")

// archive asks a node for a run and follows it to its end.
func archive(ctx context.Context, d door) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/cluster/archive", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %w", d.Name(), resp.Status, errUnexpected)
	}
	for events := bufio.NewReader(resp.Body); ; {
		line, err := events.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var end struct {
				Done  bool            `json:"done"`
				Error json.RawMessage `json:"error"`
			}
			if err := json.Unmarshal(line, &end); err != nil {
				return err
			}
			switch {
			case len(end.Error) > 0 && string(end.Error) != "null":
				return fmt.Errorf("%w: %s", errUnexpected, end.Error)
			case end.Done:
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("ended without done: %w", err)
		}
	}
}

// group is work that goes on beside its starter, who waits for it.
type group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error // the first one; read after wg
}

func newGroup(ctx context.Context) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// start begins one piece of work. Its error ends the others'.
func (g *group) start(work func(context.Context) error) {
	g.wg.Go(func() {
		if err := work(g.ctx); err != nil {
			g.once.Do(func() { g.err = err })
			g.cancel(err)
		}
	})
}

// wait returns the first error once all work has ended.
func (g *group) wait() error {
	g.wg.Wait()
	g.cancel(nil)
	return g.err
}
