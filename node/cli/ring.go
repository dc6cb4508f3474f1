package cli

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

func (a *app) ring() *cobra.Command {
	var owners bool
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "Print which node serves how many shards",
		Long: `Prints the ring as the node that answers sees it. The owner of a shard keeps its indexes and hot files in memory;
any other node asks it first and reads the store itself when it does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := api.PathRing
			if owners {
				path += "?owners=1"
			}
			return show(cmd.Context(), a, http.MethodGet, path, nil, writeRing)
		},
	}
	cmd.Flags().BoolVar(&owners, "owners", false, "with the owner of every shard, and who is asked when it does not answer")
	return cmd
}

func writeRing(w io.Writer, r api.RingInfo) error {
	t := newTable(w)
	t.row("NODE", "ZONE", "SHARDS", "SHARE")
	for _, m := range r.Members {
		t.row(short(m.Node), orDash(m.Zone), formatCount(int64(m.Shards)), fmt.Sprintf("%.1f %%", 100*m.Share))
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s, the largest share is %.2f of the average, at most %.2f; digest %s (format %d, %d places a member)\n",
		count(int64(r.Shards), "shard"), r.Skew, r.Load, printable(r.Digest), r.Format, r.Vnodes)
	if err == nil && len(r.Mismatched) > 0 {
		_, err = fmt.Fprintf(w, "another ring is seen by: %s\n", shorts(r.Mismatched))
	}
	if err != nil || len(r.Owners) == 0 {
		return err
	}
	t = newTable(w)
	t.row("SHARD", "OWNER", "THEN")
	for _, s := range r.Owners {
		t.row(s.Shard, short(s.Owner), orDash(shorts(s.Fallbacks)))
	}
	return t.flush()
}
