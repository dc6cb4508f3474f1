package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/bench"
	"github.com/datavision/desnode/node/source"
)

// benchNode is a node in this process, asked over HTTP as any other.
type benchNode struct {
	*client
	node  *node.Node
	stop  context.CancelFunc
	ended chan struct{}
	err   error         // of Run; read after ended
	ready time.Duration // from its opening until it answered
}

// startNode opens a node on the run's configuration and waits until it is ready.
func (r *benchRun) startNode(ctx context.Context) (*benchNode, error) {
	began := time.Now()
	madeUp := node.WithOriginals(func(string) source.Originals { return bench.NewOriginals(r.files) })
	n, err := node.New(ctx, r.cfg, newLogger(r.app.stderr, slog.LevelWarn), madeUp)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &benchNode{node: n, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		b.err = n.Run(run)
	}()
	select {
	case <-n.Ready():
		b.ready = time.Since(began)
		b.client, err = newClient("http://" + n.HTTPAddr())
	case <-b.ended:
		err = errors.New("the node ended before it was ready")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// close ends the node and waits until it has ended.
func (b *benchNode) close() error {
	if b.client != nil {
		b.client.close()
	}
	b.stop()
	<-b.ended
	if errors.Is(b.err, context.Canceled) {
		b.err = nil
	}
	return errors.Join(b.err, b.node.Close())
}

// figures are what a node tells of itself at one moment.
type figures struct {
	status  api.Status
	metrics bench.Metrics
}

func (b *benchNode) figures(ctx context.Context) (f figures, err error) {
	if f.status, err = call[api.Status](ctx, b.client, http.MethodGet, api.PathStatus, nil); err != nil {
		return f, err
	}
	f.metrics, err = bench.Scrape(ctx, b.http, b.base)
	return f, err
}

// countedSince returns the rows by state as the node counted them after a
// moment: a large table is counted now and then only.
func (b *benchNode) countedSince(ctx context.Context, moment time.Time) (map[string]api.Tally, error) {
	tick := time.NewTicker(upkeepPoll)
	defer tick.Stop()
	for {
		st, err := call[api.Status](ctx, b.client, http.MethodGet, api.PathStatus, nil)
		if err != nil {
			return nil, err
		}
		if len(st.Sources) == 1 && st.Sources[0].Error == "" && !st.Sources[0].Counted.Before(moment) {
			return st.Sources[0].States, nil
		}
		select {
		case <-tick.C:
		case <-b.ended:
			return nil, errors.New("the node ended")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// awaitVerified waits until every pack is acknowledged and verified.
func (b *benchNode) awaitVerified(ctx context.Context) error {
	for tick := time.NewTicker(upkeepPoll); ; {
		list, err := call[api.PackList](ctx, b.client, http.MethodGet, api.PathPacks, nil)
		if err != nil {
			return err
		}
		waiting := 0
		for _, p := range list.Packs {
			if !p.Acknowledged || len(p.Copies) == 0 || p.Copies[0].VerifiedAt.IsZero() {
				waiting++
			}
			if len(p.Copies) > 0 && p.Copies[0].Damage != "" {
				return fmt.Errorf("%w: pack %s is damaged: %s", errFailed, p.ID, p.Copies[0].Damage)
			}
		}
		if waiting == 0 {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-b.ended:
			return errors.New("the node ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// memoryWatch notes the most memory that Go's part of this process took, looked
// at ten times a second. What is beyond is of the libraries that keep memory of
// their own (SQLite) and of files in memory.
type memoryWatch struct {
	heap, total atomic.Int64 // bytes
	stop        chan struct{}
	ended       chan struct{}
}

// watchMemory begins to look; end ends it.
func watchMemory() *memoryWatch {
	w := &memoryWatch{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		samples := []metrics.Sample{
			{Name: "/memory/classes/heap/objects:bytes"},
			{Name: "/memory/classes/total:bytes"},
			{Name: "/memory/classes/heap/released:bytes"}, // given back to the system
		}
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			metrics.Read(samples)
			of := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
			w.heap.Store(max(w.heap.Load(), of(0)))
			w.total.Store(max(w.total.Load(), of(1)-of(2)))
			select {
			case <-tick.C:
			case <-w.stop:
				tick.Stop()
				return
			}
		}
	}()
	return w
}

// end stops looking; what was noted stays.
func (w *memoryWatch) end() {
	close(w.stop)
	<-w.ended
}
