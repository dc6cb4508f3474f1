package cli

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// livePath and readyPath answer without asking the store or a source.
const (
	livePath  = "/livez"
	readyPath = "/readyz"
)

func (a *app) health() *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a node whether it lives; the exit code is the answer",
		Long: `Asks a node for /livez, with --ready for /readyz, and exits with 0 when the answer is 200. For health checks in
containers that have no other program than this one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			path := livePath
			if ready {
				path = readyPath
			}
			resp, err := c.do(cmd.Context(), http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
			if err != nil {
				return err
			}
			return a.print(struct {
				OK bool `json:"ok"`
			}{true}, func(w io.Writer) error {
				_, err := w.Write(body)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it serves reads")
	return cmd
}
