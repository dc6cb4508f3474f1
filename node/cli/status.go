package cli

import (
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
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			s, err := call[api.Status](cmd.Context(), c, http.MethodGet, api.PathStatus, nil)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) error { return writeStatus(w, s) })
		},
	}
}

func writeStatus(w io.Writer, s api.Status) error {
	t := newTable(w)
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	leader := string(s.Leader)
	if leader == "" {
		leader = "none known"
	}
	t.row("node", s.Node, printable(s.Version)+", "+ready+", up "+formatSpan(time.Duration(s.Uptime*float64(time.Second))))
	t.row("cluster", s.Cluster, fmt.Sprintf("generation %d, leader %s", s.Generation, leader))
	t.row("store", printable(s.Store))
	t.row("work", strings.Join(s.Work, ", "))
	t.row("packs", formatCount(s.Packs.Count), fmt.Sprintf("%s, %s of %s dead, index %s",
		formatBytes(s.Packs.Bytes), formatCount(s.Packs.Dead), count(s.Packs.Records, "record"), formatBytes(s.Packs.IndexBytes)))
	t.row("", "", fmt.Sprintf("%d not acknowledged, %d not verified, %d damaged, %d uploads pending, %d leases",
		s.Packs.Unacknowledged, s.Packs.Unverified, s.Packs.Damaged, len(s.Uploads), s.Leases))
	t.row("index cache", fmt.Sprintf("%s of %s", formatBytes(s.Cache.IndexBytes), formatBytes(s.Cache.IndexCap)), hits(s.Cache.IndexHits, s.Cache.IndexMisses))
	t.row("data cache", fmt.Sprintf("%s of %s", formatBytes(s.Cache.DataBytes), formatBytes(s.Cache.DataCap)), hits(s.Cache.DataHits, s.Cache.DataMisses))
	for _, src := range s.Sources {
		name := "source " + printable(src.Name)
		if src.Error != "" {
			t.row(name, "does not answer", printable(src.Error))
			continue
		}
		for _, state := range slices.Sorted(maps.Keys(src.States)) {
			y := src.States[state]
			t.row(name, printable(state), fmt.Sprintf("%s, %s", count(y.Rows, "file"), formatBytes(y.Bytes)))
		}
	}
	for _, p := range s.Pauses {
		reason := printable(p.Reason)
		if !p.Until.IsZero() {
			reason += ", until " + formatTime(p.Until)
		}
		t.row("stands still", printable(p.Work), reason)
	}
	return t.flush()
}

func hits(hit, miss int64) string {
	return fmt.Sprintf("%s, %s", count(hit, "hit"), strings.Replace(count(miss, "miss"), "misss", "misses", 1))
}
