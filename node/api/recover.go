package api

import (
	"context"
	"fmt"
	"time"

	"github.com/datavision/desnode/raftmeta"
)

// Paths of the recovery tools.
const (
	PathUnfinished = "/cluster/unfinished" // GET → Unfinished
	PathRecover    = "/cluster/recover"    // POST RecoverRequest → stream of RecoverEvent
	PathCompare    = "/cluster/compare"    // POST CompareRequest → stream of CompareEvent
)

// How much a finding or a difference matters.
const (
	SeverityNote       = "note"       // worth knowing; nothing has to be done
	SeverityRepairable = "repairable" // something waits for the cure; no content is in danger
	SeverityAtRisk     = "at-risk"    // content may be lost or unreadable until the cure
)

// Unfinished is what the node that answers finds unfinished in its cluster.
type Unfinished struct {
	Node       raftmeta.NodeID `json:"node"`
	Generation uint64          `json:"generation"`
	At         time.Time       `json:"at"`
	Findings   []Finding       `json:"findings"`
}

// Finding is one thing that is unfinished or not as it should be. docs/operator.md
// lists the kinds.
type Finding struct {
	Kind        string    `json:"kind"`
	Severity    string    `json:"severity"`
	Subject     string    `json:"subject"`        // a pack, a key, a node, a source: what the kind says
	Since       time.Time `json:"since,omitzero"` // as far as it is known
	Why         string    `json:"why"`
	Cure        string    `json:"cure"`        // a command, or what to wait for
	Fixable     bool      `json:"fixable"`     // PathRecover with Fix does it
	Destructive bool      `json:"destructive"` // only with Yes as well
}

// RecoverRequest asks for what is unfinished, and with Fix for what is safe to
// be done about it now. Yes allows what moves objects away or deletes them too.
type RecoverRequest struct {
	Fix bool `json:"fix,omitempty"`
	Yes bool `json:"yes,omitempty"` // only with Fix
}

// What became of a finding.
const (
	OutcomeFixed    = "fixed"     // done now
	OutcomeBusy     = "busy"      // another does it at this moment
	OutcomeNeedsYes = "needs-yes" // destructive, and the request has no Yes
	OutcomeFailed   = "failed"    // tried; Text says why it is as it was
	OutcomeLeft     = "left"      // not to be done from here: the cure says how
)

// RecoverEvent is one finding and what became of it. The last event is the
// totals and an End alone.
type RecoverEvent struct {
	Finding *Finding `json:"finding,omitempty"`
	Outcome string   `json:"outcome,omitempty"` // only with Fix
	Text    string   `json:"text,omitempty"`    // what was done, or why it was not

	Found int64 `json:"found"` // so far
	Fixed int64 `json:"fixed"`
	Left  int64 `json:"left"` // repairable or at risk, and not fixed
	End
}

// What CompareRequest.Only may name.
const (
	CompareStore    = "store"    // the manifest against the store
	CompareRows     = "rows"     // all rows against the manifest
	CompareCatalogs = "catalogs" // the records of live packs against their rows
)

// CompareRequest asks for the sources' tables, the manifest and the store to be
// held against each other.
type CompareRequest struct {
	Only []string `json:"only,omitempty"` // none: all
}

// Difference is one thing that the sources, the manifest and the store do not
// agree about. docs/operator.md lists the kinds.
type Difference struct {
	Kind     string `json:"kind"`
	Severity string `json:"severity"`
	Subject  string `json:"subject"` // "pack ID", "KEY", "SOURCE row ID": what the kind says
	Found    string `json:"found"`   // what is there, and what should be
	Cure     string `json:"cure"`    // a command, or what to wait for
}

// CompareEvent says how far a comparison is, with one difference or without. The
// counts are totals so far.
type CompareEvent struct {
	Difference *Difference `json:"difference,omitempty"`
	Phase      string      `json:"phase,omitempty"` // one of what CompareRequest.Only may name
	CompareCounts
	End
}

// CompareCounts is what a comparison has looked at.
type CompareCounts struct {
	Packs      int64 `json:"packs"`       // held against the store
	Objects    int64 `json:"objects"`     // listed in the store
	Rows       int64 `json:"rows"`        // held against the manifest
	Catalogs   int64 `json:"catalogs"`    // read
	Records    int64 `json:"records"`     // held against their rows
	TotalPacks int64 `json:"total_packs"` // live ones, so that progress can be told
	Requests   int64 `json:"requests"`    // of the store
	Bytes      int64 `json:"bytes"`       // got from the store: catalogs and ends of packs, no payload
	Notes      int64 `json:"notes"`       // differences, by severity
	Repairable int64 `json:"repairable"`
	AtRisk     int64 `json:"at_risk"`
}

// Recoverer tells what is unfinished and mends it. Events and errors as
// Operator's; Recover may be repeated, and changes nothing without Fix.
type Recoverer interface {
	Unfinished(ctx context.Context) (Unfinished, error)
	Recover(ctx context.Context, req RecoverRequest, event func(RecoverEvent) error) error
	Compare(ctx context.Context, req CompareRequest, event func(CompareEvent) error) error
}

// recovery answers the endpoints of the recovery tools; false: path is none of
// them.
func (x *exchange) recovery(path string) bool {
	r := x.s.cfg.Recoverer
	if r == nil {
		return false
	}
	switch path {
	case PathUnfinished:
		show(x, r.Unfinished)
	case PathRecover:
		follow(x, x.recover, func(e RecoverEvent, end End) any {
			return RecoverEvent{Found: e.Found, Fixed: e.Fixed, Left: e.Left, End: end}
		})
	case PathCompare:
		follow(x, x.compare, func(e CompareEvent, end End) any { return CompareEvent{CompareCounts: e.CompareCounts, End: end} })
	default:
		return false
	}
	return true
}

func (x *exchange) recover(ctx context.Context, req RecoverRequest, event func(RecoverEvent) error) error {
	if req.Yes && !req.Fix {
		return fmt.Errorf("%w: yes goes with fix", ErrInvalidRequest)
	}
	return x.s.cfg.Recoverer.Recover(ctx, req, event)
}

func (x *exchange) compare(ctx context.Context, req CompareRequest, event func(CompareEvent) error) error {
	for _, what := range req.Only {
		switch what {
		case CompareStore, CompareRows, CompareCatalogs:
		default:
			return fmt.Errorf("%w: only names %s, %s and %s", ErrInvalidRequest, CompareStore, CompareRows, CompareCatalogs)
		}
	}
	return x.s.cfg.Recoverer.Compare(ctx, req, event)
}
