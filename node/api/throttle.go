package api

import (
	"context"
	"net/http"
	"time"
)

// Paths of what sets the pace of archiving.
const (
	PathThrottle = "/cluster/throttle" // GET → Throttle; PUT ThrottleLimits → Throttle; DELETE → Throttle
	PathPause    = "/cluster/pause"    // POST PauseRequest → Throttle
	PathResume   = "/cluster/resume"   // POST ResumeRequest → Throttle
)

// ThrottleLimits is how fast and when work may be done; what is left out is
// not limited.
type ThrottleLimits struct {
	FilesPerSecond int64    `json:"files_per_second,omitempty"`
	FilesPerDay    int64    `json:"files_per_day,omitempty"`
	BytesPerSecond int64    `json:"bytes_per_second,omitempty"`
	BytesPerDay    int64    `json:"bytes_per_day,omitempty"`
	Windows        []string `json:"windows,omitempty"` // "Mon-Fri 22:00-06:00 Europe/Warsaw"; none: always
	Zone           string   `json:"zone,omitempty"`    // whose midnight ends a day; default UTC
	For            []string `json:"for,omitempty"`     // mark, pack, delete; default mark
}

// Throttle is the pace of archiving: limits and pauses of the cluster, and the
// slow-down of the node that answers.
type Throttle struct {
	Limits     ThrottleLimits `json:"limits"`     // in force
	Configured bool           `json:"configured"` // they are those of the configuration
	Factor     float64        `json:"factor"`     // the share of the full pace that the slow-down leaves, 1/64 to 1
	Reasons    []SlowReason   `json:"reasons"`    // why factor is below 1
	Work       []WorkPace     `json:"work"`
}

// SlowReason is why work goes slower than it might.
type SlowReason struct {
	Code  string    `json:"code"`
	Text  string    `json:"text"`
	Since time.Time `json:"since,omitzero"`
}

// WorkPace is the pace of one kind of work.
type WorkPace struct {
	Work       string    `json:"work"`                 // mark, pack, delete
	Limited    bool      `json:"limited"`              // the limits hold for it
	Held       string    `json:"held,omitempty"`       // pause, window, day or settings: why it stands still
	Reason     string    `json:"reason,omitempty"`     // of a pause: the operator's
	By         string    `json:"by,omitempty"`         // of a pause: who
	Until      time.Time `json:"until,omitzero"`       // when it goes on; left out: when somebody resumes it
	Waiting    bool      `json:"waiting"`              // on this node, for the rate or the slow-down
	UsedFiles  int64     `json:"used_files"`           // of the day's budget, while there is one
	UsedBytes  int64     `json:"used_bytes"`           // likewise
	NextWindow time.Time `json:"next_window,omitzero"` // when the windows open, or close while one is open
}

// PauseRequest stops work in the whole cluster. Steps under way end first.
type PauseRequest struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	Until  time.Time `json:"until,omitzero"` // left out: until it is resumed
	Work   []string  `json:"work,omitempty"` // mark, pack, delete; none: all
}

// ResumeRequest ends pauses.
type ResumeRequest struct {
	Work []string `json:"work,omitempty"` // mark, pack, delete; none: all
}

// Throttler tells and sets the pace. Each change is durable in the cluster when
// it returns nil. Errors as Operator's.
type Throttler interface {
	Throttle(ctx context.Context) (Throttle, error)
	SetThrottle(ctx context.Context, l ThrottleLimits) error
	ClearThrottle(ctx context.Context) error
	Pause(ctx context.Context, req PauseRequest) error
	Resume(ctx context.Context, req ResumeRequest) error
}

// pace answers the endpoints of the pace; false: path is none of them.
func (x *exchange) pace(path string) bool {
	t := x.s.cfg.Throttler
	if t == nil {
		return false
	}
	switch path {
	case PathThrottle:
		x.throttle(t)
	case PathPause:
		var req PauseRequest
		if x.accept(&req) {
			x.paced(t, t.Pause(x.r.Context(), req))
		}
	case PathResume:
		var req ResumeRequest
		if x.accept(&req) {
			x.paced(t, t.Resume(x.r.Context(), req))
		}
	default:
		return false
	}
	return true
}

func (x *exchange) throttle(t Throttler) {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
		show(x, t.Throttle)
	case http.MethodPut:
		var l ThrottleLimits
		if x.fromHere() && x.isJSON() && x.decode(&l) {
			x.paced(t, t.SetThrottle(x.r.Context(), l))
		}
	case http.MethodDelete:
		if x.fromHere() {
			x.discardBody()
			x.paced(t, t.ClearThrottle(x.r.Context()))
		}
	default:
		x.allow(http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete)
	}
}

// paced answers a change with the pace that follows from it.
func (x *exchange) paced(t Throttler, err error) {
	var now Throttle
	if err == nil {
		now, err = t.Throttle(x.r.Context())
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.json(filled(now))
}
