package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// readKind is a way to ask for a file.
type readKind uint8

const (
	readWhole readKind = iota
	readPart
	readHead
	readByID
	readUnknown // a name that never was
)

func (k readKind) String() string {
	return [...]string{"GET", "GET range", "HEAD", "GET by id", "GET unknown"}[k]
}

// maxPart is the longest range that is asked for.
const maxPart = 64 << 10

// question is what one read asks for.
type question struct {
	kind   readKind
	name   string
	file   *file // nil: a name that never was
	off, n int64 // of the range
}

func (q question) String() string { return q.kind.String() + " " + strconv.Quote(q.name) }

// finding is what one try came to.
type finding uint8

const (
	noAnswer    finding = iota // no answer, or one that says to try again
	rightAnswer                // what the ledger says
	wrongAnswer                // what must not be
)

// found is a finding and what to say of it.
type found struct {
	found finding
	note  string
}

// reply is an answer as it came.
type reply struct {
	status      int
	code        string // of the problem, when it is one
	etag        string // of a strong one, the hash in hex
	total       int64  // of the file: Content-Length, or from Content-Range
	unconfirmed bool   // a newer version may exist
	body        []byte // of a part
	sum         [sha256.Size]byte
	size        int64 // of the body
}

// ask tries one node once, and holds its answer against the ledger.
func (l *load) ask(ctx context.Context, d door, q question, within time.Duration) found {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var before state
	if q.file != nil {
		before = l.ledger.state(q.file)
	}
	since, fit := d.Fit()
	from := time.Now()
	lags := !fit || since.After(from.Add(-staleAfter))
	r, err := fetch(ctx, d, q, before.id)
	if err != nil {
		return found{noAnswer, err.Error()}
	}
	to := time.Now()
	var after state
	if q.file != nil {
		after = l.ledger.state(q.file)
	}
	return l.look(sight{q, r, d.Name(), before, after, from, to, lags})
}

// sight is one answer with what the ledger said before and after it.
type sight struct {
	q             question
	r             reply
	door          string
	before, after state
	from, to      time.Time
	lags          bool // the node is, or a moment ago was, cut off from the others
}

// String is short enough for a report.
func (g sight) String() string {
	return fmt.Sprintf("%d %s, %d bytes after %s", g.r.status, g.r.code, g.r.size, g.to.Sub(g.from).Round(time.Millisecond))
}

// fetch sends a question and reads the answer to its end.
func fetch(ctx context.Context, d door, q question, id int64) (r reply, err error) {
	method, path := http.MethodGet, "/files/"+escape(q.name)
	switch q.kind {
	case readHead:
		method = http.MethodHead
	case readByID:
		path = fmt.Sprintf("/ids/%d", id)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, nil)
	if err != nil {
		return r, err
	}
	if q.kind == readPart {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", q.off, q.off+q.n-1))
	}
	resp, err := d.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	r = reply{status: resp.StatusCode, total: resp.ContentLength, unconfirmed: resp.Header.Get("X-Des-Unconfirmed") != ""}
	if tag, ok := strings.CutPrefix(resp.Header.Get("ETag"), `"`); ok {
		r.etag = strings.TrimSuffix(tag, `"`)
	}
	if _, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok {
		if r.total, err = strconv.ParseInt(total, 10, 64); err != nil {
			return r, fmt.Errorf("Content-Range: %w", err)
		}
	}
	if r.status >= 400 {
		var problem struct{ Code string }
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&problem) // without a code it shows as such
		r.code = problem.Code
		return r, nil
	}
	var keep bytes.Buffer
	h := sha256.New()
	to := io.Writer(h)
	if r.status == http.StatusPartialContent {
		to = io.MultiWriter(h, &keep)
	}
	if r.size, err = io.Copy(to, io.LimitReader(resp.Body, 2*maxSize)); err != nil {
		return r, err
	}
	r.body, r.sum = keep.Bytes(), [sha256.Size]byte(h.Sum(nil))
	return r, nil
}

// look judges an answer.
func (l *load) look(g sight) found {
	existing := g.q.file != nil
	switch g.r.status {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		if !existing {
			return l.wrong(inventedNames, g)
		}
		switch g.after.judge(g.r.matches(g.q), g.from, g.to, g.r.unconfirmed) {
		case rightNow:
			return found{found: rightAnswer}
		case rightOnce:
			if g.lags {
				l.lagged.Add(1) // it has yet to hear of the newer one
				return found{found: rightAnswer}
			}
			return l.wrong(staleReads, g)
		}
		return l.wrong(wrongBytes, g)
	case http.StatusNotFound, http.StatusGone:
		if existing && !g.before.seen.IsZero() {
			return l.wrong(deniedNames, g)
		}
		return found{found: rightAnswer}
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if !existing {
			return found{found: rightAnswer} // it can't be sure: that is said, and right
		}
		return found{noAnswer, g.String()}
	}
	f := l.wrong(strangeAnswers, g)
	f.found = noAnswer // a customer tries again
	return f
}

// wrong counts an answer that must not be.
func (l *load) wrong(what breach, g sight) found {
	text := fmt.Sprintf("%s at %.1fs through %s: %s", g.q, g.from.Sub(l.timeline.start).Seconds(), g.door, g)
	for i := range g.after.versions {
		if v := &g.after.versions[i]; g.r.matches(g.q)(v) {
			text += fmt.Sprintf(", version %d of %d", v.number, len(g.after.versions))
		} else if !v.archived.IsZero() {
			text += fmt.Sprintf(", version %d archived at %.1fs", v.number, v.archived.Sub(l.timeline.start).Seconds())
		}
	}
	l.verdict.breach(what, "%s", text)
	return found{wrongAnswer, g.String()}
}

// matches says of which version an answer with content is.
func (r reply) matches(q question) func(*version) bool {
	return func(v *version) bool {
		if r.etag != "" && r.etag != hex.EncodeToString(v.sum[:]) {
			return false
		}
		switch {
		case r.status == http.StatusRequestedRangeNotSatisfiable:
			return q.kind == readPart && r.total == v.size && q.off >= v.size
		case r.status == http.StatusPartialContent:
			end := min(q.off+q.n, v.size)
			return q.kind == readPart && r.total == v.size && q.off < v.size && bytes.Equal(r.body, v.content()[q.off:end])
		case q.kind == readHead:
			return r.total == v.size
		}
		return r.sum == v.sum
	}
}

// escape writes a name as a path of a URL.
func escape(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
