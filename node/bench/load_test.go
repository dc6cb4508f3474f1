package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantilesAreExactToABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, 1<<rapid.IntRange(1, 54).Draw(t, "bits")).Draw(t, "ns"))
		}), 1, 200).Draw(t, "durations")
		var one, other, all Latencies
		var sum time.Duration
		for i, d := range durations {
			sum += d
			if i%2 == 0 {
				one.Add(d)
			} else {
				other.Add(d)
			}
		}
		all.Merge(&one)
		all.Merge(&other)
		slices.Sort(durations)
		if all.Count() != int64(len(durations)) || all.Max() != durations[len(durations)-1] || all.Mean() != sum/time.Duration(len(durations)) {
			t.Fatalf("count %d, max %v, mean %v of %v", all.Count(), all.Max(), all.Mean(), durations)
		}
		for _, q := range []float64{0, 0.5, 0.95, 0.99, 0.999, 1} {
			exact := durations[max(1, int(q*float64(len(durations))+0.5))-1]
			if got := all.Quantile(q); got < exact || got > exact+exact/half {
				t.Fatalf("quantile %v is %v, exactly %v", q, got, exact)
			}
		}
	})
}

func TestNoLatenciesAreZero(t *testing.T) {
	var l Latencies
	if l.Quantile(0.5) != 0 || l.Mean() != 0 || l.Max() != 0 || l.Count() != 0 {
		t.Error("figures out of nothing")
	}
	l.Add(-time.Second) // a clock that was set back
	if l.Max() != 0 || l.Count() != 1 {
		t.Error("a negative duration is not 0")
	}
	l.Add(math.MaxInt64)
	if l.Quantile(1) != math.MaxInt64 {
		t.Errorf("the longest duration there is counts as %v", l.Quantile(1))
	}
}

// shelf serves made-up files as a node would, some of them wrong.
type shelf struct {
	files  Files
	served atomic.Int64
	spoil  func(i int64) string // what is wrong with file i: status, bytes, source, reset or ""
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.served.Add(1)
	i, err := s.files.index(folder + strings.TrimPrefix(r.URL.Path, "/files/"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Des-Pack", "p")
	var content io.Reader = s.files.Content(i)
	switch s.spoil(i) {
	case "status":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "bytes":
		content = s.files.Content((i + 1) % s.files.Count)
	case "source":
		w.Header().Del("X-Des-Pack")
	case "reset":
		panic(http.ErrAbortHandler)
	}
	_, _ = io.Copy(w, content)
}

func serve(t *testing.T, spoil func(i int64) string) (*shelf, string) {
	s := &shelf{files: Files{Count: 1000, Sizes: Sizes{Bytes: 100}}, spoil: spoil}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

func good(int64) string { return "" }

func TestALoadReadsAndComparesEverything(t *testing.T) {
	for _, zipf := range []bool{false, true} {
		t.Run(fmt.Sprintf("zipf %t", zipf), func(t *testing.T) {
			s, base := serve(t, good)
			l := Load{Base: base, Files: s.files, Clients: 3, Duration: 200 * time.Millisecond, Zipf: zipf}
			result, err := l.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if result.Requests == 0 || result.Errors != 0 || result.Bytes != 100*result.Requests || result.Latencies.Count() != result.Requests {
				t.Errorf("%d requests, %d errors, %d bytes, %v", result.Requests, result.Errors, result.Bytes, result.FirstError)
			}
			if cut := s.served.Load() - result.Requests; cut < 0 || cut > 3 { // each client's last may be cut
				t.Errorf("%d requests were served, %d counted", s.served.Load(), result.Requests)
			}
			if result.Took < l.Duration {
				t.Errorf("it ended after %v", result.Took)
			}
		})
	}
}

func TestALoadCountsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		spoilt string
		wrong  bool // bytes differ
	}{{"status", false}, {"bytes", true}, {"source", false}, {"reset", false}} {
		t.Run(c.spoilt, func(t *testing.T) {
			s, base := serve(t, func(i int64) string {
				if i%2 == 0 {
					return c.spoilt
				}
				return ""
			})
			result, err := Load{Base: base, Files: s.files, Clients: 2, Duration: 200 * time.Millisecond}.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if result.Errors == 0 || result.Requests == 0 || result.FirstError == nil {
				t.Errorf("%d requests, %d errors, first %v", result.Requests, result.Errors, result.FirstError)
			}
			if want := map[bool]int64{true: result.Errors}[c.wrong]; result.Wrong != want {
				t.Errorf("%d of %d errors are wrong bytes, want %d", result.Wrong, result.Errors, want)
			}
		})
	}
}

func TestALoadEndsWithItsContext(t *testing.T) {
	s, base := serve(t, good)
	ctx, end := context.WithCancel(t.Context())
	first := make(chan struct{})
	var told atomic.Bool
	s.spoil = func(int64) string {
		if told.CompareAndSwap(false, true) {
			close(first)
		}
		return ""
	}
	go func() {
		<-first
		end()
	}()
	if _, err := (Load{Base: base, Files: s.files, Duration: time.Hour}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMetricsAreScrapedAndCompared(t *testing.T) {
	body := `# HELP des_x Requests.
# TYPE des_x counter
des_x{kind="get",class="a b"} 3
des_x{kind="put"} 1e+06
des_x_total 7
alone 2.5
`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	m, err := Scrape(t.Context(), client, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	got := m.Since(Metrics{`des_x{kind="put"}`: 1e6}, "des_x")
	if len(got) != 1 || got[`kind="get",class="a b"`] != 3 {
		t.Errorf("grown: %v", got)
	}
	if got := m.Since(Metrics{}, "alone"); got[""] != 2 {
		t.Errorf("without labels: %v", got)
	}
	if !m.Has("des_x") || !m.Has("alone") || m.Has("des") || m.Has("des_x_") {
		t.Error("families are not told apart")
	}
	body = "des_x{} many\n"
	if _, err := Scrape(t.Context(), client, server.URL); err == nil {
		t.Error("what is no number is scraped")
	}
}

func TestPeakMemoryIsMeasured(t *testing.T) {
	peak, err := PeakMemory()
	if errors.Is(err, errors.ErrUnsupported) {
		return // the figure is left out there
	}
	if err != nil || peak < 1<<20 {
		t.Errorf("%d bytes, %v", peak, err)
	}
}
