package api

import (
	"context"
	"encoding/json"
	"net/http"
)

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
