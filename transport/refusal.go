package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Reasons of refusals, as the metric has them.
const (
	reasonNoCertificate = "no-certificate"
	reasonCertificate   = "certificate" // another CA's, or not for this use
	reasonExpired       = "expired"
	reasonNode          = "node" // it names no node, another one, or one of another cluster
	reasonNotMember     = "not-member"
	reasonToken         = "token"
	reasonNotServed     = "not-served"
	reasonVersion       = "version"
	reasonBusy          = "busy"
	reasonHandshake     = "handshake" // no TLS, or broken off
	reasonNotQUIC       = "not-quic"
	reasonOther         = "other"
)

// identityError is an ErrIdentity with its reason.
type identityError struct {
	reason string
	err    error
}

func badIdentity(reason, format string, a ...any) error {
	return &identityError{reason, fmt.Errorf(format, a...)}
}

func (e *identityError) Error() string   { return ErrIdentity.Error() + ": " + e.err.Error() }
func (e *identityError) Unwrap() []error { return []error{ErrIdentity, e.err} }

// reasonOf names what a refusal was for.
func reasonOf(err error) string {
	var id *identityError
	if errors.As(err, &id) {
		return id.reason
	}
	for _, p := range []struct {
		err    error
		reason string
	}{
		{ErrNotMember, reasonNotMember},
		{ErrToken, reasonToken},
		{ErrTokenExpired, reasonToken},
		{ErrTokenUsed, reasonToken},
		{errNotServed, reasonNotServed},
		{ErrVersion, reasonVersion},
		{ErrBusy, reasonBusy},
		{errHandshake, reasonHandshake},
		{errNotQUIC, reasonNotQUIC},
	} {
		if errors.Is(err, p.err) {
			return p.reason
		}
	}
	return reasonOther
}

// Refusals that nobody outside is told of.
var (
	errNotServed = errors.New("the plane is not served here")
	errHandshake = errors.New("no TLS handshake")
	errNotQUIC   = errors.New("not a QUIC packet")
)

// A refusal of one plane and reason is logged refusalBurst times, then once
// every refusalEvery: whoever can send us packets must not fill the disk. What
// was left out is counted, in the log and in the metric.
const (
	refusalBurst = 10
	refusalEvery = time.Minute
)

// refusals logs what was refused. Its methods may be called at once.
type refusals struct {
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	mu    sync.Mutex // guards kinds
	kinds map[refusalKind]*refusalLog
}

// refusalKind is one of few: planes times reasons.
type refusalKind struct{ plane, reason string }

type refusalLog struct {
	limit *rate.Limiter
	left  int // refusals that were not logged
}

// tell counts a refusal and logs it if it may be. plane is its ALPN, empty for
// what chose none.
func (r *refusals) tell(remote net.Addr, plane string, err error) {
	kind := refusalKind{planeName(plane), reasonOf(err)}
	r.metrics.refused.WithLabelValues(kind.plane, kind.reason).Inc()
	r.mu.Lock()
	k := r.kinds[kind]
	if k == nil {
		k = &refusalLog{limit: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst)}
		r.kinds[kind] = k
	}
	if !k.limit.AllowN(r.now(), 1) {
		k.left++
		r.mu.Unlock()
		return
	}
	left := k.left
	k.left = 0
	r.mu.Unlock()
	attrs := []any{"remote", remote.String(), "plane", plane, "reason", kind.reason, "error", cut(err.Error(), maxDetail)}
	if left > 0 {
		attrs = append(attrs, "not_logged", left)
	}
	r.log.Warn("a connection was refused", attrs...)
}

// planeName is the word of a plane's ALPN.
func planeName(alpn string) string {
	name, _, ok := strings.Cut(strings.TrimPrefix(alpn, "desnode-"), "/")
	if !ok {
		return "none"
	}
	return name
}
