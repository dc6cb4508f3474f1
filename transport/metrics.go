package transport

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures des_transport_*.
type metrics struct {
	refused                *prometheus.CounterVec
	read, call, join, raft planeMetrics
	all                    []prometheus.Collector
}

// planeMetrics are one plane's, looked up once: reads are counted where time is
// counted too. in is what others began, or bytes that came.
type planeMetrics struct {
	handshakesIn, handshakesOut prometheus.Counter
	requestsIn, requestsOut     prometheus.Counter // of Raft's bytes the transport knows no requests
	bytesIn, bytesOut           prometheus.Counter
}

func newMetrics(expires func() float64) *metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_transport_" + name, Help: help}, labels)
	}
	handshakes := vec("handshakes_total", "Connections made, by plane and by who began.", "plane", "direction")
	requests := vec("requests_total", "Reads, calls, joins and renewals, by plane: in was asked of this node, out by it.", "plane", "direction")
	bytes := vec("bytes_total", "Bytes of content, bodies and answers, and of all of Raft's, by plane.", "plane", "direction")
	m := &metrics{refused: vec("refused_total", "Connections and joins refused, whoever began, by plane and reason.", "plane", "reason")}
	plane := func(name string) planeMetrics {
		return planeMetrics{
			handshakesIn: handshakes.WithLabelValues(name, "in"), handshakesOut: handshakes.WithLabelValues(name, "out"),
			requestsIn: requests.WithLabelValues(name, "in"), requestsOut: requests.WithLabelValues(name, "out"),
			bytesIn: bytes.WithLabelValues(name, "in"), bytesOut: bytes.WithLabelValues(name, "out"),
		}
	}
	m.read, m.call, m.join, m.raft = plane("read"), plane("call"), plane("join"), plane("raft")
	for _, name := range []string{"read", "call", "join", "raft"} {
		for _, reason := range []string{reasonNoCertificate, reasonCertificate, reasonExpired, reasonNode, reasonNotMember} {
			m.refused.WithLabelValues(name, reason)
		}
	}
	m.all = []prometheus.Collector{handshakes, requests, bytes, m.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "des_transport_certificate_expires_seconds", Help: "Time until this node's certificate expires; below zero: it has.",
	}, expires)}
	return m
}

// register makes the figures known; reg may be nil.
func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	var errs []error
	for _, c := range m.all {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("transport: register metrics: %w", err)
	}
	return nil
}

// of returns a plane's figures by its ALPN.
func (m *metrics) of(alpn string) *planeMetrics {
	switch alpn {
	case alpnRead:
		return &m.read
	case alpnCall:
		return &m.call
	case alpnRaft:
		return &m.raft
	}
	return &m.join
}
