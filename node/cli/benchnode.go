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

// heapWatch notes the most bytes that the Go heap's objects took, looked at
// ten times a second.
type heapWatch struct {
	peak  atomic.Uint64
	stop  chan struct{}
	ended chan struct{}
}

// watchHeap begins to look; end ends it.
func watchHeap() *heapWatch {
	h := &heapWatch{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			metrics.Read(sample)
			h.peak.Store(max(h.peak.Load(), sample[0].Value.Uint64()))
			select {
			case <-tick.C:
			case <-h.stop:
				tick.Stop()
				return
			}
		}
	}()
	return h
}

func (h *heapWatch) end() int64 {
	close(h.stop)
	<-h.ended
	return int64(h.peak.Load())
}
