package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
)

const newLifeHelp = `
The data dir must be empty; the configuration names the cluster's store and sources. The node takes the next generation of
the cluster, which ends the work of every node of the generation before: hence --yes. It serves from the first moment what
it knows by then; a name it does not know is 503 until the manifest is whole, and nothing is archived before that. Cut
anywhere, it is repeated with the same command or 'desnode start'. Other nodes then join by 'desnode token', on empty
data dirs.`

// newLife are the flags of the two commands by which a cluster begins anew.
type newLife struct {
	a     *app
	flags *configFlags
	req   node.RebuildRequest
	yes   bool
	exit  bool
}

func (a *app) newLife(cmd *cobra.Command) *newLife {
	l := &newLife{a: a, flags: addNodeFlags(cmd)}
	cmd.Flags().BoolVar(&l.req.Source, "source", false, "write the state columns of the sources' tables back too, from the packs' catalogs")
	cmd.Flags().BoolVar(&l.yes, "yes", false, "end the work of the cluster's nodes of before")
	cmd.Flags().BoolVar(&l.exit, "exit", false, "end when the manifest is whole; 'desnode start' goes on")
	return l
}

func (a *app) rebuild() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild --yes",
		Short: "Run a node that makes the cluster's manifest anew from the packs alone",
		Long: `For a cluster that has lost all its nodes and its backups: lists the packs in the store and reads their ends, no content.
With 'desnode restore' a backup, or a dead node's disk, spares most of that and keeps what packs do not tell, such as
pauses and limits.
` + newLifeHelp,
		Args: cobra.NoArgs,
	}
	l := a.newLife(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return l.run(cmd.Context()) }
	return cmd
}

func (a *app) restore() *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "restore [BACKUP] --yes",
		Short: "Run a node that brings the cluster back from a backup, or from a dead node's data dir",
		Long: `Takes the newest backup in the store, the named one, or (--from-dir) the state in the data dir of a node that is stopped,
for instance when most of the others are lost; then finds the packs that were written after it. --list shows the backups.
` + newLifeHelp,
		Args: cobra.MaximumNArgs(1),
	}
	l := a.newLife(cmd)
	cmd.Flags().StringVar(&l.req.FromDir, "from-dir", "", "data dir of a stopped node of the cluster, in the place of a backup")
	cmd.Flags().BoolVar(&list, "list", false, "list the backups in the store and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if list {
			return l.list(cmd.Context())
		}
		if len(args) > 0 && l.req.FromDir != "" {
			return usage("a backup and --from-dir: one of them")
		}
		if l.req.FromDir == "" {
			l.req.Backup = node.LatestBackup
			if len(args) > 0 {
				l.req.Backup = args[0]
			}
		}
		return l.run(cmd.Context())
	}
	return cmd
}

// list prints the backups that the store has.
func (l *newLife) list(ctx context.Context) error {
	cfg, err := l.flags.load()
	if err != nil {
		return err
	}
	found, err := node.Backups(ctx, cfg)
	if err != nil {
		return err
	}
	stored := make([]storedBackup, 0, len(found.Backups))
	for _, b := range found.Backups {
		stored = append(stored, storedBackup{b.Key, b.Generation, b.Index, b.At, b.Bytes})
	}
	return l.a.print(stored, func(w io.Writer) error { return writeStored(w, stored) })
}

// storedBackup is what the store itself tells of a backup: not how many packs it
// knows.
type storedBackup struct {
	Key        string    `json:"key"`
	Generation uint64    `json:"generation"`
	Index      uint64    `json:"index"`
	At         time.Time `json:"at"`
	Bytes      int64     `json:"bytes"`
}

func writeStored(w io.Writer, stored []storedBackup) error {
	if len(stored) == 0 {
		_, err := io.WriteString(w, "no backups\n")
		return err
	}
	t := newTable(w)
	t.row("KEY", "MADE", "SIZE")
	for _, b := range stored {
		t.row(printable(b.Key), formatTime(b.At), formatBytes(b.Bytes))
	}
	return t.flush()
}

func (l *newLife) run(ctx context.Context) error {
	cfg, err := l.flags.load()
	if err != nil {
		return err
	}
	logger, err := l.a.nodeLogger(cfg)
	if err != nil {
		return err
	}
	if !l.yes && !node.HasBegun(cfg.DataDir) {
		return usage("this ends the work of every other node of the cluster, should one still run; add --yes")
	}
	if err := node.Rebuild(ctx, cfg, l.req, logger); err != nil {
		return explainRebuild(err, cfg)
	}
	return explain(l.serve(ctx, cfg, logger), cfg)
}

// serve runs the node, and shows how far the rebuild is.
func (l *newLife) serve(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
	n, err := node.New(ctx, cfg, logger, clockOptions()...)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { watched <- l.watch(running, n, stop) }()
	err = n.Run(running)
	stop()
	if errors.Is(err, context.Canceled) && running.Err() != nil {
		err = nil
	}
	return errors.Join(err, <-watched, n.Close())
}

// watchEvery is how often the progress of a rebuild is looked at.
const watchEvery = 200 * time.Millisecond

// watch shows the progress until the manifest is whole, says what was done, and
// then ends the node when that was asked for.
func (l *newLife) watch(ctx context.Context, n *node.Node, stop func()) error {
	p := l.a.progress("rebuild")
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			p.done()
			return nil
		case <-ticker.C:
		}
		st := n.RebuildStatus()
		if st == nil {
			continue // the state machine has not begun
		}
		p.update(st.Bytes, 0, st.Adopted)
		if st.Done {
			p.done()
			err := l.a.print(st, func(w io.Writer) error { return writeRebuilt(w, st, l.exit) })
			if l.exit {
				stop()
			}
			return err
		}
	}
}

func writeRebuilt(w io.Writer, st *api.RebuildStatus, ends bool) error {
	what := "the node goes on; let others join with 'desnode token'"
	if ends {
		what = "'desnode start' goes on with this data dir"
	}
	_, err := fmt.Fprintf(w, "the manifest is whole: %s, %s of tables, %s of the store; %s\n",
		count(st.Adopted, "pack"), count(st.Rows, "row"), count(st.Requests, "request"), what)
	return err
}

// explainRebuild says in other words why no new life could begin.
func explainRebuild(err error, cfg config.Config) error {
	switch {
	case errors.Is(err, node.ErrStoreLost), errors.Is(err, node.ErrNoCluster):
		return fmt.Errorf("no cluster was ever formed over %s; is store.url right? (%w)", config.Redacted(cfg.Store.URL), err)
	case errors.Is(err, node.ErrSuperseded):
		return fmt.Errorf("another node has just begun a new generation; if that one is to be given up, repeat the command (%w)", err)
	}
	return explain(err, cfg)
}
