package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// scene is what the load and the checker know of the run they watch.
type scene struct {
	doors    []door
	timeline *timeline
	verdict  *verdict
	ledger   *ledger

	database string // URL of the customer's database, past the fault proxies
	table    string // in it, such as desnode.files
	src      string // folder of the originals, a root of the source
	incoming string // folder of the same file system that is no root
	objects  string // folder in which the S3 server keeps the objects of the store
	bin      string // the desnode binary

	// skew is the largest step that a node's clock has made so far.
	skew func() time.Duration

	logf func(format string, args ...any)
}

// door is one node as its clients know it, over all its lives. Its methods may
// be called by any goroutine.
type door interface {
	Name() string

	// Do sends a request, whose URL is a path and a query, to the node's HTTP
	// face. errClosed, wrapped or not, when no process has one now.
	Do(req *http.Request) (*http.Response, error)

	// Fit says since when nothing is done to the node: its process runs and was
	// ready, is not frozen, and no link of it is cut. Disks, clocks and servers
	// that fail take nothing from it. ok is false while that is not so.
	Fit() (since time.Time, ok bool)
}

// errClosed: a node has no HTTP face now.
var errClosed = errors.New("the node is not there")

// settles is how long after its healing a fault of a server, and the start of
// a node, may still be felt: connections are made anew, a breaker closes.
const settles = 5 * time.Second

// loadConfig is how much is done. The zero value of each field is its default.
type loadConfig struct {
	Reads   float64       // a second; default 60
	Files   float64       // new ones a second, in the mean; default 12
	Changes float64       // a second, in the mean; default 3
	Wave    time.Duration // between two waves of new and of changed files; default 4s
	Archive time.Duration // between two archive runs; default 45s
}

func (c loadConfig) withDefaults() loadConfig {
	set := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.Reads, 60)
	set(&c.Files, 12)
	set(&c.Changes, 3)
	if c.Wave == 0 {
		c.Wave = 4 * time.Second
	}
	if c.Archive == 0 {
		c.Archive = 45 * time.Second
	}
	return c
}

// load is everything that customers and operators do during a run, all at
// once. Each operation has its moment, whatever became of those before: a load
// that waits for answers does least when the cluster is slowest.
type load struct {
	*scene
	cfg loadConfig

	mu      sync.Mutex // guards what follows
	samples []sample
	wrote   written

	archives [2]atomic.Int64 // runs that ended well, and not
	lagged   atomic.Int64    // older versions from nodes that had just been cut off
}

// newLoad prepares a load on a scene.
func newLoad(s *scene, cfg loadConfig) *load { return &load{scene: s, cfg: cfg.withDefaults()} }

// run does everything until ctx ends, and returns when all that was under way
// has ended. An error is one of the harness, such as a full disk.
func (l *load) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for stream, work := range []func(context.Context, *rand.Rand) error{l.writeAll, l.readAll, l.archiveAll} {
		rnd := rand.New(rand.NewPCG(l.ledger.seed, 100+uint64(stream))) // #nosec G115 G404 -- an index; repeatable on purpose
		wg.Go(func() {
			if err := work(ctx, rnd); err != nil {
				once.Do(func() { failed = err })
				cancel(err)
			}
		})
	}
	wg.Wait()
	return failed
}

// sleep waits until a moment, or until ctx ends; then it reports false.
func sleep(ctx context.Context, until time.Time) bool {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
