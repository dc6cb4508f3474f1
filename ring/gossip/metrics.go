package gossip

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures des_gossip_* and des_ring_*.
type metrics struct {
	members, mismatched       prometheus.Gauge
	health                    prometheus.GaugeFunc
	changes, moved, conflicts prometheus.Counter
	peersErrors               prometheus.Counter
	refused, rejoins          *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, health func() float64) (*metrics, error) {
	m := &metrics{
		members:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "des_gossip_members", Help: "Living members, this node among them."}),
		mismatched:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "des_ring_mismatched_members", Help: "Members whose ring is another than this node's; normal for seconds after a change."}),
		health:      prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "des_gossip_health_score", Help: "How late this node is in gossip's real time: 0 is healthy, 7 the worst."}, health),
		changes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "des_ring_changes_total", Help: "Rings computed because members came, went or changed their zone."}),
		moved:       prometheus.NewCounter(prometheus.CounterOpts{Name: "des_ring_moved_shards_total", Help: "Shards that changed their owner."}),
		conflicts:   prometheus.NewCounter(prometheus.CounterOpts{Name: "des_gossip_conflicts_total", Help: "Times that a living node was claimed to be at another address."}),
		peersErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "des_gossip_peers_file_errors_total", Help: "Times that the file of peers could not be read or written."}),
		refused:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_gossip_refused_total", Help: "Messages and nodes refused, by reason."}, []string{"reason"}),
		rejoins:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "des_gossip_rejoins_total", Help: "Peers and seeds that were not there and were tried, by result."}, []string{"result"}),
	}
	for _, reason := range []string{reasonKey, reasonLabel, reasonRemoved, reasonFormat, reasonMeta, reasonName} {
		m.refused.WithLabelValues(reason)
	}
	for _, result := range []string{"ok", "error"} {
		m.rejoins.WithLabelValues(result)
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.members, m.mismatched, m.health, m.changes, m.moved, m.conflicts, m.peersErrors, m.refused, m.rejoins} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("gossip: register metrics: %w", err)
	}
	return m, nil
}
