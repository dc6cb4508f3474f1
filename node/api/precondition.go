package api

import (
	"net/http"
	"strings"
	"time"
)

// validators are what a representation is compared by.
type validators struct {
	etag     string    // quoted; W/ before it when weak
	modified time.Time // whole seconds; zero: unknown
}

// verdict is what the preconditions of a request come to.
type verdict uint8

// The verdicts.
const (
	proceed verdict = iota
	notModified
	preconditionFailed
)

// preconditions evaluates a GET's or HEAD's conditions in the order of RFC 9110
// §13.2.2. If-Range is not among them: see rangeApplies.
func preconditions(h http.Header, v validators) verdict {
	if match, ok := h["If-Match"]; ok {
		if !matches(match, v.etag, strongMatch) {
			return preconditionFailed
		}
	} else if since, ok := date(h["If-Unmodified-Since"]); ok && !v.modified.IsZero() && v.modified.After(since) {
		return preconditionFailed
	}
	if match, ok := h["If-None-Match"]; ok {
		if matches(match, v.etag, weakMatch) {
			return notModified
		}
	} else if since, ok := date(h["If-Modified-Since"]); ok && !v.modified.IsZero() && !v.modified.After(since) {
		return notModified
	}
	return proceed
}

// rangeApplies reports whether If-Range lets the Range header count: it is
// absent, or it is the strong ETag, or the very date of Last-Modified.
func rangeApplies(h http.Header, v validators) bool {
	values, ok := h["If-Range"]
	if !ok {
		return true
	}
	if len(values) != 1 {
		return false
	}
	value := strings.TrimSpace(values[0])
	if tag, rest := cutETag(value); tag != "" {
		return rest == "" && strongMatch(tag, v.etag)
	}
	at, ok := date(values)
	return ok && !v.modified.IsZero() && v.modified.Equal(at)
}

// date parses a header that holds exactly one HTTP date.
func date(values []string) (time.Time, bool) {
	if len(values) != 1 {
		return time.Time{}, false
	}
	t, err := http.ParseTime(strings.TrimSpace(values[0]))
	return t, err == nil
}

// matches reports whether a list of entity tags, spread over any number of
// header lines, names etag or is "*". It stops at what is no entity tag.
func matches(lines []string, etag string, same func(a, b string) bool) bool {
	for _, list := range lines {
		if strings.TrimSpace(list) == "*" {
			return true
		}
		for {
			list = strings.TrimLeft(list, " \t,")
			if list == "" {
				break
			}
			tag, rest := cutETag(list)
			if tag == "" {
				break
			}
			if same(tag, etag) {
				return true
			}
			rest = strings.TrimLeft(rest, " \t")
			if rest != "" && rest[0] != ',' {
				break
			}
			list = rest
		}
	}
	return false
}

// cutETag splits an entity tag from the front of s; tag is empty when there is
// none.
func cutETag(s string) (tag, rest string) {
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if len(s) < start+2 || s[start] != '"' {
		return "", ""
	}
	for i := start + 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[:i+1], s[i+1:]
		case c == 0x21, c >= 0x23 && c <= 0x7e, c >= 0x80:
		default:
			return "", ""
		}
	}
	return "", ""
}

// strongMatch compares as RFC 9110 §8.8.3.2: equal and neither weak.
func strongMatch(a, b string) bool { return a == b && !strings.HasPrefix(a, "W/") }

// weakMatch compares the opaque tags alone.
func weakMatch(a, b string) bool {
	return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}
