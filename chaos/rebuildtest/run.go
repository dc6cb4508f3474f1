package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/chaos/rig"
)

// trial is one run: archive, take away, rebuild, compare.
func (o *options) trial(ctx context.Context, errs io.Writer) (rep *report, err error) {
	began := time.Now()
	logf := func(format string, args ...any) {
		_, _ = fmt.Fprintf(errs, "%6.1fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	c, err := rig.NewCluster(o.bin, filepath.Join(o.dir, "cluster"), "", logf)
	if err != nil {
		return nil, err
	}
	if c.Servers, err = rig.StartServers(ctx, c.Dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Servers.Stop()) }()
	defer c.Close()
	c.Env = c.Servers.Environ()
	store := "file://" + c.Store
	if o.store == "s3" {
		store = c.Servers.Store()
	}
	c.Own = fmt.Sprintf("store: {url: %q}\nsources: {files: {url: %q, roots: [%q]}}\n", store, c.Servers.Postgres.URL, c.Src)
	n, err := c.Add()
	if err != nil {
		return nil, err
	}
	if _, err := n.Run(ctx, "source", "init", "files", "--apply", "--config", n.Config()); err != nil {
		return nil, err
	}
	files := rig.NewFiles(o.seed, "rebuild", o.files, func(_ int, rnd *rand.Rand) int64 { return 64 + rnd.Int64N(449) })
	if err := c.Servers.List(ctx, c.Src, files); err != nil {
		return nil, err
	}
	logf("%d files are listed", len(files))
	if err := errors.Join(n.Start("start"), n.Ready(ctx)); err != nil {
		return nil, err
	}
	if _, err := n.CLI(ctx, "archive"); err != nil {
		return nil, err
	}
	logf("archived")
	rep = &report{Files: o.files, Store: o.store}
	if err := o.rebuild(ctx, rep, c, n, files, logf); err != nil {
		return nil, err
	}
	return rep, n.Stop(ctx)
}

// rebuild takes data dir and columns away from a node that has archived all
// files, has them rebuilt, and holds what comes against what was.
func (o *options) rebuild(ctx context.Context, rep *report, c *rig.Cluster, n *rig.Node, files []*rig.File, logf func(string, ...any)) error {
	url := c.Servers.Postgres.URL
	packs, err := manifest(ctx, n)
	if err != nil {
		return err
	}
	rows, err := rowsOf(ctx, url)
	if err != nil {
		return err
	}
	if err := errors.Join(n.Stop(ctx), os.RemoveAll(n.Data()), clearColumns(ctx, url)); err != nil {
		return err
	}
	logf("data dir and columns are gone")
	cleared, err := rowsOf(ctx, url)
	if err != nil {
		return err
	}
	if cleared.Sum == rows.Sum {
		return errors.New("clearing the columns changed nothing")
	}
	began := time.Now()
	if err := errors.Join(n.Start("rebuild", "--source", "--yes"), n.Ready(ctx)); err != nil {
		return err
	}
	reading := rig.Begin(ctx, func(ctx context.Context) error { return readAlong(ctx, n, files, o.seed, began, &rep.Reads) })
	defer reading.End()
	if err := rep.watch(ctx, n, began); err != nil {
		return err
	}
	reading.End()
	logf("rebuilt")
	if rep.PeakMemory, err = peakMemory(n.PID()); err != nil {
		return err
	}
	gotPacks, err := manifest(ctx, n)
	if err != nil {
		return err
	}
	gotRows, err := rowsOf(ctx, url)
	if err != nil {
		return err
	}
	rep.Packs, rep.States = len(packs), gotRows.States
	for _, p := range packs {
		rep.ExtraBytes += p.Size - p.PayloadBytes
	}
	rep.judge(maps.Equal(gotPacks, packs), gotRows, rows)
	return nil
}

// judge holds the bars.
func (r *report) judge(sameManifest bool, got, want table) {
	r.hold(sameManifest, "the manifest is not the same")
	r.hold(want.States["PACKED"] == r.Files, "before, not all rows were PACKED: %v", want.States)
	r.hold(got.Sum == want.Sum, "the state columns are not the same: %v, before %v", got.States, want.States)
	r.hold(r.Reads.Right > 0, "no read was right while it ran")
	r.hold(r.Reads.Failed == 0, "%d reads were neither right nor answered by 503: %v", r.Reads.Failed, r.Reads.Failures)
	r.hold(r.Bytes <= r.ExtraBytes, "%d bytes were read, packs hold %d beside payload", r.Bytes, r.ExtraBytes)
}

// readAlong reads random files until ctx ends.
func readAlong(ctx context.Context, n *rig.Node, files []*rig.File, seed uint64, began time.Time, r *reads) error {
	rnd := rand.New(rand.NewPCG(seed, 1)) // #nosec G404 -- not a secret
	for ctx.Err() == nil {
		f := files[rnd.IntN(len(files))]
		a := n.Read(ctx, f)
		switch {
		case ctx.Err() != nil: // cut short by the end of the rebuild
		case a.Right:
			if r.Right++; r.Right == 1 {
				r.FirstRight = time.Since(began).Seconds()
			}
		case a.Status == http.StatusServiceUnavailable:
			r.Unavailable++
		default:
			if r.Failed++; r.Failed <= 10 {
				r.Failures = append(r.Failures, f.Name+": "+a.String())
			}
		}
	}
	return nil
}

// watch follows the rebuild until it is done.
func (r *report) watch(ctx context.Context, n *rig.Node, began time.Time) error {
	since, at := began, "start"
	for {
		var s struct {
			Rebuild *struct {
				Done                  bool
				Phase                 string
				Rows, Requests, Bytes int64
			}
		}
		if err := n.Get(ctx, "/cluster/status", &s); err != nil {
			return err
		}
		if b := s.Rebuild; b != nil {
			now := time.Now()
			if b.Done {
				b.Phase = "done"
			}
			if b.Phase != "" && b.Phase != at { // empty: it has not begun
				r.Phases = append(r.Phases, phase{at, now.Sub(since).Seconds()})
				since, at = now, b.Phase
			}
			if b.Done {
				r.Seconds, r.Rows, r.Requests, r.Bytes = now.Sub(began).Seconds(), b.Rows, b.Requests, b.Bytes
				return nil
			}
		}
		if err := rig.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// clearColumns takes out of the table what desnode has written there, as its
// owner can.
func clearColumns(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `ALTER TABLE desnode.files DISABLE TRIGGER USER;
UPDATE desnode.files SET status = 'ACTIVE', archive_version = 0, des_cluster = NULL, des_name = NULL, des_shard = NULL,
 des_hash = NULL, des_pack = NULL, des_sha256 = NULL, marked_at = NULL, packed_at = NULL;
ALTER TABLE desnode.files ENABLE TRIGGER USER`)
	return errors.Join(err, conn.Close(ctx))
}
