package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Load reads files by name over HTTP, each client one after the other on a
// connection of its own, and compares every byte.
type Load struct {
	Base     string // URL of a node, without a slash at the end
	Files    Files
	Clients  int           // at once; 0: 1
	Duration time.Duration // how long requests are sent
	Zipf     bool          // some files far more often than others; else all alike
	Seed     uint64        // chooses the files

	// Progress is told how far the load is, about each second; nil: nobody.
	Progress func(LoadResult)
}

// LoadResult is what a load has found.
type LoadResult struct {
	Requests   int64 // answered
	Bytes      int64 // of their bodies
	Errors     int64 // no answer, or one that is not 200
	Wrong      int64 // of them, answers whose bytes differ
	FirstError error
	Took       time.Duration
	Latencies  Latencies // of the good answers, from the request to the last byte
}

// zipfSkew makes the most popular hundredth of a million files about two
// thirds of all reads.
const zipfSkew = 1.1

// progressEvery is the time between two calls of Progress.
const progressEvery = time.Second

// Run sends the load and returns when the duration is over or ctx has ended,
// which is its only error.
func (l Load) Run(ctx context.Context) (LoadResult, error) {
	transport := &http.Transport{
		MaxIdleConnsPerHost: max(1, l.Clients),
		DisableCompression:  true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	run, cancel := context.WithTimeout(ctx, l.Duration)
	defer cancel()
	began := time.Now()
	var total shared
	var clients sync.WaitGroup
	for i := range max(1, l.Clients) {
		clients.Go(func() {
			r := reader{load: l, client: client, random: rand.New(rand.NewPCG(l.Seed, uint64(i)))} //nolint:gosec // repeatable on purpose
			r.run(run, &total)
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for tick := time.NewTicker(progressEvery); ; {
		select {
		case <-tick.C:
			if l.Progress != nil {
				l.Progress(total.result(time.Since(began)))
			}
		case <-done:
			tick.Stop()
			return total.result(time.Since(began)), ctx.Err()
		}
	}
}

// shared is what the clients have found so far.
type shared struct {
	mu  sync.Mutex // guards all below
	sum LoadResult
}

func (s *shared) result(took time.Duration) LoadResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.sum
	r.Took = took
	return r
}

func (s *shared) add(took time.Duration, bytes int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.sum.Requests++
		s.sum.Bytes += bytes
		s.sum.Latencies.Add(took)
		return
	}
	s.sum.Errors++
	if errors.Is(err, ErrDiffers) {
		s.sum.Wrong++
	}
	if s.sum.FirstError == nil {
		s.sum.FirstError = err
	}
}

// reader is one client.
type reader struct {
	load   Load
	client *http.Client
	random *rand.Rand
}

func (r *reader) run(ctx context.Context, total *shared) {
	pick := func() int64 { return r.random.Int64N(r.load.Files.Count) }
	if r.load.Zipf {
		zipf := rand.NewZipf(r.random, zipfSkew, 1, uint64(r.load.Files.Count-1))
		pick = func() int64 { return int64(mix(zipf.Uint64()) % uint64(r.load.Files.Count)) } // the popular ones lie anywhere
	}
	for ctx.Err() == nil {
		i := pick()
		began := time.Now()
		bytes, err := Fetch(ctx, r.client, r.load.Base, r.load.Files, i)
		if err != nil && ctx.Err() != nil {
			return // cut by the end of the load
		}
		total.add(time.Since(began), bytes, err)
	}
}

// Fetch reads file i over HTTP and compares it. It must come from a pack.
func Fetch(ctx context.Context, client *http.Client, base string, files Files, i int64) (bytes int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/files/"+Name(i), nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		_, err := io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection is used again
		return 0, errors.Join(fmt.Errorf("%s: %s", Name(i), res.Status), err)
	}
	if res.Header.Get("X-Des-Pack") == "" {
		return 0, fmt.Errorf("%s: it was not served from a pack", Name(i))
	}
	want := files.Content(i)
	if err := want.Compare(res.Body); err != nil {
		return 0, fmt.Errorf("%s: %w", Name(i), err)
	}
	return want.size, nil
}
