package retriever

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// object fetches ranges of one pack's object, and counts the requests for one
// cause.
type object struct {
	r            *Retriever
	pack         *raftmeta.Pack
	cause        string
	key, version string
	requests     prometheus.Counter
	bytes        prometheus.Counter
}

var _ desformat.Fetcher = object{}

// cause is why the store is asked.
type cause uint8

// The causes.
const (
	causeIndex   cause = iota // a whole index
	causeRecord               // a whole record
	causeHeader               // a record's header and name
	causeContent              // a part of a large record
	causeProof                // the size of an object that seems too short
	causes
)

var causeNames = [causes]string{"index", "record", "header", "content", "proof"}

// object returns the fetcher for a pack.
func (r *Retriever) object(p *raftmeta.Pack, c cause) object {
	key, version := place(p)
	return object{r, p, causeNames[c], key, version, r.metrics.requests[c], r.metrics.bytes[c]}
}

// Fetch gets one range of the object.
func (o object) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := o.r.refused(o.pack, off, n); err != nil {
		return nil, err
	}
	o.requests.Inc()
	body, err := o.r.cfg.Store.Get(store.WithCause(ctx, o.cause), o.key, o.version, off, n)
	if errors.Is(err, store.ErrBeyond) {
		err = o.r.shorter(ctx, o.pack, err)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", o.key, err)
	}
	return &countedBody{body, o.bytes}, nil
}

// countedBody counts the bytes that are read.
type countedBody struct {
	io.ReadCloser
	bytes prometheus.Counter
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(float64(n))
	return n, err
}
