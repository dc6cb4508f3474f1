package packer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/source"
)

type metrics struct {
	rows, bytes, packs   prometheus.Counter
	again                prometheus.Counter
	retries, errors      prometheus.Counter
	clashes              prometheus.Counter
	failures             map[string]prometheus.Counter // by code
	backlogRows, backlog prometheus.Gauge
	building             prometheus.Gauge
	duration, wait       prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "des_packer_" + name, Help: help})
		all = append(all, c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "des_packer_" + name, Help: help})
		all = append(all, g)
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "des_packer_" + name, Help: help, Buckets: buckets})
		all = append(all, h)
		return h
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "des_packer_failed_attempts_total",
		Help: "Failed attempts at rows and refused rows, by failure code.",
	}, []string{"code"})
	all = append(all, failures)
	m := &metrics{
		rows:        counter("rows_total", "Records in committed packs."),
		bytes:       counter("bytes_total", "Content bytes in committed packs."),
		packs:       counter("packs_total", "Committed packs."),
		again:       counter("acknowledged_again_total", "Rows whose file lived in a pack already."),
		retries:     counter("retries_total", "Repeated steps against the store or the manifest."),
		errors:      counter("errors_total", "Builds and rounds that ended with an error."),
		clashes:     counter("lease_clashes_total", "Leases asked for in vain: another node was faster."),
		backlogRows: gauge("backlog_rows", "MARKED rows that were due at the last round."),
		backlog:     gauge("backlog_bytes", "Bytes of the MARKED rows that were due at the last round, half a pack counted for each at most."),
		building:    gauge("building", "Packs being built, uploaded or committed now."),
		duration: histogram("pack_seconds", "From the lease on a range to its pack's acknowledgement.",
			prometheus.ExponentialBuckets(0.05, 2.5, 12)),
		wait: histogram("marked_to_packed_seconds", "From a row's marking to its pack's acknowledgement.",
			[]float64{1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 48 * 3600, 7 * 24 * 3600}),
		failures: make(map[string]prometheus.Counter),
	}
	for _, code := range []string{
		source.CodeInvalidName, source.CodeInvalidPath, source.CodeDuplicateName, source.CodeNoFile, source.CodeChanged,
		source.CodeChecksum, source.CodeNotRegular, source.CodeReadError, source.CodeRefused, source.CodeInvalidRow,
	} {
		m.failures[code] = failures.WithLabelValues(code)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// failure returns the counter of a code; all that the packer gives are bound.
func (m *metrics) failure(code string) prometheus.Counter { return m.failures[code] }
