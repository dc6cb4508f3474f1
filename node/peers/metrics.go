package peers

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures des_peers_*.
type metrics struct {
	hello, rendezvous, certificates, tokens *prometheus.CounterVec
	missing, keysVersion                    prometheus.Gauge
}

// Values of the labels.
const (
	resultOK      = "ok"
	resultError   = "error"
	resultNone    = "none"
	resultRefused = "refused"

	opPublish = "publish"
	opFetch   = "fetch"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		hello:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_peers_hello_total", Help: "Addresses at which members were looked for, by result."}, []string{"result"}),
		rendezvous:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_peers_rendezvous_total", Help: "Requests to the store for addresses of members, by operation and result."}, []string{"op", "result"}),
		certificates: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_peers_certificates_total", Help: "Certificates that this node issued, to joiners, to other members and to itself."}, []string{"to"}),
		tokens:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_peers_joins_total", Help: "Nodes with a proven join token that this node answered, by result."}, []string{"result"}),
		missing:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "des_peers_missing_members", Help: "Members that gossip does not see."}),
		keysVersion:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "des_peers_gossip_keys_version", Help: "Version of the gossip keys that this node uses."}),
	}
	for _, r := range []string{resultOK, resultError, resultRefused} {
		m.hello.WithLabelValues(r)
	}
	for _, r := range []string{resultOK, resultError, resultNone} {
		m.rendezvous.WithLabelValues(opFetch, r)
	}
	for _, r := range []string{resultOK, resultError} {
		m.rendezvous.WithLabelValues(opPublish, r)
		m.tokens.WithLabelValues(r)
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.hello, m.rendezvous, m.certificates, m.tokens, m.missing, m.keysVersion} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics of peers: %w", err)
	}
	return m, nil
}
