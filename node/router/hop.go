package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// errLate: the owner's answer took longer than a hop may. It is a
// context.DeadlineExceeded, so that transport counts it against the peer.
var errLate = fmt.Errorf("the hop's time limit: %w", context.DeadlineExceeded)

// hop asks one node; its answer begins within limit.
func (r *Router) hop(ctx context.Context, node ring.NodeID, q transport.Request, limit time.Duration) (*retriever.Answer, error) {
	began := time.Now()
	defer func() { r.metrics.hops.Observe(time.Since(began).Seconds()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(limit, func() { cancel(errLate) })
	defer late.Stop()
	a, err := r.cfg.Peers.Read(ctx, string(node), q)
	if err != nil {
		return nil, ended(ctx, err)
	}
	var content []byte
	if a.Body != nil {
		late.Reset(r.cfg.PayloadTimeout)
		content, err = payload(a, int64(q.MaxPayload))
		if err != nil {
			return nil, ended(ctx, err)
		}
	}
	return answer(a, content)
}

// ended says why the hop was given up, where that is why it failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// payload returns the whole payload, every byte checked, and closes it.
func payload(a *transport.Answer, most int64) ([]byte, error) {
	defer func() { _ = a.Body.Close() }() // only read from
	if a.Payload < 0 || a.Payload > most {
		return nil, fmt.Errorf("%w: %d bytes of payload where %d are the most", retriever.ErrContradiction, a.Payload, most)
	}
	content := make([]byte, a.Payload)
	if _, err := io.ReadFull(a.Body, content); err != nil {
		return nil, err
	}
	// The last check comes with the end.
	if n, err := a.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		if err == nil || n != 0 {
			err = fmt.Errorf("%w: a payload beyond its length", retriever.ErrContradiction)
		}
		return nil, err
	}
	return content, nil
}

// answer is what a node answered, in the retriever's words.
func answer(a *transport.Answer, content []byte) (*retriever.Answer, error) {
	if a.Origin != transport.OriginPack || a.Range != nil {
		return nil, fmt.Errorf("%w: a part, or not from a pack", retriever.ErrContradiction)
	}
	out := &retriever.Answer{
		Applied: a.Applied, Pack: a.Pack, Ordinal: a.Ordinal, Content: content,
		Header: &desformat.Header{Record: desformat.Record{
			Type: desformat.TypeFile, Name: a.Name, Seq: desformat.Token{Generation: a.SeqGeneration, Index: a.SeqIndex},
			Source: a.Source, ID: a.ID, Version: uint32(a.ArchiveVersion), Size: a.Size, SHA256: a.SHA256, ModTime: a.Modified,
			Meta: desformat.Metadata{ContentType: a.ContentType, Created: a.Created, Retention: a.Retention, Custom: a.Metadata},
		}},
	}
	if l := a.Location; l != nil {
		out.Place = &retriever.Stored{Key: l.Key, Version: l.VersionID, Offset: l.Offset, Length: l.Length}
	}
	return out, nil
}
