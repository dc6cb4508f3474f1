package rebuild

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Phase is what a rebuild is at.
type Phase string

// The phases, in their order.
const (
	PhaseWait        Phase = "wait"        // for its lease: another node may be at work
	PhaseBase        Phase = "base"        // the base state is adopted
	PhasePacks       Phase = "packs"       // the store is listed, whole packs are adopted
	PhaseFence       Phase = "fence"       // sources that do not yet refuse earlier lives are waited for
	PhaseRows        Phase = "rows"        // rows are written back
	PhaseAcknowledge Phase = "acknowledge" // packs are acknowledged again
	PhaseDone        Phase = "done"
)

// Progress is how far a rebuild has come. The counts are those of this process;
// what an earlier one has done is found done.
type Progress struct {
	Phase   Phase     `json:"phase"`
	Plan    Plan      `json:"plan"`
	Since   time.Time `json:"since,omitzero"`
	Problem string    `json:"problem,omitempty"` // what failed last and is tried again; empty: nothing

	FromBase int   `json:"from_base"` // packs that the base names
	Listed   int   `json:"listed"`    // objects below packs/, in the newest listing
	Known    int   `json:"known"`     // of them, packs that were known
	ToRead   int   `json:"to_read"`   // of them, whose footers are read
	Read     int   `json:"read"`      // footers read
	Adopted  int   `json:"adopted"`   // packs
	Uploads  int   `json:"uploads"`   // announced, to be collected
	Hidden   int   `json:"hidden"`    // objects in quarantine
	Objects  int64 `json:"objects"`   // bytes of the adopted packs

	ToRestore    int   `json:"to_restore"` // packs whose rows are written back
	Restored     int   `json:"restored"`   // of them, done
	RowsRestored int64 `json:"rows_restored"`
	RowsAlready  int64 `json:"rows_already"`
	RowsNewer    int64 `json:"rows_newer"` // about something else by now
	RowsMissing  int64 `json:"rows_missing"`
	RowsRefused  int64 `json:"rows_refused"` // by their database

	ToAcknowledge int `json:"to_acknowledge"`
	Acknowledged  int `json:"acknowledged"`
	Left          int `json:"left"` // packs left to be acknowledged later

	Requests int64 `json:"requests"` // sent to the store
	Bytes    int64 `json:"bytes"`    // got from it

	// Odd are objects that were not adopted, and packs whose object is missing; at
	// most MaxOdd of them. OddCount counts all of them, by kind.
	Odd      []Odd           `json:"odd,omitempty"`
	OddCount map[OddKind]int `json:"odd_count,omitempty"`
}

// MaxOdd is how many odd objects are named.
const MaxOdd = 1000

// Odd is an object that is not as it should be. It stays as it is.
type Odd struct {
	Kind OddKind `json:"kind"`
	Key  string  `json:"key"`
	Why  string  `json:"why"`
}

// OddKind says what is odd, in fixed words.
type OddKind string

// The kinds.
const (
	OddKey     OddKind = "foreign key"     // no pack has such a key
	OddTorn    OddKind = "no pack"         // it does not end as a whole pack does
	OddDamaged OddKind = "damaged"         // its end contradicts itself
	OddVersion OddKind = "newer format"    // this version can't read it
	OddCluster OddKind = "another cluster" // a pack of another cluster
	OddPlace   OddKind = "wrong place"     // a pack whose key is another one's
	OddSize    OddKind = "another size"    // the manifest knows the pack with another size
	OddMissing OddKind = "missing"         // the base names a pack that the store does not list
)

// progress is the Progress that is being made.
type progress struct {
	mu  sync.Mutex // guards p
	now func() time.Time
	p   Progress
}

func (p *progress) add(f func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.p)
}

func (p *progress) enter(phase Phase) {
	p.add(func(s *Progress) {
		if s.Phase != phase {
			s.Phase, s.Since = phase, p.now().UTC()
		}
	})
}

func (p *progress) snapshot() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.p
	out.Odd = append([]Odd(nil), out.Odd...)
	out.OddCount = make(map[OddKind]int, len(p.p.OddCount))
	for k, n := range p.p.OddCount {
		out.OddCount[k] = n
	}
	return out
}

// counted counts the bytes of a stream.
type counted struct {
	io.ReadCloser
	n    int64
	done func(n int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counted) Close() error {
	c.done(c.n)
	c.n = 0
	return c.ReadCloser.Close()
}

// register shows the progress as des_rebuild_*.
func (r *Rebuild) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	gauge := func(name, help string, value func(Progress) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "des", Subsystem: "rebuild", Name: name, Help: help},
			func() float64 { return value(r.progress.snapshot()) })
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		gauge("running", "1 while the rebuild of this generation is not recorded as done.", func(Progress) float64 {
			if v := r.cfg.Manifest.View(); v.RebuildDone(v.Generation()) {
				return 0
			}
			return 1
		}),
		gauge("listed_objects", "Objects below packs/ in the newest listing.", func(p Progress) float64 { return float64(p.Listed) }),
		gauge("read_footers", "Footers of packs read.", func(p Progress) float64 { return float64(p.Read) }),
		gauge("adopted_packs", "Packs adopted from the store and the base.", func(p Progress) float64 { return float64(p.Adopted + p.FromBase) }),
		gauge("acknowledged_packs", "Adopted packs acknowledged again.", func(p Progress) float64 { return float64(p.Acknowledged) }),
		gauge("restored_rows", "Rows whose state columns were written back.", func(p Progress) float64 { return float64(p.RowsRestored) }),
		gauge("odd_objects", "Objects that were not adopted, and packs without their object.", func(p Progress) float64 {
			n := 0
			for _, c := range p.OddCount {
				n += c
			}
			return float64(n)
		}),
		gauge("requests", "Requests that the rebuild has sent to the store.", func(p Progress) float64 { return float64(p.Requests) }),
		gauge("bytes", "Bytes that the rebuild got from the store.", func(p Progress) float64 { return float64(p.Bytes) }),
	} {
		errs = append(errs, reg.Register(c))
	}
	return errors.Join(errs...)
}
