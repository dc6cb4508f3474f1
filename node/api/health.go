package api

import (
	_ "embed"
	"net/http"
)

// openAPI is the contract of this package, served as it is.
//
//go:embed openapi.yaml
var openAPI []byte

const (
	typeText = "text/plain; charset=utf-8"
	typeYAML = "application/yaml"
)

// live answers that the process is there.
func (x *exchange) live() {
	if x.readOnly() {
		x.body(http.StatusOK, typeText, []byte("ok\n"))
	}
}

// ready answers whether reads are answered here. It asks no source.
func (x *exchange) ready() {
	if !x.readOnly() {
		return
	}
	if err := x.s.cfg.Ready(x.r.Context()); err != nil {
		x.problem(&Problem{Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Detail: err.Error()})
		return
	}
	x.body(http.StatusOK, typeText, []byte("ready\n"))
}

func (x *exchange) scrape() {
	if x.readOnly() {
		x.extend()
		x.s.scrape.ServeHTTP(scraped{x.w, x}, x.r)
	}
}

// scraped notes what the metrics' own handler sends.
type scraped struct {
	http.ResponseWriter
	x *exchange
}

// WriteHeader sends the header.
func (w scraped) WriteHeader(status int) { w.x.send(status) }

// Write sends part of the body.
func (w scraped) Write(b []byte) (int, error) {
	before := w.x.bytes
	err := w.x.write(b)
	return int(w.x.bytes - before), err
}

func (x *exchange) openAPI() {
	if x.readOnly() {
		x.body(http.StatusOK, typeYAML, openAPI)
	}
}
