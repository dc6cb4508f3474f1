package cli

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

func (a *app) token() *cobra.Command {
	var ttl time.Duration
	var uses uint16
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print the line that lets another node join",
		Long: `Prints one line to be run on the machine of the new node. Whoever has it can join the cluster and read every file:
treat it as a password. The token in it pins the cluster's CA, so that the new node joins this cluster and no other.`,
		Example: `  desnode token
  desnode token --ttl 10m --uses 3
  desnode token -o json | jq -r .token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case ttl < time.Second || ttl > api.MaxTokenTTL:
				return usage(fmt.Sprintf("--ttl: %s is not between 1s and %s", ttl, formatSpan(api.MaxTokenTTL)))
			case uses == 0:
				return usage("--uses: a token that nobody may use makes no sense")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			req := api.TokenRequest{TTLSeconds: int64(ttl / time.Second), Uses: uses}
			created, err := call[api.TokenCreated](cmd.Context(), c, http.MethodPost, api.PathTokens, req)
			if err != nil {
				return err
			}
			if a.output != outputJSON {
				a.note(fmt.Sprintf("good for %s until %s; 'desnode token revoke %s' takes it back", count(int64(created.Uses), "node"), formatTime(created.Expires), printable(created.ID)))
			}
			return a.print(created, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, printable(created.JoinCommand))
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", api.DefaultTokenTTL, "how long nodes may join by it")
	cmd.Flags().Uint16Var(&uses, "uses", api.DefaultTokenUses, "how many nodes may")
	a.clients(cmd)
	cmd.AddCommand(a.clients(a.tokenList(), a.tokenRevoke())...)
	return cmd
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the join tokens, without their secrets, and who joined by them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, http.MethodGet, api.PathTokens, nil, writeTokens)
		},
	}
}

func writeTokens(w io.Writer, l api.TokenList) error {
	if len(l.Tokens) == 0 {
		_, err := io.WriteString(w, "no tokens\n")
		return err
	}
	t := newTable(w)
	t.row("ID", "STATE", "EXPIRES", "USED", "BY")
	for _, token := range l.Tokens {
		t.row(printable(token.ID), printable(string(token.State)), formatTime(token.Expires),
			fmt.Sprintf("%d of %d", len(token.UsedBy), token.Uses), orDash(shorts(token.UsedBy)))
	}
	return t.flush()
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a join token worthless; nodes that joined by it stay",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			l, err := call[api.TokenList](cmd.Context(), c, http.MethodPost, api.PathRevokeToken, api.RevokeRequest{ID: args[0]})
			if err != nil {
				return err
			}
			return a.print(l, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is worthless; nodes that joined by it stay\n", printable(args[0]))
				return err
			})
		},
	}
}
