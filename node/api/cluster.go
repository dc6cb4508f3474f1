package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
)

// maxBody bounds the body of an operator's request, in bytes.
const maxBody = 8 << 20

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
	case path == PathMembers:
		show(x, o.Members)
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

// filled puts empty lists in the place of nil ones, since the contract knows no
// null.
func filled(v any) any {
	switch v := v.(type) {
	case Status:
		v.Work, v.Sources, v.Uploads, v.Pauses = list(v.Work), list(v.Sources), list(v.Uploads), list(v.Pauses)
		v.StoreCalls = mapped(v.StoreCalls)
		for i := range v.Sources {
			v.Sources[i].States = mapped(v.Sources[i].States)
		}
		return v
	case PackList:
		v.Packs = list(v.Packs)
		for i := range v.Packs {
			v.Packs[i].Copies = list(v.Packs[i].Copies)
		}
		return v
	case LeaseList:
		v.Leases = list(v.Leases)
		return v
	case MemberList:
		v.Members = list(v.Members)
		return v
	case Backlog:
		v.Sources = list(v.Sources)
		for i := range v.Sources {
			v.Sources[i].Buckets = list(v.Sources[i].Buckets)
		}
		return v
	case FailedPage:
		v.Rows = list(v.Rows)
		return v
	case ArchiveEvent:
		if v.DryRun != nil {
			dry := *v.DryRun
			dry.Rest = list(dry.Rest)
			v.DryRun = &dry
		}
		return v
	}
	return v
}

func list[E any](s []E) []E {
	if s == nil {
		return []E{}
	}
	return s
}

func mapped[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
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
	q := FailedQuery{Source: params.Get("source"), After: params.Get("after"), Limit: 100}
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
	l := &Located{Name: name, Hash: p.Hash.String(), Shard: p.Shard, In: InSource}
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

// forwarding are headers of proxies. One on this machine would make everyone a
// loopback peer.
var forwarding = []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"}

// accept admits a request that changes something and decodes its body into v:
// from this machine only until there is authentication, never on behalf of a
// page in somebody's browser, and only as JSON, which a form can't send.
func (x *exchange) accept(v any) bool {
	if !x.allow(http.MethodPost) {
		return false
	}
	if !loopback(x.r.RemoteAddr) {
		x.problem(&Problem{
			Status: http.StatusForbidden, Code: CodeForbidden,
			Detail: "commands that change something are answered on loopback only: run it on the node's own machine",
		})
		return false
	}
	for _, name := range forwarding {
		if x.r.Header[name] != nil {
			x.problem(&Problem{Status: http.StatusForbidden, Code: CodeForbidden, Detail: "not answered through a proxy: it came with " + name})
			return false
		}
	}
	if x.r.Header["Origin"] != nil || !localHost(x.r.Host) {
		x.problem(&Problem{Status: http.StatusForbidden, Code: CodeForbidden, Detail: "not answered to web pages"})
		return false
	}
	if kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || kind != TypeJSON {
		x.problem(&Problem{Status: http.StatusUnsupportedMediaType, Code: CodeMediaType, Detail: "send the request as " + TypeJSON})
		return false
	}
	return x.decode(v)
}

func (x *exchange) decode(v any) bool {
	body := json.NewDecoder(http.MaxBytesReader(x.w, x.r.Body, maxBody))
	body.DisallowUnknownFields()
	err := body.Decode(v)
	if err == nil {
		if _, err = body.Token(); errors.Is(err, io.EOF) {
			x.bodyRead()
			return true
		}
		err = errors.New("more than one JSON value")
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		x.problem(&Problem{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge, Detail: fmt.Sprintf("at most %d bytes", large.Limit)})
		return false
	}
	x.fail(fmt.Errorf("%w: body: %w", ErrInvalidRequest, err))
	return false
}

// loopback reports whether a peer is on this machine.
func loopback(peer string) bool {
	host, _, err := net.SplitHostPort(peer)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// localHost reports whether a Host header names this machine by address or as
// localhost: a page that reaches us under a name of its own is not trusted.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
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

// follow runs long work and streams its events, one JSON object a line. The
// last line is made by closing of the last event and the End. A request that is
// refused before the first event is answered with a plain problem.
func follow[R, E any](x *exchange, work func(context.Context, R, func(E) error) error, closing func(last E, end End) any) {
	var req R
	if !x.accept(&req) {
		return
	}
	var last E
	err := work(x.r.Context(), req, func(e E) error {
		last = e
		return x.event(e)
	})
	if x.r.Context().Err() != nil {
		return // nobody is there to tell
	}
	if err != nil && x.status == 0 {
		x.fail(err)
		return
	}
	end := End{Done: true}
	if err != nil {
		x.s.cfg.Logger.WarnContext(x.r.Context(), "work for an operator ended early", "request_id", x.id, "err", err)
		end.Error = problemOf(err)
		end.Error.Type, end.Error.Title, end.Error.RequestID = "about:blank", http.StatusText(end.Error.Status), x.id
	}
	if err := x.event(closing(last, end)); err != nil {
		x.abort(err)
	}
}

// event sends one line of a stream.
func (x *exchange) event(e any) error {
	b, err := json.Marshal(filled(e))
	if err != nil {
		return err
	}
	if x.status == 0 {
		h := x.w.Header()
		h["Content-Type"] = []string{TypeStream}
		h["Cache-Control"] = noStore
		h["X-Content-Type-Options"] = nosniff
		x.send(http.StatusOK)
	}
	x.extend()
	if err := x.write(append(b, '\n')); err != nil {
		return err
	}
	return http.NewResponseController(x.w).Flush()
}
