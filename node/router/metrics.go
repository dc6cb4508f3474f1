package router

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/transport"
)

// route is how a read by name was answered.
type route uint8

// The routes.
const (
	routeLocal    route = iota // by this node, nobody was asked
	routeHot                   // an earlier answer, from memory
	routeOwner                 // the owner answered
	routeHedge                 // the next owner was faster
	routeLocation              // read here, where the owner said
	routeFallback              // by this node, after asking was of no use
	routes
)

var routeNames = [routes]string{"local", "hot", "owner", "hedge", "location", "fallback"}

// reason is why asking was of no use.
type reason uint8

// The reasons.
const (
	reasonUnreachable reason = iota
	reasonBreaker
	reasonLate
	reasonDeclined
	reasonNotOwner
	reasonBusy
	reasonNotFound
	reasonGone
	reasonUnconfirmed
	reasonUnavailable
	reasonCorrupt
	reasonOutdated
	reasonContradiction
	reasonCanceled
	reasonOther
	reasons
)

var reasonNames = [reasons]string{
	"unreachable", "breaker", "late", "declined", "not-owner", "busy", "not-found", "gone",
	"unconfirmed", "unavailable", "corrupt", "outdated", "contradiction", "canceled", "other",
}

// reasonOf is the reason that an error stands for.
func reasonOf(err error) reason {
	for _, k := range []struct {
		err    error
		reason reason
	}{
		{retriever.ErrOutdated, reasonOutdated},
		{retriever.ErrContradiction, reasonContradiction},
		{transport.ErrNotFound, reasonNotFound},
		{transport.ErrDeclined, reasonDeclined},
		{transport.ErrBreaker, reasonBreaker},
		{transport.ErrUnreachable, reasonUnreachable},
		{transport.ErrNotOwner, reasonNotOwner},
		{transport.ErrBusy, reasonBusy},
		{transport.ErrTooLate, reasonLate},
		{transport.ErrGone, reasonGone},
		{transport.ErrUnconfirmed, reasonUnconfirmed},
		{transport.ErrCorrupt, reasonCorrupt},
		{desformat.ErrCorrupt, reasonCorrupt},
		{transport.ErrUnavailable, reasonUnavailable},
		{retriever.ErrUnavailable, reasonUnavailable},
		{context.DeadlineExceeded, reasonLate},
		{context.Canceled, reasonCanceled},
	} {
		if errors.Is(err, k.err) {
			return k.reason
		}
	}
	return reasonOther
}

// metrics holds every label bound.
type metrics struct {
	routes                [routes]prometheus.Counter
	fallbacks             [reasons]prometheus.Counter
	hops                  prometheus.Histogram
	hedgesWon, hedgesLost prometheus.Counter
	answers               map[string]prometheus.Counter // by status; never changed
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "des", Subsystem: "router", Name: name, Help: help}, []string{label})
	}
	requests := vector("routes_total", "Reads by how they were routed.", "route")
	fallbacks := vector("fallbacks_total", "Reads that this node answered itself after asking another was of no use.", "reason")
	served := vector("served_total", "Reads answered for other nodes, by status.", "status")
	hedges := vector("hedges_total", "Questions to a second owner, by whether its answer was used.", "won")
	m := &metrics{
		hops: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "des", Subsystem: "router", Name: "hop_seconds",
			Help:    "Time of one question to another node, until its answer was whole or given up.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 2, 14), // 100 µs to 0.8 s
		}),
		hedgesWon: hedges.WithLabelValues("true"), hedgesLost: hedges.WithLabelValues("false"),
		answers: make(map[string]prometheus.Counter, len(statusNames)),
	}
	for i := range routes {
		m.routes[i] = requests.WithLabelValues(routeNames[i])
	}
	for i := range reasons {
		m.fallbacks[i] = fallbacks.WithLabelValues(reasonNames[i])
	}
	for _, name := range statusNames {
		m.answers[name] = served.WithLabelValues(name)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{requests, fallbacks, served, hedges, m.hops} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

var statusNames = [...]string{"ok", "not-found", "gone", "declined", "unavailable", "corrupt", "invalid", "unsupported", "range", "late", "other"}

// served counts an answer to another node.
func (m *metrics) served(err error) { m.answers[statusName(err)].Inc() }

func statusName(err error) string {
	if err == nil {
		return "ok"
	}
	for _, k := range []struct {
		err  error
		name string
	}{
		{retriever.ErrNotFound, "not-found"},
		{retriever.ErrBehind, "declined"},
		{retriever.ErrGone, "gone"},
		{desformat.ErrCorrupt, "corrupt"},
		{retriever.ErrUnavailable, "unavailable"},
		{desformat.ErrInvalidName, "invalid"},
		{transport.ErrUnsupported, "unsupported"},
		{transport.ErrRange, "range"},
		{context.DeadlineExceeded, "late"},
		{context.Canceled, "late"},
	} {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return "other"
}
