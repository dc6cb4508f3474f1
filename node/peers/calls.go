package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

// Methods of the call plane.
const (
	methodMeta  = "meta"
	methodHello = "hello"
)

// Call carries a call of the state machine to another node: raftmeta.Peers.
func (p *Peers) Call(ctx context.Context, node raftmeta.NodeID, request []byte) ([]byte, error) {
	answer, err := p.endpoint.Call(ctx, string(node), methodMeta, request)
	p.heed(string(node), err)
	if errors.Is(err, transport.ErrNotMember) && !p.removed(string(node)) { // then it is the other one that says so
		err = fmt.Errorf("%w: %w", raftmeta.ErrNotMember, err)
	}
	return answer, err
}

// ServeCall answers other nodes' calls: transport.Handler.
func (p *Peers) ServeCall(ctx context.Context, from, method string, body []byte) ([]byte, error) {
	switch method {
	case methodMeta:
		return p.meta.ServeCall(ctx, raftmeta.NodeID(from), body)
	case methodHello:
		return p.serveHello(from, body)
	}
	return nil, transport.ErrUnsupported
}

const (
	// raftPool is how many idle connections raft keeps to a node, beside the one
	// that it replicates on. Each costs one failed call when the node restarts.
	raftPool = 1
	// raftTimeout bounds one of raft's calls; for a snapshot it grows with its size.
	raftTimeout = 5 * time.Second
)

// RaftTransport returns what raft talks to the others by; a node's address in it
// is its id. The same one is returned each time; raft, or Close, closes it.
func (p *Peers) RaftTransport() raft.Transport {
	p.rafts.Lock()
	defer p.rafts.Unlock()
	if p.rafted == nil {
		p.rafted = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:                  streams{p.endpoint.Raft()},
			MaxPool:                 raftPool,
			Timeout:                 raftTimeout,
			MsgpackUseNewTimeFormat: true,
			Logger:                  raftLogger(p.log),
		})
	}
	return p.rafted
}

// streams is transport's layer in raft's words.
type streams struct{ *transport.RaftLayer }

// Dial implements raft.StreamLayer.
func (s streams) Dial(node raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.RaftLayer.Dial(string(node), timeout)
}

// logSink hands the lines of raft's transport to slog. They tell of peers that
// are away, which the others tell better.
type logSink struct{ to *slog.Logger }

func raftLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off})
	l.RegisterSink(logSink{to})
	return l
}

// Accept implements hclog.SinkAdapter.
func (s logSink) Accept(_ string, _ hclog.Level, msg string, args ...any) {
	s.to.Debug("raft: "+msg, args...)
}
