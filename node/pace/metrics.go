package pace

import "github.com/prometheus/client_golang/prometheus"

// collector shows the pace as it is when it is asked.
type collector struct{ p *Pacer }

var (
	factorDesc = prometheus.NewDesc("des_pace_factor", "Share of the full pace that the automatic slow-down leaves, from 1/64 to 1.", nil, nil)
	reasonDesc = prometheus.NewDesc("des_pace_reason", "Whether work goes slower for this reason, 0 or 1.", []string{"reason"}, nil)
	heldDesc   = prometheus.NewDesc("des_pace_held", "Whether work stands still for this reason (pause, window, day, settings), 0 or 1.", []string{"work", "reason"}, nil)
	usedDesc   = prometheus.NewDesc("des_pace_used", "Files and bytes of the day's budget that are used, while there is one.", []string{"work", "unit"}, nil)
	limitDesc  = prometheus.NewDesc("des_pace_limit", "Files and bytes allowed, by span of time (second, day); 0: no limit.", []string{"work", "unit", "per"}, nil)
)

// Describe sends the descriptions of all that Collect sends.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{factorDesc, reasonDesc, heldDesc, usedDesc, limitDesc} {
		ch <- d
	}
}

// Collect sends the gauges.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	show := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	st := c.p.Status()
	show(factorDesc, st.Factor)
	given := map[Code]bool{}
	for _, r := range st.Reasons {
		given[r.Code] = true
	}
	for _, code := range Codes() {
		show(reasonDesc, boolean(given[code]), string(code))
	}
	for _, w := range st.Work {
		for _, cause := range Causes() {
			show(heldDesc, boolean(w.Held != nil && w.Held.Cause == cause), string(w.Kind), string(cause))
		}
		var l Limits
		if w.Limited {
			l = st.Limits
		}
		kind := string(w.Kind)
		show(usedDesc, float64(w.Used.Files), kind, "files")
		show(usedDesc, float64(w.Used.Bytes), kind, "bytes")
		show(limitDesc, float64(l.FilesPerSecond), kind, "files", "second")
		show(limitDesc, float64(l.BytesPerSecond), kind, "bytes", "second")
		show(limitDesc, float64(l.FilesPerDay), kind, "files", "day")
		show(limitDesc, float64(l.BytesPerDay), kind, "bytes", "day")
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
