package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
)

// Seconds after which a client may try again.
var (
	retryBusy        = []string{"1"}
	retryUnconfirmed = []string{"2"}
	retryUnavailable = []string{"5"}
)

// problem answers with a problem+json body.
func (x *exchange) problem(p *Problem) { x.problemWith(p, "", "") }

// problemWith is problem with one header more; an empty key is none.
func (x *exchange) problemWith(p *Problem, key, value string) {
	p.Type = "about:blank"
	p.Title = http.StatusText(p.Status)
	p.RequestID = x.id
	h := x.w.Header()
	for _, name := range entityHeaders {
		delete(h, name)
	}
	if key != "" {
		h[key] = []string{value}
	}
	switch p.Code {
	case CodeBusy:
		h["Retry-After"] = retryBusy
	case CodeUnconfirmed:
		h["Retry-After"] = retryUnconfirmed
	case CodeUnavailable:
		h["Retry-After"] = retryUnavailable
	}
	b, err := json.Marshal(p)
	if err != nil { // strings and numbers only: it can't be
		b = []byte("{}")
	}
	x.body(p.Status, TypeProblem, append(b, '\n'))
}

// fail answers with the problem that err stands for, and logs it when the
// client is not at fault.
func (x *exchange) fail(err error) {
	p := problemOf(err)
	x.problem(p)
	if p.Status < http.StatusInternalServerError {
		return
	}
	level := slog.LevelWarn
	switch {
	case x.r.Context().Err() != nil:
		level = slog.LevelDebug // the client left
	case p.Code == CodeCorrupt, p.Code == CodeInternal:
		level = slog.LevelError
	}
	if x.s.cfg.Logger.Enabled(x.r.Context(), level) {
		x.log(level, "request failed", slog.String("code", string(p.Code)), slog.String("error", err.Error()))
	}
}

// damageText tells a client what is wrong with a pack.
var damageText = [...]string{
	retriever.Flipped:   "stored bytes contradict their checksum",
	retriever.Truncated: "the pack's object is cut short",
	retriever.Replaced:  "something else is stored in the pack's place",
	retriever.Missing:   "the pack's object is missing",
}

// problemOf tells what an error means to a client. What the text of an
// unexpected error says stays in the log.
func problemOf(err error) *Problem {
	var ready *Problem
	if errors.As(err, &ready) {
		p := *ready // problem fills in the rest
		p.Status = or(p.Status, http.StatusInternalServerError)
		p.Code = or(p.Code, CodeInternal)
		return &p
	}
	var corrupt *retriever.CorruptError
	if errors.As(err, &corrupt) {
		offset := corrupt.Offset
		return &Problem{
			Status: http.StatusInternalServerError, Code: CodeCorrupt,
			Detail: damageText[corrupt.Damage], Pack: corrupt.Pack.String(), Offset: &offset,
		}
	}
	var original *retriever.OriginalError
	if errors.As(err, &original) {
		return &Problem{Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Detail: original.Public()}
	}
	const noAnswer = "the store or a source does not answer; the node's log says which"
	const noQuorum = "no quorum of the cluster's nodes answers, so nothing can be decided or said to be missing; 'desnode members' tells who is away"
	for _, known := range []struct {
		err    error
		status int
		code   Code
		say    string // what the client is told, in place of the error's text
	}{
		{desformat.ErrInvalidName, http.StatusBadRequest, CodeInvalidName, ""},
		{ErrInvalidRequest, http.StatusBadRequest, CodeInvalidRequest, ""},
		{retriever.ErrUnknownSource, http.StatusBadRequest, CodeInvalidRequest, ""},
		{retriever.ErrAmbiguous, http.StatusBadRequest, CodeInvalidRequest, ""},
		{ErrConflict, http.StatusConflict, CodeConflict, ""},
		{retriever.ErrUnconfirmed, http.StatusServiceUnavailable, CodeUnconfirmed, ""},
		{raftmeta.ErrNotLeader, http.StatusServiceUnavailable, CodeUnconfirmed, noQuorum},
		{raftmeta.ErrUnconfirmed, http.StatusServiceUnavailable, CodeUnconfirmed, noQuorum},
		{retriever.ErrUnavailable, http.StatusServiceUnavailable, CodeUnavailable, noAnswer},
		{retriever.ErrNotFound, http.StatusNotFound, CodeNotFound, ""},
		{retriever.ErrGone, http.StatusGone, CodeGone, ""},
		{retriever.ErrBusy, http.StatusTooManyRequests, CodeBusy, ""},
		{desformat.ErrCorrupt, http.StatusInternalServerError, CodeCorrupt, ""},
		{context.DeadlineExceeded, http.StatusServiceUnavailable, CodeUnavailable, noAnswer},
		{context.Canceled, http.StatusServiceUnavailable, CodeUnavailable, ""},
	} {
		if errors.Is(err, known.err) {
			return &Problem{Status: known.status, Code: known.code, Detail: cmp.Or(known.say, detail(known.status, known.err, err))}
		}
	}
	return &Problem{Status: http.StatusInternalServerError, Code: CodeInternal, Detail: "an unexpected error; the log has it under this request id"}
}

// detail is what the client is told: the whole text where the client is at
// fault, only the kind of error where paths and addresses could stand in it.
func detail(status int, kind, err error) string {
	if status < http.StatusInternalServerError {
		text := strings.TrimPrefix(err.Error(), ErrInvalidRequest.Error()+": ") // the code says it
		return strings.TrimPrefix(text, ErrConflict.Error()+": ")
	}
	return kind.Error()
}
