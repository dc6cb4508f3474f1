package retriever

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/datavision/desnode/desformat"
)

// outcome is how a read ended.
type outcome uint8

// The outcomes.
const (
	outcomeHot         outcome = iota // from memory
	outcomeStore                      // the store was asked
	outcomeSource                     // not packed yet
	outcomeByID                       // by id, from anywhere
	outcomeInvalid                    // the name
	outcomeNotFound                   //
	outcomeGone                       //
	outcomeCorrupt                    //
	outcomeUnavailable                //
	outcomeUnconfirmed                //
	outcomeBusy                       //
	outcomeCanceled                   // the client left
	outcomes
)

var outcomeNames = [outcomes]string{
	"hot", "store", "source", "by-id", "invalid-name", "not-found", "gone",
	"corrupt", "unavailable", "unconfirmed", "busy", "canceled",
}

// outcomeOf tells a hit from memory from one that asked the store, or will for
// its content.
func outcomeOf(f found, q *lookup) outcome {
	if q.asked || f.rec == nil || !f.rec.whole && q.want != WantHeader {
		return outcomeStore
	}
	return outcomeHot
}

// outcomeOfError is the outcome that an error stands for.
func outcomeOfError(err error) outcome {
	for _, o := range []struct {
		err     error
		outcome outcome
	}{
		{ErrNotFound, outcomeNotFound},
		{ErrGone, outcomeGone},
		{desformat.ErrCorrupt, outcomeCorrupt},
		{ErrUnconfirmed, outcomeUnconfirmed},
		{ErrBusy, outcomeBusy},
		{desformat.ErrInvalidName, outcomeInvalid},
		{ErrUnknownSource, outcomeInvalid},
		{ErrAmbiguous, outcomeInvalid},
		{ErrUnavailable, outcomeUnavailable},
		{context.Canceled, outcomeCanceled},
		{context.DeadlineExceeded, outcomeCanceled},
	} {
		if errors.Is(err, o.err) {
			return o.outcome
		}
	}
	return outcomeUnavailable
}

// metrics holds every label bound, since the hot path has no time to look
// labels up.
type metrics struct {
	reads           [outcomes]prometheus.Counter
	seconds         prometheus.Histogram
	requests        [causes]prometheus.Counter
	bytes           [causes]prometheus.Counter
	falseCandidates prometheus.Counter
	corrupt         [damages]prometheus.Counter
	missingObjects  prometheus.Counter
	lostRecords     prometheus.Counter
}

func newMetrics(r *Retriever, reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "des", Subsystem: "retriever", Name: name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "des", Subsystem: "retriever", Name: name, Help: help}, []string{label})
	}
	reads := vector("reads_total", "Reads by how they ended, those that another node answered left out.", "outcome")
	requests := vector("store_requests_total", "Requests to the store by what was asked for.", "cause")
	bytes := vector("store_bytes_total", "Bytes read from the store by what was asked for.", "cause")
	corrupt := vector("corrupt_total", "Times that a read met a pack that is not what was committed, by the kind of damage.", "kind")
	m := &metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "des", Subsystem: "retriever", Name: "locate_seconds",
			Help:    "Time from the question to the record or original, before its content is streamed.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12), // 1 µs to 4 s
		}),
		falseCandidates: counter("false_candidates_total", "Records that the index named for a name that they do not have."),
		missingObjects:  counter("missing_objects_total", "Times that the store did not have a pack of the newest manifest."),
		lostRecords:     counter("lost_records_total", "Times that a row said it is archived and the confirmed manifest had no record of it."),
	}
	for o := range outcomes {
		m.reads[o] = reads.WithLabelValues(outcomeNames[o])
	}
	for c := range causes {
		m.requests[c] = requests.WithLabelValues(causeNames[c])
		m.bytes[c] = bytes.WithLabelValues(causeNames[c])
	}
	for d := range damages {
		m.corrupt[d] = corrupt.WithLabelValues(d.String())
	}
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{reads, requests, bytes, m.seconds, m.falseCandidates, corrupt, m.missingObjects, m.lostRecords}
	for _, c := range append(collectors, cacheCollectors(r)...) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// cacheCollectors read the caches when they are scraped.
func cacheCollectors(r *Retriever) []prometheus.Collector {
	opts := func(cache, name, help string) prometheus.Opts {
		return prometheus.Opts{
			Namespace: "des", Subsystem: "retriever", Name: name, Help: help,
			ConstLabels: prometheus.Labels{"cache": cache},
		}
	}
	gauge := func(cache, name, help string, value func(Stats) int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(cache, name, help)), func() float64 { return float64(value(r.Stats())) })
	}
	counter := func(cache, name, help string, value func(Stats) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts(opts(cache, name, help)), func() float64 { return float64(value(r.Stats())) })
	}
	const (
		bytesHelp   = "Bytes that the cache holds."
		capHelp     = "Bytes that the cache may hold."
		entriesHelp = "Entries in the cache."
		hitsHelp    = "Look-ups that the cache answered."
		missesHelp  = "Look-ups that the cache did not answer."
	)
	return []prometheus.Collector{
		gauge("index", "cache_bytes", bytesHelp, func(s Stats) int64 { return s.IndexBytes }),
		gauge("data", "cache_bytes", bytesHelp, func(s Stats) int64 { return s.DataBytes }),
		gauge("index", "cache_cap_bytes", capHelp, func(s Stats) int64 { return s.IndexCap }),
		gauge("data", "cache_cap_bytes", capHelp, func(s Stats) int64 { return s.DataCap }),
		gauge("index", "cache_entries", entriesHelp, func(s Stats) int64 { return s.Indexes }),
		gauge("data", "cache_entries", entriesHelp, func(s Stats) int64 { return s.Records }),
		counter("index", "cache_hits_total", hitsHelp, func(s Stats) int64 { return s.IndexHits }),
		counter("data", "cache_hits_total", hitsHelp, func(s Stats) int64 { return s.DataHits }),
		counter("index", "cache_misses_total", missesHelp, func(s Stats) int64 { return s.IndexMisses }),
		counter("data", "cache_misses_total", missesHelp, func(s Stats) int64 { return s.DataMisses }),
	}
}

// done counts a read that has ended.
func (m *metrics) done(o outcome, took time.Duration) {
	m.reads[o].Inc()
	m.seconds.Observe(took.Seconds())
}

// storeRequests sums the requests of all causes.
func (m *metrics) storeRequests() (n int64) {
	for _, c := range m.requests {
		n += count(c)
	}
	return n
}

// count reads a counter.
func count(c prometheus.Counter) int64 {
	var out dto.Metric
	if err := c.Write(&out); err != nil {
		return 0
	}
	return int64(out.GetCounter().GetValue())
}
