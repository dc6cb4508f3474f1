package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
)

// cluster answers the operator's endpoints.
func (x *exchange) cluster(path string) {
	o := x.s.cfg.Observer
	switch {
	case path == PathStatus:
		show(x, o.Status)
	case path == PathPacks:
		show(x, o.Packs)
	case path == PathLeases:
		show(x, o.Leases)
	case path == PathBacklog:
		show(x, o.Backlog)
	case path == PathFailed:
		show(x, x.failed)
	case strings.HasPrefix(path, PathLocate):
		show(x, x.locate)
	case path == PathImport:
		follow(x, x.s.cfg.Operator.Import, func(e ImportEvent, end End) any {
			e.Taken, e.Refused, e.End = nil, nil, end // the lists have been sent
			return e
		})
	case path == PathArchive:
		follow(x, x.s.cfg.Operator.Archive, func(e ArchiveEvent, end End) any { e.End = end; return e })
	case path == PathVerify:
		x.verify()
	case path == PathRetry:
		x.retry()
	case x.pace(path), x.membership(path), x.recovery(path), x.backup(path):
	default:
		x.problem(&Problem{Status: http.StatusNotFound, Code: CodeNotFound, Detail: "no such endpoint; /openapi.yaml lists them"})
	}
}

// show answers GET with what get returns, as JSON.
func show[T any](x *exchange, get func(context.Context) (T, error)) {
	if !x.readOnly() {
		return
	}
	v, err := get(x.r.Context())
	if err != nil {
		x.fail(err)
		return
	}
	x.json(filled(v))
}

func (x *exchange) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		x.fail(fmt.Errorf("encode the answer: %w", err))
		return
	}
	x.body(http.StatusOK, TypeJSON, append(b, '\n'))
}

func (x *exchange) failed(ctx context.Context) (page FailedPage, err error) {
	params, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return page, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	q := FailedQuery{Source: params.Get("source"), Code: params.Get("code"), After: params.Get("after"), Limit: 100}
	if limit := params.Get("limit"); limit != "" {
		q.Limit, err = strconv.Atoi(limit)
		if err != nil || q.Limit < 1 || q.Limit > MaxFailed {
			return page, fmt.Errorf("%w: limit is a number from 1 to %d", ErrInvalidRequest, MaxFailed)
		}
	}
	return x.s.cfg.Operator.Failed(ctx, q)
}

func (x *exchange) locate(ctx context.Context) (*Located, error) {
	name := x.r.URL.Path[len(PathLocate):]
	p, err := x.s.cfg.Files.Locate(ctx, name)
	if !errors.Is(err, desformat.ErrInvalidName) {
		x.shard(desformat.HashName(name).Shard(x.s.cfg.ShardBits()))
	}
	if err != nil {
		return nil, err
	}
	return located(name, p), nil
}

// located puts a place into the words of the API.
func located(name string, p *retriever.Place) *Located {
	l := &Located{Name: name, Hash: p.Hash.String(), Shard: p.Shard, Owner: raftmeta.NodeID(p.Owner), In: InSource}
	for _, id := range p.Fallbacks {
		l.Fallbacks = append(l.Fallbacks, raftmeta.NodeID(id))
	}
	if r := p.Row; r != nil {
		l.State, l.Source, l.ID, l.Size, l.ModTime, l.Version = string(r.State), r.Source, r.ID, r.Size, r.ModTime, r.Version
	}
	if p.Record == nil {
		return l
	}
	h, at := p.Record.Header, p.Record.Location
	l.In = InPack
	l.Source, l.ID, l.Size, l.ModTime, l.Version = h.Source, h.ID, h.Size, h.ModTime, h.Version
	l.Pack, l.Ordinal, l.Offset, l.Length = p.Record.Pack, at.Ordinal, at.Offset, at.Length
	l.SHA256, l.Seq = hex.EncodeToString(h.SHA256[:]), h.Seq
	if p.Pack != nil && len(p.Pack.Copies) > 0 {
		l.Key = p.Pack.Copies[0].Key
	}
	return l
}

func (x *exchange) retry() {
	var req RetryRequest
	if !x.accept(&req) {
		return
	}
	res, err := x.s.cfg.Operator.Retry(x.r.Context(), req)
	if err != nil {
		x.fail(err)
		return
	}
	x.json(res)
}

func (x *exchange) verify() {
	allGood := true
	work := func(ctx context.Context, req VerifyRequest, event func(VerifyEvent) error) error {
		return x.s.cfg.Operator.Verify(ctx, req, func(e VerifyEvent) error {
			allGood = allGood && e.OK
			return event(e)
		})
	}
	follow(x, work, func(_ VerifyEvent, end End) any { return VerifyEvent{OK: allGood && end.Error == nil, End: end} })
}
