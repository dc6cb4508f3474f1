package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// readyMessage is the log line of a node that answers; its attribute http is
// the address. Programs that start a node with port 0 wait for it.
const readyMessage = "node ready"

func (a *app) start() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run a node; on an empty data dir it forms a cluster of one",
		Long: `Runs a node until it gets SIGINT or SIGTERM. It logs JSON lines to stderr; the line "node ready" says in "http" where it
listens.

The configuration is one YAML file (--config, DESNODE_CONFIG), then the environment (DESNODE_STORE_URL for store.url and
so on), then flags; the later outranks the earlier. 'desnode config validate' prints what is in effect.`,
		Args: cobra.NoArgs,
	}
	flags := addNodeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.load()
		if err != nil {
			return err
		}
		logger, err := a.nodeLogger(cfg)
		if err != nil {
			return err
		}
		return explain(runNode(cmd.Context(), cfg, logger), cfg)
	}
	return cmd
}

// nodeLogger is the logger of a node that this process runs.
func (a *app) nodeLogger(cfg config.Config) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return nil, &usageError{err}
	}
	return newLogger(a.stderr, level), nil
}

// newLogger logs JSON lines in which durations have units.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		},
	}))
}

// runNode runs a node until ctx ends, which is no error.
func runNode(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
	n, err := node.New(ctx, cfg, logger, clockOptions()...)
	if err != nil {
		return err
	}
	err = n.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, n.Close())
}

// taken says which address another process has, and the flag that changes it.
func taken(err error, cfg config.Config) (addr, flag string) {
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		addr = op.Addr.String()
	}
	for _, at := range []struct{ addr, flag string }{{cfg.ClusterAddr(), "--cluster"}, {cfg.GossipAddr(), "--gossip"}} {
		if addr != "" && port(addr) == port(at.addr) {
			return at.addr, at.flag
		}
	}
	return cfg.HTTP, "--http"
}

// explain adds to an error what the operator can do about it.
func explain(err error, cfg config.Config) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		addr, flag := taken(err, cfg)
		return fmt.Errorf("%s is in use by another process; stop that one, or choose another address with %s: %w", addr, flag, err)
	case errors.Is(err, raftmeta.ErrLocked):
		return fmt.Errorf("the data dir %s is in use by another process; stop that one, or choose another with --data-dir: %w", cfg.DataDir, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the disk is full; free space below %s and start again, nothing is lost: %w", cfg.DataDir, err)
	}
	return err
}
