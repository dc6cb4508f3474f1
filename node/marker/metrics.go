package marker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/source"
)

type metrics struct {
	rows    prometheus.Counter
	bytes   prometheus.Counter
	moved   prometheus.Counter
	refused map[string]prometheus.Counter // by code
	errors  prometheus.Counter
	backlog *prometheus.GaugeVec // by source and unit
	round   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "des_marker_refused_rows_total",
		Help: "Rows that can never be archived, by failure code.",
	}, []string{"code"})
	m := &metrics{
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "des_marker_rows_total", Help: "Rows moved to MARKED.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "des_marker_bytes_total", Help: "Bytes of the rows moved to MARKED.",
		}),
		moved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "des_marker_overtaken_rows_total", Help: "Rows that changed between being listed and being marked.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "des_marker_errors_total", Help: "Rounds of a source that ended early with an error.",
		}),
		backlog: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "des_marker_backlog",
			Help: "MARKED rows waiting to be packed, as last counted, by source and unit (rows, bytes).",
		}, []string{"source", "unit"}),
		round: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "des_marker_round_seconds",
			Help:    "Duration of one source's marking round that found work.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}),
		refused: make(map[string]prometheus.Counter),
	}
	for _, code := range []string{source.CodeInvalidName, source.CodeInvalidPath, source.CodeInvalidRow} {
		m.refused[code] = refused.WithLabelValues(code)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rows, m.bytes, m.moved, m.errors, m.backlog, m.round, refused} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
