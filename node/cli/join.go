package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/transport"
)

// tokenVariable holds a join token in the place of --token, so that the secret
// stands in no list of processes.
const tokenVariable = "DESNODE_TOKEN" //nolint:gosec // the name of a variable, not a secret

// invitation is what a node joins with.
type invitation struct {
	addr  string // host:port, a member's cluster address
	token string
}

// joinFunc makes the node of a data dir a member, if it is not one already.
type joinFunc func(ctx context.Context, cfg config.Config, by invitation, log *slog.Logger) error

// joinNode is the joinFunc of real nodes.
func joinNode(ctx context.Context, cfg config.Config, by invitation, log *slog.Logger) error {
	if !node.HasJoined(cfg.DataDir) {
		// Else the cluster would have a member that never came.
		if err := bindable(ctx, cfg); err != nil {
			return err
		}
	}
	return node.Join(ctx, cfg, node.JoinRequest{Addr: by.addr, Token: by.token}, log)
}

// bindable finds the addresses free that the node will listen on.
func bindable(ctx context.Context, cfg config.Config) error {
	var lc net.ListenConfig
	for _, addr := range []string{cfg.HTTP, cfg.ClusterAddr(), cfg.GossipAddr()} {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err == nil {
			err = l.Close()
		}
		if err == nil && addr != cfg.HTTP {
			var p net.PacketConn
			if p, err = lc.ListenPacket(ctx, "udp", addr); err == nil {
				err = p.Close()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) join() *cobra.Command {
	var token, file string
	cmd := &cobra.Command{
		Use:   "join ADDR --token T",
		Short: "Run a node that joins a cluster; 'desnode token' on a member prints the line",
		Long: `Joins the cluster of the member whose cluster address is ADDR (host:port; port 7947 unless it was configured
otherwise), then runs the node as 'desnode start' does. The token carries all the rest: it pins the cluster's CA, and the
member answers with the certificate, the keys, the addresses of the others, and the cluster's store and sources. Secrets
of stores and databases are not told: they come from this node's own configuration or environment.

Run again on a data dir that is in this cluster already, it only starts the node and asks nobody, with or without a
token. A data dir of another cluster than the token's is refused. The secret may stand in a file (--token-file) or in the variable ` + tokenVariable + ` in the place of --token.`,
		Example: `  desnode join 10.0.0.1:7947 --token dnj1... --data-dir /srv/des --http 10.0.0.2:8080 --cluster 10.0.0.2:7947 --gossip 10.0.0.2:7946
  ` + tokenVariable + `=dnj1... desnode join 10.0.0.1:7947 --config /etc/desnode.yaml`,
		Args: cobra.ExactArgs(1),
	}
	flags := addNodeFlags(cmd)
	flags.joins = true
	cmd.Flags().StringVar(&token, "token", "", "join token ("+tokenVariable+")")
	cmd.Flags().StringVar(&file, "token-file", "", "file that holds the join token, in the place of --token")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := flags.load()
		if err != nil {
			return err
		}
		token, err := tokenFrom(token, file)
		if node.HasJoined(cfg.DataDir) && token == "" {
			logger, err := a.nodeLogger(cfg) // nothing tells of another cluster
			if err != nil {
				return err
			}
			return explain(runNode(cmd.Context(), cfg, logger), cfg)
		}
		if err != nil {
			return err
		}
		by, err := readInvitation(args[0], token)
		if err != nil {
			return err
		}
		logger, err := a.nodeLogger(cfg)
		if err != nil {
			return err
		}
		if err := a.joinCluster(cmd.Context(), cfg, by, logger); err != nil {
			return explainJoin(err, cfg, by.addr)
		}
		return explain(runNode(cmd.Context(), cfg, logger), cfg)
	}
	return cmd
}

// tokenFrom returns the token of the command line, of the file that is named
// there, or of the environment.
func tokenFrom(flag, file string) (string, error) {
	if file == "" {
		return cmp.Or(flag, os.Getenv(tokenVariable)), nil
	}
	if flag != "" {
		return "", usage("--token and --token-file: one of them")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", &usageError{fmt.Errorf("--token-file: %w", err)}
	}
	return strings.TrimSpace(string(b)), nil
}

// readInvitation finds what is wrong with an invitation before anybody is
// asked. What is wrong with a token is told without the token.
func readInvitation(addr, token string) (invitation, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" || strings.Contains(addr, "/") {
		return invitation{}, usage(fmt.Sprintf("%s is not the cluster address of a member; write host:port, such as 10.0.0.1:7947, not the URL of its HTTP face", printable(addr)))
	}
	if token == "" {
		return invitation{}, usage("no token; 'desnode token' on a member prints the whole line")
	}
	if _, err := transport.ParseToken(token); err != nil {
		return invitation{}, &usageError{fmt.Errorf("--token: %w", err)}
	}
	return invitation{addr, token}, nil
}

// explainJoin says in other words why a node could not join, and what to do.
func explainJoin(err error, cfg config.Config, addr string) error {
	const again = "; make a new line with 'desnode token' on a member"
	for _, known := range []struct {
		is  error
		say string
		as  error // what it is for the exit code; nil: failed
	}{
		{transport.ErrTokenExpired, "the token has expired" + again, nil},
		{transport.ErrTokenUsed, "the token is used up" + again, nil},
		{transport.ErrToken, "the cluster at " + addr + " does not know this token: it was revoked, or is another cluster's" + again, nil},
		{
			transport.ErrCAChanged, "whoever answers at " + addr + " does not have the CA that the token pins: it is another cluster, or somebody in between. " +
				"The token was not told to it. Check the address; if it is right" + strings.TrimPrefix(again, ";"), nil,
		},
		{transport.ErrAlreadyMember, "a node of this id has joined by another token; a data dir that was copied can't join, take an empty one with --data-dir", nil},
		{transport.ErrNotMember, "this node was removed from the cluster for ever; with an empty --data-dir it joins as a new one", nil},
		{
			transport.ErrUnreachable, "no member answers at " + addr + ". Is that its cluster address, not the HTTP one? Does it run? " +
				"Do firewalls let that port through, UDP and TCP?", errUnavailable,
		},
		{transport.ErrUnavailable, "the member at " + addr + " can't admit anybody at the moment, as while its cluster has no quorum; try again", errUnavailable},
	} {
		if errors.Is(err, known.is) {
			if known.as != nil {
				return fmt.Errorf("%s (%w: %w)", known.say, known.as, err)
			}
			return fmt.Errorf("%s (%w)", known.say, err)
		}
	}
	return explain(err, cfg)
}
