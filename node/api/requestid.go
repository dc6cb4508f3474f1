package api

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"
)

// requestIDs makes ids for requests that bring none: a random prefix of this
// process and a number.
type requestIDs struct {
	prefix string
	last   atomic.Uint64
}

func newRequestIDs() (*requestIDs, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	return &requestIDs{prefix: hex.EncodeToString(b[:]) + "-"}, nil
}

func (g *requestIDs) next() string {
	var room [40]byte
	return string(strconv.AppendUint(append(room[:0], g.prefix...), g.last.Add(1), 36))
}

// maxRequestID is the length of the longest request id that is taken over.
const maxRequestID = 64

// validRequestID reports whether id is [A-Za-z0-9._-]{1,64}.
func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// maxTraceparent is the length of the longest traceparent that is passed on to
// another node, in bytes; those of today's version have 55.
const maxTraceparent = 128

// traceID returns the trace id of a traceparent header as W3C Trace Context
// defines it, or nothing when the header is not valid. Versions above 00 may
// have further fields behind a dash; version ff is forbidden.
func traceID(header string) string {
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(header) < length || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return ""
	}
	version, trace, parent, flags := header[:2], header[3:35], header[36:52], header[53:55]
	if !lowerHex(version) || !lowerHex(trace) || !lowerHex(parent) || !lowerHex(flags) {
		return ""
	}
	switch {
	case version == "ff", zeros(trace), zeros(parent):
		return ""
	case len(header) > length && (version == "00" || header[length] != '-'):
		return ""
	}
	return trace
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
