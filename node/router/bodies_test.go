package router

import (
	"context"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func nopBody(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

// brokenBody gives all of its text, and then err; nil: io.EOF.
type brokenBody struct {
	all    string
	err    error
	closed bool
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n := copy(p, b.all)
	b.all = b.all[n:]
	switch {
	case n > 0:
		return n, nil
	case b.err != nil:
		return 0, b.err
	}
	return 0, io.EOF
}

func (b *brokenBody) Close() error {
	b.closed = true
	return nil
}

// stalledBody gives nothing until its context ends.
type stalledBody struct {
	ctx context.Context
}

func (b *stalledBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *stalledBody) Close() error { return nil }

func routed(n *node, r route) int { return int(testutil.ToFloat64(n.router.metrics.routes[r])) }
