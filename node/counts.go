package node

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
)

// Counting the rows of a large table by state reads all of it. So it is done
// apart from the questions, by one goroutine for each source, and takes a
// twentieth of the time at most however often the status is asked for. A small
// table is counted for each question.
const (
	// countWait is how long a status waits for a count that is under way.
	countWait = 2 * time.Second
	// countRest is how many times as long as a count took the source is left
	// alone after it.
	countRest = 20
)

// rowCounter counts the rows of one source when asked to.
type rowCounter struct {
	rows source.OperatorRows
	now  func() time.Time
	asks chan chan<- struct{} // closed when a count asked for is there
	last atomic.Pointer[counted]
}

// counted is the result of one count.
type counted struct {
	states map[source.State]source.Tally
	at     time.Time // when states were true
	began  time.Time
	took   time.Duration
	err    error
}

func newRowCounter(rows source.OperatorRows) *rowCounter {
	return &rowCounter{rows: rows, now: time.Now, asks: make(chan chan<- struct{})}
}

// run counts until ctx ends.
func (c *rowCounter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case done := <-c.asks:
			if c.due() {
				c.count(ctx)
			}
			close(done)
		}
	}
}

// due reports whether counting is cheap, or the last count was long enough ago.
func (c *rowCounter) due() bool {
	last := c.last.Load()
	return last == nil || last.took <= cheapCount || c.now().Sub(last.began) > (countRest+1)*last.took
}

func (c *rowCounter) count(ctx context.Context) {
	begin := c.now()
	states, err := c.rows.Counts(ctx)
	n := &counted{states: states, at: begin, began: begin, took: c.now().Sub(begin), err: err}
	if before := c.last.Load(); err != nil && before != nil {
		n.states, n.at = before.states, before.at // still the newest that is known
	}
	c.last.Store(n)
}

// counts returns the newest count, waiting a moment for the one it asks for.
// It is nil when there is none yet.
func (c *rowCounter) counts(ctx context.Context) *counted {
	timeout := time.NewTimer(countWait)
	defer timeout.Stop()
	done := make(chan struct{})
	select {
	case c.asks <- done:
		select {
		case <-done:
		case <-timeout.C:
		case <-ctx.Done():
		}
	case <-timeout.C: // a count is under way, or the node is not ready
	case <-ctx.Done():
	}
	return c.last.Load()
}

// sourceStatus tells how each source is. One that does not answer is reported
// in its own place.
func (n *Node) sourceStatus(ctx context.Context) []api.SourceStatus {
	all := make([]api.SourceStatus, 0, len(n.sources))
	for i, s := range n.sources {
		st := api.SourceStatus{
			Name: s.Name, URL: n.sourceURL(s.Name), Roots: n.sourceRoots(s.Name), States: map[string]api.Tally{},
		}
		if c := n.counters[i].counts(ctx); c != nil {
			st.Counted = c.at.UTC()
			for state, t := range c.states {
				st.States[string(state)] = api.Tally(t)
			}
			if c.err != nil {
				st.Error = c.err.Error()
			}
		}
		all = append(all, st)
	}
	return all
}

// sourceURL returns the URL of a source as it may be shown.
func (n *Node) sourceURL(name string) string {
	s := n.cfg.Sources[name]
	if s.URL == "" {
		return config.Redacted(s.URLs[config.RoleReader])
	}
	return config.Redacted(s.URL)
}

// sourceRoots lists where a source's files may be read.
func (n *Node) sourceRoots(name string) []string {
	imported, _, err := listSetting(n.meta.View(), rootsKey(name))
	if err != nil {
		imported = nil // told by whoever reads files
	}
	return slices.Concat(n.cfg.Sources[name].Roots, imported)
}

// newRowCounters returns a counter for each source, in their order.
func newRowCounters(sources []source.Source) []*rowCounter {
	counters := make([]*rowCounter, 0, len(sources))
	for _, s := range sources {
		counters = append(counters, newRowCounter(s.Rows))
	}
	return counters
}

// countOnDemand lets every source's rows be counted until ctx ends.
func (n *Node) countOnDemand(ctx context.Context) error {
	var all errgroup.Group
	for _, c := range n.counters {
		all.Go(func() error {
			c.run(ctx)
			return nil
		})
	}
	return all.Wait()
}
