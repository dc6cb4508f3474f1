package keeper

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/raftmeta"
)

// metrics are the figures des_keeper_*.
type metrics struct {
	acknowledged, dead, unproven prometheus.Counter
	verifiedPacks, verifiedBytes prometheus.Counter
	damageFound                  prometheus.Counter
	collected, expired           prometheus.Counter
	kept                         prometheus.Counter
	deletions, errors            *prometheus.CounterVec
	damaged, oldest              prometheus.Gauge
	queue                        *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "des", Subsystem: "keeper", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "des", Subsystem: "keeper", Name: name, Help: help})
	}
	m := &metrics{
		acknowledged:  counter("acknowledged_records_total", "Records whose row was moved to PACKED."),
		dead:          counter("dead_records_total", "Records found dead when their pack was acknowledged."),
		unproven:      counter("unproven_records_total", "Records of packs of an earlier life of the cluster that live although their row does not say so."),
		verifiedPacks: counter("verified_packs_total", "Packs read back whole."),
		verifiedBytes: counter("verified_bytes_total", "Bytes of packs read back."),
		damageFound:   counter("damage_found_total", "Verifications that found a pack damaged."),
		collected:     counter("garbage_quarantined_total", "Objects without a pack that were moved to quarantine."),
		expired:       counter("garbage_deleted_total", "Objects deleted after their time in quarantine."),
		kept:          counter("garbage_kept_total", "Times that an object without a pack was kept, because it holds files that are nowhere else."),
		deletions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "des", Subsystem: "keeper", Name: "deletions_total", Help: "Originals looked at for deletion, by outcome.",
		}, []string{"outcome"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "des", Subsystem: "keeper", Name: "errors_total", Help: "Jobs that failed and will be tried again.",
		}, []string{"job"}),
		damaged: gauge("damaged_packs", "Packs whose last verification found damage."),
		oldest:  gauge("oldest_verification_seconds", "Age of the oldest verification of a live pack."),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "des", Subsystem: "keeper", Name: "queue_depth", Help: "Jobs that could run now.",
		}, []string{"job"}),
	}
	for _, o := range outcomes {
		m.deletions.WithLabelValues(o)
	}
	for _, j := range []raftmeta.JobKind{raftmeta.JobAck, raftmeta.JobVerify, raftmeta.JobDelete, raftmeta.JobCollect} {
		m.errors.WithLabelValues(string(j))
		m.queue.WithLabelValues(string(j))
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.acknowledged, m.dead, m.unproven, m.verifiedPacks, m.verifiedBytes, m.damageFound,
		m.collected, m.expired, m.kept, m.deletions, m.errors, m.damaged, m.oldest, m.queue,
	} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// surveyed takes over what a look through the view found.
func (m *metrics) surveyed(s *survey) {
	m.damaged.Set(float64(s.damaged))
	m.oldest.Set(s.oldest.Seconds())
	m.queue.WithLabelValues(string(raftmeta.JobAck)).Set(float64(len(s.acks)))
	m.queue.WithLabelValues(string(raftmeta.JobVerify)).Set(float64(len(s.verifies) + len(s.scrubs)))
	m.queue.WithLabelValues(string(raftmeta.JobDelete)).Set(float64(len(s.deletes)))
	m.queue.WithLabelValues(string(raftmeta.JobCollect)).Set(float64(len(s.collects)))
}
