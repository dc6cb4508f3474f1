package cli

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

func (a *app) backup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Back the cluster's state up to the store now",
		Long: `Writes what the cluster has agreed on (the manifest, settings, members; no content of files) to the store, where
'desnode restore' finds it. The nodes do so by themselves; before an upgrade or a move one more does no harm.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, http.MethodPost, api.PathBackup, api.BackupRequest{}, func(w io.Writer, b api.BackupInfo) error {
				_, err := fmt.Fprintf(w, "%s: %s, %s\n", printable(b.Key), count(b.Packs, "pack"), formatBytes(b.Bytes))
				return err
			})
		},
	}
	a.clients(cmd)
	cmd.AddCommand(a.clients(a.backupLs())...)
	return cmd
}

func (a *app) backupLs() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the backups of the cluster's state, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, http.MethodGet, api.PathBackups, nil, writeBackups)
		},
	}
}

func writeBackups(w io.Writer, l api.BackupList) error {
	if len(l.Backups) == 0 {
		if _, err := io.WriteString(w, "no backups\n"); err != nil {
			return err
		}
	} else {
		t := newTable(w)
		t.row("KEY", "MADE", "PACKS", "SIZE")
		for _, b := range l.Backups {
			t.row(printable(b.Key), formatTime(b.At), formatCount(b.Packs), formatBytes(b.Bytes))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if l.Problem == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "the last try failed: %s\n", printable(l.Problem))
	return err
}
