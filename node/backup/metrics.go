package backup

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures des_backup_* and des_backups_total.
type metrics struct {
	last, bytes prometheus.Gauge
	tries       *prometheus.CounterVec
}

const (
	resultOK     = "ok"
	resultFailed = "failed"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "des", Subsystem: "backup", Name: "last_success_timestamp_seconds",
			Help: "When the newest backup of the cluster's state was made, by any node; 0: there is none.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "des", Subsystem: "backup", Name: "bytes", Help: "Size of the newest backup of the cluster's state.",
		}),
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "des", Name: "backups_total", Help: "Backups of the cluster's state that this node tried to make, by result.",
		}, []string{"result"}),
	}
	m.tries.WithLabelValues(resultOK)
	m.tries.WithLabelValues(resultFailed)
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.last), reg.Register(m.bytes), reg.Register(m.tries))
}

// known takes over which backups there are, newest first.
func (m *metrics) known(all []Entry) {
	if len(all) == 0 {
		return
	}
	m.last.Set(float64(all[0].At.UnixNano()) / 1e9)
	m.bytes.Set(float64(all[0].Bytes))
}

// tried counts how a try ended; the zero Entry without an error is none.
func (m *metrics) tried(made Entry, err error) {
	switch {
	case err != nil:
		m.tries.WithLabelValues(resultFailed).Inc()
	case made.Key != "":
		m.tries.WithLabelValues(resultOK).Inc()
	}
}
