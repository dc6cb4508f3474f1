package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
)

// maxBody bounds the body of an operator's request, in bytes.
const maxBody = 8 << 20

// forwarding are headers of proxies. One on this machine would make everyone a
// loopback peer.
var forwarding = []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"}

// accept admits a request that changes something and decodes its body into v:
// from this machine only until there is authentication, never on behalf of a
// page in somebody's browser, and only as JSON, which a form can't send.
func (x *exchange) accept(v any) bool {
	return x.allow(http.MethodPost) && x.fromHere() && x.isJSON() && x.decode(v)
}

// fromHere admits requests from this machine that no page and no proxy made.
func (x *exchange) fromHere() bool {
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
	return true
}

func (x *exchange) isJSON() bool {
	if kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || kind != TypeJSON {
		x.problem(&Problem{Status: http.StatusUnsupportedMediaType, Code: CodeMediaType, Detail: "send the request as " + TypeJSON})
		return false
	}
	return true
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
