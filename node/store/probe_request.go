package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// probeAnswer is when one request went out and what its answer's head said.
type probeAnswer struct {
	method string
	status int
	sent   time.Time
	took   time.Duration // until the answer's head
	date   time.Time     // by the server; zero when it gave none
	server string
}

// probeWire notes the answers that pass through it. Safe for many callers at once.
type probeWire struct {
	next s3.HTTPClient
	now  func() time.Time

	mu      sync.Mutex // guards answers
	answers []probeAnswer
}

// Do sends one request.
func (w *probeWire) Do(req *http.Request) (*http.Response, error) {
	began, sent := time.Now(), w.now()
	res, err := w.next.Do(req)
	if err != nil {
		return nil, err
	}
	a := probeAnswer{method: req.Method, status: res.StatusCode, sent: sent, took: time.Since(began), server: res.Header.Get("Server")}
	if t, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		a.date = t
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, a)
	return res, nil
}

func (w *probeWire) all() []probeAnswer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]probeAnswer(nil), w.answers...)
}

// probeDenied reports whether the server refused for want of rights.
func probeDenied(err error) bool {
	return errStatus(err) == http.StatusForbidden && !probeBadCredentials(err) && errCode(err) != "RequestTimeTooSkewed"
}

func probeBadCredentials(err error) bool {
	switch errCode(err) {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return true
	}
	return false
}

// probeUnknown reports whether the server does not know what was asked for.
func probeUnknown(err error) bool {
	return errStatus(err) == http.StatusNotImplemented || errStatus(err) == http.StatusMethodNotAllowed || errCode(err) == "NotImplemented"
}

// probeRefused reports whether the condition of a request did not hold.
func probeRefused(err error) bool {
	return errStatus(err) == http.StatusPreconditionFailed || errStatus(err) == http.StatusConflict
}

// probeExplain says in a few words what err is, without what the SDK wraps around.
func probeExplain(err error) string {
	var ae smithy.APIError
	var netErr net.Error
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &ae) && errStatus(err) != 0:
		text := fmt.Sprintf("%d %s", errStatus(err), ae.ErrorCode())
		if m := ae.ErrorMessage(); m != "" {
			text += " (" + strings.TrimSuffix(m, ".") + ")"
		}
		return text
	case errStatus(err) != 0:
		return fmt.Sprintf("status %d", errStatus(err))
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + probeRequestTimeout.String()
	}
	prefix := ""
	if probeNoCredentials(err) {
		prefix = "no credentials: "
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return prefix + err.Error()
}

// probeNoCredentials reports whether a request was not sent because the SDK
// found nothing to sign it with. It has no type for that.
func probeNoCredentials(err error) bool {
	return err != nil && strings.Contains(err.Error(), "get credentials:")
}

// probeRemedy says what to set after a request failed with err.
func probeRemedy(err error) string {
	switch {
	case probeNoCredentials(err):
		return "give credentials: name them in store.credentials, or set what the SDK looks for (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE)"
	case errCode(err) == "NoSuchBucket":
		return "make the bucket, or correct its name in store.url"
	case errCode(err) == "RequestTimeTooSkewed":
		return "set this machine's clock (NTP)"
	case probeBadCredentials(err):
		return "give credentials that the server knows (store.credentials)"
	case errStatus(err) == http.StatusMovedPermanently, errStatus(err) == http.StatusTemporaryRedirect, errCode(err) == "AuthorizationHeaderMalformed":
		return "set the bucket's region in store.url: ?region=…"
	case probeDenied(err):
		return "grant what deploy/s3 lists for this role"
	case errStatus(err) == 0:
		return "check the endpoint in store.url, the network and, with https, store.ca_file"
	}
	return "see the server's log"
}

// probeObject is an object that the probe put.
type probeObject struct {
	key, etag, version string
}

// keep remembers what has to be removed.
func (p *probing) keep(key, version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, probeMade{key, version})
}

// put writes one object as role; change may alter the request.
func (p *probing) put(ctx context.Context, role ProbeRole, key string, body []byte, change func(*s3.PutObjectInput), opts ...func(*s3.Options)) (probeObject, error) {
	ctx, cancel := context.WithTimeout(ctx, probeRequestTimeout)
	defer cancel()
	in := &s3.PutObjectInput{Bucket: &p.bucket, Key: &key, Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body)))}
	if change != nil {
		change(in)
	}
	out, err := p.clients[role].PutObject(ctx, in, opts...)
	if err != nil {
		return probeObject{}, err
	}
	w := probeObject{key: key, etag: aws.ToString(out.ETag), version: aws.ToString(out.VersionId)}
	p.keep(key, w.version)
	return w, nil
}

// probeGot is an object that was read.
type probeGot struct {
	body   []byte
	etag   string
	crange string
}

// get reads one object with the credentials to read.
func (p *probing) get(ctx context.Context, key string, change func(*s3.GetObjectInput)) (probeGot, error) {
	ctx, cancel := context.WithTimeout(ctx, probeRequestTimeout)
	defer cancel()
	in := &s3.GetObjectInput{Bucket: &p.bucket, Key: &key}
	if change != nil {
		change(in)
	}
	out, err := p.clients[ProbeRead].GetObject(ctx, in)
	if err != nil {
		return probeGot{}, err
	}
	body, err := io.ReadAll(io.LimitReader(out.Body, 1<<20))
	if err = errors.Join(err, out.Body.Close()); err != nil {
		return probeGot{}, fmt.Errorf("read %s: %w", key, err)
	}
	return probeGot{body: body, etag: aws.ToString(out.ETag), crange: aws.ToString(out.ContentRange)}, nil
}

// within runs one request under the time limit of requests.
func (probeTarget) within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeRequestTimeout)
	defer cancel()
	return f(ctx)
}

// pack returns the key of an object that only the credentials to write make,
// aside the one for what is moved away.
func (p *probing) pack(name string) string       { return p.folder + "packs/" + name }
func (p *probing) quarantine(name string) string { return p.folder + "quarantine/" + name }

// probeBytes returns n bytes of which each place can be told from the others.
func probeBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
