package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/bench"
)

// readFlags say how files are read.
type readFlags struct {
	clients  int
	duration time.Duration
	zipf     bool
}

func (a *app) benchRead() *cobra.Command {
	var flags benchFlags
	var read readFlags
	cmd := &cobra.Command{
		Use:   "read",
		Short: "Archive made-up files, then read them by name and print the latencies",
		Long: `Archives made-up files as 'bench archive' does, then reads them by name over HTTP from several clients, each on a
connection of its own and one file after the other, and compares every byte. The clients run in this process, and what
they cost is part of the figures. Exit code 1 when any answer failed or differed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if read.clients <= 0 || read.duration <= 0 {
				return usage("--clients and --duration must be above 0")
			}
			r, err := a.newBenchRun(flags)
			if err != nil {
				return err
			}
			return errors.Join(r.measureRead(cmd.Context(), read), r.clean(cmd.Context()))
		},
	}
	flags.add(cmd, 100_000)
	cmd.Flags().IntVar(&read.clients, "clients", 8, "how many read at once")
	cmd.Flags().DurationVar(&read.duration, "duration", 30*time.Second, "how long they read")
	cmd.Flags().BoolVar(&read.zipf, "zipf", false, "read some files far more often than others, as people do; else all alike")
	return cmd
}

// readReport is the result of bench read. Latencies are in seconds.
type readReport struct {
	Files    int64  `json:"files"`
	Size     string `json:"size"`
	Source   string `json:"source"`
	Store    string `json:"store"`
	Clients  int    `json:"clients"`
	Zipf     bool   `json:"zipf"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"`
	Wrong    int64  `json:"wrong"` // of the errors, answers whose bytes differ
	First    string `json:"first_error,omitempty"`

	benchStage
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`

	StoreRequests map[string]int64 `json:"store_requests"` // by kind, while reading
	PerRead       float64          `json:"store_requests_per_read"`
	Cache         api.CacheStatus  `json:"cache"`
}

func (r *benchRun) measureRead(ctx context.Context, flags readFlags) error {
	if _, err := r.seed(ctx); err != nil {
		return err
	}
	n, err := r.startNode(ctx)
	if err != nil {
		return err
	}
	report, err := r.read(ctx, n, flags)
	if err = errors.Join(err, n.close()); err != nil {
		return err
	}
	if err := r.app.print(report, report.write); err != nil {
		return err
	}
	if report.Errors > 0 {
		return fmt.Errorf("%w: %s, first: %s", errFailed, count(report.Errors, "bad answer"), report.First)
	}
	return nil
}

func (r *benchRun) read(ctx context.Context, n *benchNode, flags readFlags) (readReport, error) {
	report := readReport{
		Files: r.files.Count, Size: r.files.Sizes.String(), Clients: flags.clients, Zipf: flags.zipf,
		Source: redactedURL(r.cfg.Sources[benchSource].URL), Store: redactedURL(r.cfg.Store.URL),
	}
	last, err := runArchive(ctx, n.client, api.ArchiveRequest{}, r.app.progress("archive"))
	if err == nil && last.Failed > 0 {
		err = fmt.Errorf("%w: %s could not be archived", errFailed, count(last.Failed, "file"))
	}
	if err == nil {
		err = n.awaitVerified(ctx) // its requests are not the readers'
	}
	if err != nil {
		return report, fmt.Errorf("archive: %w", err)
	}
	before, err := call[api.Status](ctx, n.client, http.MethodGet, api.PathStatus, nil)
	if err != nil {
		return report, err
	}
	p := r.app.progress("read")
	load := bench.Load{
		Base: n.base, Files: r.files, Clients: flags.clients, Duration: flags.duration, Zipf: flags.zipf, Seed: 1,
		Progress: func(l bench.LoadResult) { p.update(l.Bytes, 0, l.Requests) },
	}
	result, err := load.Run(ctx)
	p.done()
	if err != nil {
		return report, err
	}
	after, err := call[api.Status](ctx, n.client, http.MethodGet, api.PathStatus, nil)
	if err != nil {
		return report, err
	}
	report.note(result)
	report.StoreRequests = map[string]int64{}
	var requests int64
	for kind, n := range after.StoreCalls {
		report.StoreRequests[kind] = n - before.StoreCalls[kind]
		requests += report.StoreRequests[kind]
	}
	report.PerRead = ratio(requests, result.Requests)
	report.Cache = after.Cache
	return report, nil
}

func (b *readReport) note(l bench.LoadResult) {
	b.Requests, b.Errors, b.Wrong = l.Requests, l.Errors, l.Wrong
	if l.FirstError != nil {
		b.First = l.FirstError.Error()
	}
	b.benchStage = stageOf(l.Requests, l.Bytes, l.Took)
	of := func(q float64) float64 { return l.Latencies.Quantile(q).Seconds() }
	b.Mean, b.Max = l.Latencies.Mean().Seconds(), l.Latencies.Max().Seconds()
	b.P50, b.P95, b.P99, b.P999 = of(0.5), of(0.95), of(0.99), of(0.999)
}

func (b readReport) write(w io.Writer) error {
	t := newTable(w)
	pick := "all alike"
	if b.Zipf {
		pick = "Zipf"
	}
	t.row("load", fmt.Sprintf("%s of %s bytes, %s, %s", count(b.Files, "file"), b.Size, count(int64(b.Clients), "client"), pick))
	t.row("source", printable(b.Source))
	t.row("store", printable(b.Store))
	t.row("reads", fmt.Sprintf("%s in %s, %s a second, %.1f MB/s; %s", formatCount(b.Requests), formatSeconds(b.Seconds),
		formatCount(int64(b.FilesPerSecond)), b.BytesPerSecond/1e6, count(b.Errors, "error")))
	t.row("latency", fmt.Sprintf("mean %s, p50 %s, p95 %s, p99 %s, p99.9 %s, longest %s", formatSeconds(b.Mean), formatSeconds(b.P50),
		formatSeconds(b.P95), formatSeconds(b.P99), formatSeconds(b.P999), formatSeconds(b.Max)))
	t.row("store requests", fmt.Sprintf("%.4g a read: %s", b.PerRead, formatKinds(b.StoreRequests)))
	t.row("index cache", cache(b.Cache.IndexBytes, b.Cache.IndexCap, b.Cache.IndexHits, b.Cache.IndexMisses))
	t.row("data cache", cache(b.Cache.DataBytes, b.Cache.DataCap, b.Cache.DataHits, b.Cache.DataMisses))
	return t.flush()
}
