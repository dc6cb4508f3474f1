package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/transport"
)

// ServeRead answers another node from this node's packs.
func (r *Router) ServeRead(ctx context.Context, from string, q *transport.Request) (*transport.Reply, error) {
	reply, err := r.serve(ctx, q)
	if errors.Is(err, desformat.ErrCorrupt) {
		r.cfg.Logger.ErrorContext(ctx, "a record that another node asked for is corrupt", slog.String("node", from),
			slog.String("request_id", q.RequestID), slog.String("traceparent", q.Traceparent), slog.String("error", err.Error()))
	}
	r.metrics.served(err)
	return reply, err
}

func (r *Router) serve(ctx context.Context, q *transport.Request) (*transport.Reply, error) {
	if q.Name == "" {
		return nil, transport.ErrUnsupported // ids are looked up by the node that was asked for them
	}
	k, err := retriever.KeyOf(q.Name)
	if err != nil {
		return nil, refuse(err, 0)
	}
	want := retriever.WantHeader
	if q.Kind == transport.KindOpen {
		want = retriever.WantPart // all of a small record, the header of a large one
	}
	f, applied, err := r.cfg.Local.OpenPacked(ctx, k, want, q.MinIndex)
	if err != nil {
		return nil, refuse(err, applied)
	}
	if !sendable(f.Record.Header) {
		return nil, transport.ErrUnsupported
	}
	reply := &transport.Reply{Response: response(f.Record, applied)}
	switch q.Kind {
	case transport.KindOpen:
		err = r.content(ctx, &f, q, reply)
	case transport.KindLocate:
		reply.Location = location(f.Record)
	}
	if err != nil {
		return nil, refuse(err, applied)
	}
	return reply, nil
}

// content puts what was asked for of the content into the reply, or where it
// lies when that is more than the caller wants.
func (r *Router) content(ctx context.Context, f *retriever.File, q *transport.Request, reply *transport.Reply) error {
	off, n := int64(0), f.Size()
	if q.Range != nil {
		if off = q.Range.Offset; off > n || q.Range.Length > n-off {
			return transport.ErrRange
		}
		n = q.Range.Length
		reply.Range = &transport.Range{Offset: off, Length: n}
	}
	if q.MaxPayload > 0 && n > int64(q.MaxPayload) {
		reply.Location, reply.Range = location(f.Record), nil
		return nil
	}
	if whole, ok := f.Content(); ok {
		reply.Data = whole[off : off+n : off+n]
		return nil
	}
	body, err := f.Open(ctx, off, n)
	reply.Body, reply.Length = body, n
	return err
}

// Longest texts that an answer carries, bytes (see transport/doc.go). The format
// allows longer ones; whoever asks for such a record reads it himself.
const (
	maxSource      = 64
	maxContentType = 1024
	maxRetention   = 64
)

func sendable(h *desformat.Header) bool {
	return len(h.Source) <= maxSource && len(h.Meta.ContentType) <= maxContentType && len(h.Meta.Retention) <= maxRetention
}

// response describes a record.
func response(rec *retriever.Record, applied uint64) transport.Response {
	h := rec.Header
	return transport.Response{
		Applied: applied, Origin: transport.OriginPack, Pack: rec.Pack, Ordinal: rec.Location.Ordinal,
		Name: h.Name, ID: h.ID, Source: h.Source, Size: h.Size, SHA256: h.SHA256, Modified: h.ModTime, Created: h.Meta.Created,
		ContentType: h.Meta.ContentType, Metadata: h.Meta.Custom, Retention: h.Meta.Retention,
		SeqGeneration: h.Seq.Generation, SeqIndex: h.Seq.Index, ArchiveVersion: uint64(h.Version),
	}
}

func location(rec *retriever.Record) *transport.Location {
	at := rec.Stored()
	return &transport.Location{Key: at.Key, VersionID: at.Version, Offset: at.Offset, Length: at.Length}
}

// refuse gives an error its status. The other node is told the kind and the
// index, not the text, which may name what is this node's own business. An
// error that is transport's own already, or the end of a context, stays as it is.
func refuse(err error, applied uint64) error {
	for _, k := range []struct {
		err    error
		status transport.Status
	}{
		{retriever.ErrBehind, transport.StatusDeclined},
		{retriever.ErrNotFound, transport.StatusNotFound},
		{retriever.ErrGone, transport.StatusGone},
		{desformat.ErrCorrupt, transport.StatusCorrupt},
		{retriever.ErrUnavailable, transport.StatusUnavailable},
		{desformat.ErrInvalidName, transport.StatusInvalid},
	} {
		if errors.Is(err, k.err) {
			return fmt.Errorf("%w: %w", &transport.RemoteError{Status: k.status, Applied: applied}, err)
		}
	}
	return err
}
