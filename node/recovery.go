package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/rebuild"
	"github.com/datavision/desnode/raftmeta"
)

// openRecovery opens what brings a cluster back: backups, and on the node that
// began a new life its rebuild.
func (n *Node) openRecovery(_ context.Context, metrics *prometheus.Registry) error {
	orNever := func(d int) int {
		if d == 0 {
			return -1
		}
		return d
	}
	c := backup.Config{
		Manifest:   n.meta,
		Store:      n.store,
		Every:      n.cfg.Backup.Every,
		Keep:       n.cfg.Backup.Keep,
		KeepDays:   orNever(n.cfg.Backup.KeepDays),
		Current:    n.checkCurrent,
		Now:        n.now,
		Logger:     n.log.With("part", "backup"),
		Registerer: metrics,
	}
	if c.Every == 0 {
		c.Every = -1
	}
	var err error
	if n.backup, err = backup.New(c); err != nil {
		return err
	}
	plan, err := readPlan(n.cfg.DataDir)
	if err != nil || plan == nil {
		return err
	}
	n.rebuild, err = rebuild.New(rebuild.Config{
		Manifest:       n.meta,
		Commands:       n.meta,
		Store:          n.store,
		Uploads:        n.uploads,
		Base:           plan.Base,
		OpenBase:       n.openBase,
		RestoreSetting: outlives,
		Source:         plan.Source,
		Sources:        n.sources,
		Fence:          n.fenceSources,
		Acknowledge:    n.keeper.AcknowledgeAgain,
		Quarantined:    n.keeper.NoteQuarantined,
		Now:            n.now,
		Logger:         n.log,
		Registerer:     metrics,
	})
	return err
}

// fenceSources has every source refuse the writers of earlier generations.
func (n *Node) fenceSources(ctx context.Context) error {
	var errs []error
	for _, s := range n.sources {
		if g, ok := s.Rows.(*gate); ok {
			if err := g.pass(ctx); err != nil {
				errs = append(errs, fmt.Errorf("source %s: %w", s.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// rebuilt returns once the manifest is whole: nobody archives before, for what it
// lacks would be archived twice, or called missing.
func (n *Node) rebuilt(ctx context.Context) error {
	if n.rebuild != nil {
		err := n.rebuild.Run(ctx) // at once when it was done before
		switch {
		case errors.Is(err, ErrSuperseded):
			n.supersede(err)
			<-ctx.Done()
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil:
			n.dropBase()
		}
	}
	for {
		changed := n.meta.Changed()
		if v := n.meta.View(); v.RebuildDone(v.Generation()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// dropBase removes the state that the rebuild has taken over.
func (n *Node) dropBase() {
	err := os.Remove(filepath.Join(n.cfg.DataDir, baseFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("the state that the rebuild began with stays in the data dir", "err", err)
	}
}

// RebuildStatus tells how far the rebuild is that began this generation; nil:
// none did, as in the first.
func (n *Node) RebuildStatus() *api.RebuildStatus {
	v := n.meta.View()
	if v.Generation() < 2 {
		return nil
	}
	plan, _, err := rebuild.PlanOf(v)
	if err != nil {
		n.log.Error("what the rebuild was to do is not readable", "err", err)
	}
	st := &api.RebuildStatus{Done: v.RebuildDone(v.Generation()), Base: plan.Base, Source: plan.Source}
	if n.rebuild == nil {
		return st
	}
	p := n.rebuild.Progress()
	if !st.Done {
		st.Phase = string(p.Phase)
	}
	st.Listed, st.Read, st.Adopted = int64(p.Listed), int64(p.Read), int64(p.FromBase+p.Adopted)
	st.Acknowledged, st.Rows = int64(p.Acknowledged), p.RowsRestored
	st.Requests, st.Bytes = p.Requests, p.Bytes
	for _, count := range p.OddCount {
		st.Refused += int64(count)
	}
	return st
}

// supersededBy is the generation that has taken over, 0: none is known.
func (n *Node) supersededBy() uint64 {
	if newer := n.newer.Load(); newer != nil {
		return newer.generation
	}
	return 0
}

// Backup makes a backup now.
func (n *Node) Backup(ctx context.Context) (api.BackupInfo, error) {
	made, err := n.backup.Now(ctx)
	switch {
	case errors.Is(err, raftmeta.ErrRebuilding):
		return api.BackupInfo{}, fmt.Errorf("%w: %w", api.ErrConflict, err)
	case err != nil:
		return api.BackupInfo{}, err
	}
	return backupInfo(made), nil
}

// Backups lists the backups that the cluster has.
func (n *Node) Backups(context.Context) (api.BackupList, error) {
	entries, err := backup.List(n.meta.View())
	if err != nil {
		return api.BackupList{}, err
	}
	list := api.BackupList{Backups: backupInfos(entries), EverySeconds: n.cfg.Backup.Every.Seconds()}
	if problem := n.backup.Problem(); problem != nil {
		list.Problem = problem.Error()
	}
	return list, nil
}

// Backups lists the backups in the store that cfg names, without a node.
func Backups(ctx context.Context, cfg config.Config) (api.BackupList, error) {
	s, closeStore, err := openExisting(ctx, cfg)
	if err != nil {
		return api.BackupList{}, err
	}
	found, err := backup.Find(ctx, s)
	if err = errors.Join(err, closeStore()); err != nil {
		return api.BackupList{}, err
	}
	return api.BackupList{Backups: backupInfos(found)}, nil
}

func backupInfos(entries []backup.Entry) []api.BackupInfo {
	infos := make([]api.BackupInfo, 0, len(entries))
	for _, e := range entries {
		infos = append(infos, backupInfo(e))
	}
	return infos
}

func backupInfo(e backup.Entry) api.BackupInfo {
	return api.BackupInfo{Key: e.Key, Generation: e.Generation, Index: e.Index, At: e.At, Packs: int64(e.Packs), Bytes: e.Bytes}
}
