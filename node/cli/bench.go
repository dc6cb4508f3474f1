package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/bench"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

func (a *app) bench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a node under a synthetic load",
		Long: `Runs a whole node in this process over a data dir of its own and made-up files: their content follows from their number,
so that only packs take disk. The figures hold for this machine, load generator included.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usage("say what to measure: archive or read") },
	}
	cmd.AddCommand(a.benchArchive(), a.benchRead())
	return cmd
}

// The variables in which deploy/dev's environment names its servers; its file
// dev-data/env sets them.
const (
	envDevPostgres = "DESNODE_DEV_POSTGRES"
	envDevS3       = "DESNODE_DEV_S3"
)

// benchSource is the short name of the source that is measured.
const benchSource = "desnode-bench"

// benchFlags say what is archived, from where and to where.
type benchFlags struct {
	files    int64
	size     string
	source   string
	store    string
	packSize string
	keep     bool
}

func (f *benchFlags) add(cmd *cobra.Command, files int64) {
	set := cmd.Flags()
	set.Int64Var(&f.files, "files", files, "how many files")
	set.StringVar(&f.size, "size", "16KiB", "size of each, or lognormal:SIZE for sizes around a median, sigma 1")
	set.StringVar(&f.source, "source", "sqlite", "sqlite, postgres (the one of 'make dev-up') or a postgres:// URL, in which schema desnode_bench is made anew")
	set.StringVar(&f.store, "store", "file", "file, s3 (the one of 'make dev-up'), or a file:// or s3:// URL, below which a folder of its own is made")
	set.StringVar(&f.packSize, "pack-size", "", "archive.pack_size (default 256MiB)")
	set.BoolVar(&f.keep, "keep", false, "keep the data dir, the rows and the packs, and say where they are")
}

// parseSizes reads "16KiB" or "lognormal:16KiB".
func parseSizes(s string) (bench.Sizes, error) {
	median, logNormal := strings.CutPrefix(s, "lognormal:")
	size, err := config.ParseSize(median)
	if err != nil {
		return bench.Sizes{}, &usageError{fmt.Errorf("--size: %w", err)}
	}
	return bench.Sizes{Bytes: int64(size), LogNormal: logNormal}, nil
}

// benchRun is one run: what is archived, and the configuration of its node.
type benchRun struct {
	app   *app
	flags benchFlags
	files bench.Files
	dir   string // holds all that is local
	cfg   config.Config
}

// newBenchRun chooses where everything is and makes the run's folder.
func (a *app) newBenchRun(flags benchFlags) (_ *benchRun, err error) {
	r := &benchRun{app: a, flags: flags, files: bench.Files{Count: flags.files}}
	if flags.files <= 0 {
		return nil, usage("--files: there must be one at least")
	}
	if r.files.Sizes, err = parseSizes(flags.size); err != nil {
		return nil, err
	}
	sourceURL, err := benchURL("source", flags.source, "postgres", envDevPostgres)
	if err != nil {
		return nil, err
	}
	storeURL, err := benchURL("store", flags.store, "s3", envDevS3)
	if err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "desnode-bench-"); err != nil {
		return nil, err
	}
	r.cfg = config.Default(filepath.Join(r.dir, "node"))
	r.cfg.HTTP = "127.0.0.1:0"
	r.cfg.Archive.MinAge = 0
	if flags.packSize != "" {
		if r.cfg.Archive.PackSize, err = config.ParseSize(flags.packSize); err != nil {
			return nil, errors.Join(&usageError{fmt.Errorf("--pack-size: %w", err)}, os.RemoveAll(r.dir))
		}
	}
	if storeURL != "file" {
		r.cfg.Store.URL = ownFolder(storeURL)
	}
	src := config.Source{URL: "sqlite://" + filepath.ToSlash(filepath.Join(r.cfg.DataDir, "bench.db"))}
	if sourceURL != "sqlite" {
		src = config.Source{URL: sourceURL, Table: source.SeedTable}
	}
	r.cfg.Sources = map[string]config.Source{benchSource: src}
	return r, nil
}

// benchURL returns what a flag names: a URL as it is, the word of a server of
// deploy/dev as that server's URL, and the embedded one's word as it is.
func benchURL(flag, value, word, variable string) (string, error) {
	switch {
	case value == word:
		u := os.Getenv(variable)
		if u == "" {
			return "", usage(fmt.Sprintf("--%s %s: %s is not set; start 'make dev-up', then '. dev-data/env', or give a URL", flag, word, variable))
		}
		return u, nil
	case value == "sqlite" && flag == "source", value == "file" && flag == "store":
		return value, nil
	case strings.HasPrefix(value, "postgres://") && flag == "source", strings.HasPrefix(value, "postgresql://") && flag == "source",
		strings.HasPrefix(value, "file://") && flag == "store", strings.HasPrefix(value, "s3://") && flag == "store":
		return value, nil
	}
	return "", usage(fmt.Sprintf("--%s: unknown: %q", flag, redactedURL(value)))
}

// redactedURL returns a URL without its password.
func redactedURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}

// ownFolder returns the URL of a folder below a store's that no other cluster
// has used.
func ownFolder(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw // opening it says why
	}
	u.Path = path.Join("/", u.Path, "desnode-bench-"+strings.ToLower(rand.Text()[:12]))
	return u.String()
}

// seed lists the files in the source.
func (r *benchRun) seed(ctx context.Context) (took time.Duration, err error) {
	p := r.app.progress("insert rows")
	defer p.done()
	began := time.Now()
	inserted := func(rows int64) { p.update(rows*r.files.Sizes.Bytes, r.files.Count*r.files.Sizes.Bytes, rows) }
	src := r.cfg.Sources[benchSource]
	if r.flags.source == "sqlite" {
		err = r.seedSQLite(ctx, inserted)
	} else {
		err = source.Seed(ctx, src.URL, src.Mapping(benchSource), r.files.Count, r.files.File, inserted)
	}
	return time.Since(began), err
}

func (r *benchRun) seedSQLite(ctx context.Context, inserted func(rows int64)) (err error) {
	if err := os.MkdirAll(r.cfg.DataDir, 0o750); err != nil {
		return err
	}
	path, err := r.cfg.Sources[benchSource].Path()
	if err != nil {
		return err
	}
	rows, err := source.OpenSQLite(ctx, source.SQLiteConfig{Name: benchSource, Path: path})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	batch := make([]source.File, 0, source.MaxBatch)
	for i := range r.files.Count {
		if batch = append(batch, r.files.File(i)); len(batch) < source.MaxBatch && i < r.files.Count-1 {
			continue
		}
		if _, err := rows.Register(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
		inserted(i + 1)
	}
	return nil
}

// clean removes what the run has made, or says where it is.
func (r *benchRun) clean(ctx context.Context) error {
	if r.flags.keep {
		_, err := fmt.Fprintf(r.app.stderr, "Kept: data dir %s, source %s, store %s\n", r.cfg.DataDir,
			redactedURL(r.cfg.Sources[benchSource].URL), redactedURL(r.cfg.Store.URL))
		return err
	}
	ctx = context.WithoutCancel(ctx) // an interrupted run cleans up too
	var errs []error
	if r.flags.source != "sqlite" {
		errs = append(errs, source.Unseed(ctx, r.cfg.Sources[benchSource].URL, benchSource))
	}
	if folder, err := r.cfg.Store.Path(); err == nil {
		errs = append(errs, os.RemoveAll(folder)) // in r.dir, or the run's own below another
	} else {
		errs = append(errs, emptyStore(ctx, r.cfg.Store.URL))
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// emptyStore deletes every object of a store. An S3 store's own object,
// store.ProbeKey of a few bytes, can't be deleted through it and stays.
func emptyStore(ctx context.Context, storeURL string) error {
	s, err := store.Open(ctx, storeURL)
	if err != nil {
		return err
	}
	if c, ok := s.(interface{ Close() error }); ok {
		defer func() { _ = c.Close() }()
	}
	var keys []string
	err = s.List(ctx, "", "", func(o store.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	errs := []error{err}
	for _, key := range keys {
		errs = append(errs, s.Delete(ctx, key))
	}
	return errors.Join(errs...)
}
