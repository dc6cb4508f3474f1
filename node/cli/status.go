package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print how a node is: files by state, packs, caches, what stands still",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, http.MethodGet, api.PathStatus, nil, writeStatus)
		},
	}
}

func writeStatus(w io.Writer, s api.Status) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	leader := string(s.Leader)
	if leader == "" {
		leader = "none known"
	}
	p, c := s.Packs, s.Cache
	t := newTable(w)
	t.row("node", fmt.Sprintf("%s, %s, %s, up %s", s.Node, printable(s.Version), ready, formatSpan(time.Duration(s.Uptime*float64(time.Second)))))
	t.row("cluster", fmt.Sprintf("%s, generation %d, leader %s", s.Cluster, s.Generation, leader))
	if s.Superseded > 0 {
		t.row("SUPERSEDED", fmt.Sprintf("generation %d of this cluster has begun: this node does no work, stop it", s.Superseded))
	}
	if r := s.Rebuild; r != nil && !r.Done {
		t.row("rebuild", rebuildText(*r))
	}
	if s.Members.Known > 0 {
		t.row("members", membersText(s))
	}
	if s.Zone != "" {
		t.row("zone", printable(s.Zone))
	}
	t.row("store", printable(s.Store))
	t.row("work", cmp.Or(strings.Join(s.Work, ", "), "none: it serves reads"))
	t.row("packs", fmt.Sprintf("%s, %s, %s (%s dead), index %s",
		formatCount(p.Count), formatBytes(p.Bytes), count(p.Records, "record"), formatCount(p.Dead), formatBytes(p.IndexBytes)))
	t.row("", fmt.Sprintf("%d not acknowledged, %d not verified, %d damaged; %d uploads pending, %d leases",
		p.Unacknowledged, p.Unverified, p.Damaged, len(s.Uploads), s.Leases))
	t.row("index cache", cache(c.IndexBytes, c.IndexCap, c.IndexHits, c.IndexMisses))
	t.row("data cache", cache(c.DataBytes, c.DataCap, c.DataHits, c.DataMisses))
	for _, src := range s.Sources {
		name := "source " + printable(src.Name)
		t.row(name, printable(src.URL))
		for _, root := range src.Roots {
			t.row(name, "root "+printable(root))
		}
		switch {
		case src.Error != "":
			t.row(name, "does not answer: "+printable(src.Error))
		case src.Counted.IsZero():
			t.row(name, "its rows are being counted; ask again")
		case time.Since(src.Counted) > time.Minute:
			t.row(name, "counted "+formatTime(src.Counted))
		}
		for _, state := range slices.Sorted(maps.Keys(src.States)) {
			y := src.States[state]
			t.row(name, fmt.Sprintf("%s: %s, %s", printable(state), count(y.Rows, "file"), formatBytes(y.Bytes)))
		}
	}
	throttleRows(t, s.Pace)
	for _, p := range s.Pauses {
		writePause(t, p)
	}
	return t.flush()
}

// rebuildText says how far a rebuild is.
func rebuildText(r api.RebuildStatus) string {
	if r.Phase == "" {
		return "under way on the node that began it; names that are not found are answered by 503"
	}
	text := fmt.Sprintf("%s: %s listed, %s adopted, %s acknowledged", printable(r.Phase), count(r.Listed, "object"), count(r.Adopted, "pack"), formatCount(r.Acknowledged))
	if r.Refused > 0 {
		text += ", " + count(r.Refused, "object") + " left alone"
	}
	if r.Source {
		text += ", " + count(r.Rows, "row") + " restored"
	}
	return text + "; names that are not found are answered by 503"
}

// membersText says how many nodes there are and how well this one sees them.
func membersText(s api.Status) string {
	text := fmt.Sprintf("%d known, %d alive, %s", s.Members.Known, s.Members.Alive, count(int64(s.Voters), "voter"))
	if s.Leader == "" {
		text += "; NO QUORUM: nothing new is archived, and names that are not found are answered by 503"
	}
	if s.HealthScore > 0 {
		text += fmt.Sprintf("; this node is too slow to judge the others well (health score %d, 0 is healthy)", s.HealthScore)
	}
	return text
}

// writePause says which work stands still, and why.
func writePause(t *table, p api.Pause) {
	until := ""
	if !p.Until.IsZero() {
		until = ", until " + formatTime(p.Until)
	}
	t.row("stands still", printable(p.Work)+": "+printable(p.Reason)+until)
}

func cache(bytes, limit, hits, misses int64) string {
	return fmt.Sprintf("%s of %s, hits %s, misses %s", formatBytes(bytes), formatBytes(limit), formatCount(hits), formatCount(misses))
}
