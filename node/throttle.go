package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/pace"
)

// Throttle says how fast and when work is done.
func (n *Node) Throttle(context.Context) (api.Throttle, error) {
	return throttleStatus(n.pace.Status()), nil
}

// SetThrottle puts limits in force for the whole cluster.
func (n *Node) SetThrottle(ctx context.Context, l api.ThrottleLimits) error {
	limits := pace.Limits{
		FilesPerSecond: l.FilesPerSecond, FilesPerDay: l.FilesPerDay,
		BytesPerSecond: l.BytesPerSecond, BytesPerDay: l.BytesPerDay,
		Windows: l.Windows, Zone: l.Zone, For: kinds(l.For),
	}
	return n.paceChanged(ctx, "limits set", n.pace.SetLimits(ctx, limits))
}

// ClearThrottle puts the configured limits back in force.
func (n *Node) ClearThrottle(ctx context.Context) error {
	return n.paceChanged(ctx, "limits cleared", n.pace.ClearLimits(ctx))
}

// Pause stops work in the whole cluster.
func (n *Node) Pause(ctx context.Context, req api.PauseRequest) error {
	pause := pace.Pause{Reason: req.Reason, By: req.By, Until: req.Until}
	return n.paceChanged(ctx, "paused", n.pace.Pause(ctx, kinds(req.Work), pause))
}

// Resume ends pauses.
func (n *Node) Resume(ctx context.Context, req api.ResumeRequest) error {
	return n.paceChanged(ctx, "resumed", n.pace.Resume(ctx, kinds(req.Work)))
}

// paceChanged wakes what may go on now, and puts an error into the API's words.
func (n *Node) paceChanged(ctx context.Context, what string, err error) error {
	if errors.Is(err, pace.ErrInvalid) {
		return fmt.Errorf("%w: %w", api.ErrInvalidRequest, err)
	}
	if err != nil {
		return err
	}
	n.log.InfoContext(ctx, "pace changed", "what", what)
	n.marker.Kick()
	n.packer.Wake()
	return nil
}

func kinds(words []string) []pace.Kind {
	ks := make([]pace.Kind, 0, len(words))
	for _, w := range words {
		ks = append(ks, pace.Kind(w))
	}
	return ks
}

// throttleStatus puts the pace into the words of the API.
func throttleStatus(st pace.Status) api.Throttle {
	t := api.Throttle{
		Limits: api.ThrottleLimits{
			FilesPerSecond: st.Limits.FilesPerSecond, FilesPerDay: st.Limits.FilesPerDay,
			BytesPerSecond: st.Limits.BytesPerSecond, BytesPerDay: st.Limits.BytesPerDay,
			Windows: st.Limits.Windows, Zone: st.Limits.Zone,
		},
		Configured: st.Configured, Factor: st.Factor,
	}
	for _, k := range st.Limits.For {
		t.Limits.For = append(t.Limits.For, string(k))
	}
	for _, r := range st.Reasons {
		t.Reasons = append(t.Reasons, api.SlowReason{Code: string(r.Code), Text: r.Text, Since: r.Since})
	}
	for _, w := range st.Work {
		p := api.WorkPace{
			Work: string(w.Kind), Limited: w.Limited, Waiting: w.Waiting,
			UsedFiles: w.Used.Files, UsedBytes: w.Used.Bytes, NextWindow: w.NextWindow,
		}
		if h := w.Held; h != nil {
			p.Held, p.Reason, p.By, p.Until = string(h.Cause), h.Text, h.By, h.Until
		}
		t.Work = append(t.Work, p)
	}
	return t
}
