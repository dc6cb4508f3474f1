package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// statusClasses are the labels of answers: by the hundred, so that the number
// of series is fixed and each is bound ahead of the hot path.
var statusClasses = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

// metrics is what the HTTP face counts.
type metrics struct {
	inFlight prometheus.Gauge
	aborted  prometheus.Counter
	bytes    [routes]prometheus.Counter
	latency  [routes]prometheus.Observer
	answers  [routes][len(statusClasses)]prometheus.Counter
}

// newMetrics makes the metrics and, with a Registerer, registers them.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "des_router_requests_total", Help: "Requests answered, by route and class of status.",
	}, []string{"route", "status"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "des_router_request_seconds", Help: "Time from a request's header to the end of its answer, by route.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 3, 12), // 100 µs to 18 s
	}, []string{"route"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "des_router_sent_bytes_total", Help: "Bytes of bodies sent, by route.",
	}, []string{"route"})
	m := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "des_router_requests_in_flight", Help: "Requests under way.",
		}),
		aborted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "des_router_aborted_total", Help: "Answers that were broken off: the client left, or the content failed its checks.",
		}),
	}
	for route, name := range routeNames {
		m.latency[route] = latency.WithLabelValues(name)
		m.bytes[route] = bytes.WithLabelValues(name)
		for class, label := range statusClasses {
			m.answers[route][class] = requests.WithLabelValues(name, label)
		}
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{requests, latency, bytes, m.inFlight, m.aborted} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// done counts one exchange.
func (m *metrics) done(r route, status int, bytes int64, took time.Duration) {
	class := status / 100
	if class >= len(statusClasses) {
		class = 0
	}
	m.answers[r][class].Inc()
	m.latency[r].Observe(took.Seconds())
	m.bytes[r].Add(float64(bytes))
}
