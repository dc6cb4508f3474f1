package cli

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/datavision/desnode/node/bench"
)

const (
	loadRate    = 100              // reads a second through each node
	loadReaders = 16               // at once through each node
	loadLargest = 1 << 20          // bytes of the largest file read, if there are smaller ones
	loadTimeout = 10 * time.Second // a read without an end by then has failed
	drainPoll   = 50 * time.Millisecond
)

// demoLoad reads files through several nodes at a steady rate and compares them.
// Its clients do what a load balancer does: one that leaves is sent nothing more
// as soon as it says that it is not ready.
type demoLoad struct {
	root  *os.Root // the originals
	files []demoFile
	nodes []*nodeLoad // in the order of adding
}

// newDemoLoad begins nothing; add does.
func newDemoLoad(dir string, files []demoFile) (*demoLoad, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &demoLoad{root: root}
	for _, f := range files {
		if f.size <= loadLargest {
			l.files = append(l.files, f)
		}
	}
	if len(l.files) == 0 {
		l.files = files
	}
	return l, nil
}

// nodeLoad is the load on one node.
type nodeLoad struct {
	node   *demoNode
	client *client
	cancel context.CancelFunc // ends the sending; reads under way go on
	ended  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	sum  loadSum
	dead bool // it is killed on purpose: reads that it cut are its own loss
}

// loadSum is what the reads through one node came to.
type loadSum struct {
	failed, wrong, cut int64
	first              error // of the failed and the wrong
	latencies          bench.Latencies
}

// add begins to read through a node.
func (l *demoLoad) add(ctx context.Context, n *demoNode) error {
	own, err := newClient(n.base)
	if err != nil {
		return err
	}
	own.http.Transport.(*http.Transport).MaxIdleConnsPerHost = loadReaders
	own.http.Timeout = loadTimeout
	sending, cancel := context.WithCancel(ctx)
	node := &nodeLoad{node: n, client: own, cancel: cancel}
	due := make(chan time.Time, loadRate*int(loadTimeout/time.Second)) // more than can wait before all fail
	node.ended.Go(func() {
		defer close(due)
		pace(sending, due)
	})
	for i := range loadReaders {
		random := rand.New(rand.NewPCG(uint64(len(l.nodes)), uint64(i))) //nolint:gosec // chooses files
		node.ended.Go(func() {
			buf := new(compareBuffers)
			for at := range due {
				err := buf.compare(ctx, own, l.root, l.files[random.IntN(len(l.files))])
				if ctx.Err() == nil {
					node.note(time.Since(at), err)
				}
			}
		})
	}
	l.nodes = append(l.nodes, node)
	return nil
}

// pace sends the times at which reads are due. They are due whether or not the
// earlier ones have ended: what waits for a slow one counts as slow too.
func pace(ctx context.Context, due chan<- time.Time) {
	tick := time.NewTicker(time.Second / loadRate)
	defer tick.Stop()
	for {
		select {
		case at := <-tick.C:
			select {
			case due <- at:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (n *nodeLoad) note(took time.Duration, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil:
		n.sum.latencies.Add(took)
		return
	case n.dead && !errors.Is(err, errDiffers):
		n.sum.cut++
		return
	case errors.Is(err, errDiffers):
		n.sum.wrong++
	default:
		n.sum.failed++
	}
	if n.sum.first == nil {
		n.sum.first = err
	}
}

// of returns the load on a node.
func (l *demoLoad) of(n *demoNode) *nodeLoad {
	for _, load := range l.nodes {
		if load.node == n {
			return load
		}
	}
	return nil
}

// expectDeath says that the node is killed next: nothing more is sent to it, and
// what it has not answered counts as cut.
func (n *nodeLoad) expectDeath() {
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
	n.cancel()
}

// drain sends to the node until it says that it is not ready any more, and
// returns when what it was sent has ended. Reads that fail count.
func (n *nodeLoad) drain(ctx context.Context) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for ctx.Err() == nil {
		resp, err := n.client.do(ctx, http.MethodGet, readyPath, nil)
		if err != nil {
			break
		}
		_ = resp.Body.Close()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	n.end()
}

// end sends nothing more and waits for what is under way.
func (n *nodeLoad) end() {
	n.cancel()
	n.ended.Wait()
	n.client.close()
}

// take returns what has come in since the last take.
func (n *nodeLoad) take() loadSum {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := n.sum
	n.sum = loadSum{}
	return sum
}

// stop ends the load on all nodes.
func (l *demoLoad) stop() error {
	for _, n := range l.nodes {
		n.cancel()
	}
	for _, n := range l.nodes {
		n.end()
	}
	return l.root.Close()
}
