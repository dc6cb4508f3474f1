package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// BenchmarkHotRead measures reads by name from memory over HTTP/1.1 keep-alive
// on loopback, side by side with a handler that sends the same headers and the
// same body from constants. The two are asked in turn, in short slices, so that
// what else the machine does hits both; ratio is the median of the slices'
// ratios, the rates are medians too. An op is one read of each.
func BenchmarkHotRead(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) { hotRead(b, size) })
	}
}

const (
	hotClients = 4   // connections at once to each server
	hotSlice   = 200 // requests of one slice
	hotNames   = 16
)

func hotRead(b *testing.B, size int) {
	content := bytes.Repeat([]byte("desnode "), size/8)
	var names []string
	var records []packed
	for i := range hotNames {
		names = append(names, fmt.Sprintf("invoices/2019/04/A-%04d.pdf", i))
		records = append(records, packed{name: names[i], content: content})
	}
	w := newWorld(b, 0, records...)
	cfg := w.config(b)
	cfg.Logger = slog.New(slog.NewJSONHandler(io.Discard, nil)) // level info, as a node's
	server := serverOf(b, cfg)
	ours := startRaw(b, server)
	ours.get(b, names) // into memory
	constant := startRaw(b, constantServer(server, ours.header, content))
	constant.get(b, names)

	var ratios, oursRate, constantRate []float64
	b.ResetTimer()
	for left, turn := b.N, 0; left > 0; left, turn = left-hotSlice, turn+1 {
		n := min(left, hotSlice)
		var took, tookConstant time.Duration
		if turn%2 == 0 {
			took, tookConstant = ours.slice(b, names, n), constant.slice(b, names, n)
		} else {
			tookConstant, took = constant.slice(b, names, n), ours.slice(b, names, n)
		}
		ratios = append(ratios, tookConstant.Seconds()/took.Seconds())
		oursRate = append(oursRate, float64(n)/took.Seconds())
		constantRate = append(constantRate, float64(n)/tookConstant.Seconds())
	}
	b.StopTimer()
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(oursRate), "ours/s")
	b.ReportMetric(median(constantRate), "constant/s")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func serverOf(b *testing.B, cfg Config) *http.Server {
	s, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	return s.httpServer(context.Background())
}

// constantServer sends the header of one of our answers and the body, under the
// same time limits as ours: what is compared is the handlers.
func constantServer(limits *http.Server, like http.Header, content []byte) *http.Server {
	type line struct {
		key   string
		value []string
	}
	var lines []line
	for key, value := range like {
		if key != "Date" { // net/http's own
			lines = append(lines, line{key, value})
		}
	}
	return &http.Server{
		ReadHeaderTimeout: limits.ReadHeaderTimeout,
		WriteTimeout:      limits.WriteTimeout,
		IdleTimeout:       limits.IdleTimeout,
		MaxHeaderBytes:    limits.MaxHeaderBytes,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			for _, l := range lines {
				h[l.key] = l.value
			}
			_, _ = w.Write(content)
		}),
	}
}

// rawServer is a server and connections to it that read as little as can be,
// so that the client's cost does not hide the server's.
type rawServer struct {
	clients []*rawClient
	header  http.Header // of the last answer to get
}

type rawClient struct {
	conn net.Conn
	room []byte
}

func startRaw(b *testing.B, server *http.Server) *rawServer {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	s := &rawServer{}
	for range hotClients {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		s.clients = append(s.clients, &rawClient{conn: conn, room: make([]byte, 64<<10)})
	}
	b.Cleanup(func() {
		for _, c := range s.clients {
			_ = c.conn.Close()
		}
		_ = server.Close()
		<-served
	})
	return s
}

// get reads each name once, on every connection, and keeps the header.
func (s *rawServer) get(b *testing.B, names []string) {
	b.Helper()
	for _, c := range s.clients {
		for _, name := range names {
			header, _, err := c.get(request(name))
			if err != nil {
				b.Fatal(err)
			}
			s.header = http.Header{}
			for line := range bytes.SplitSeq(header, []byte("\r\n")) {
				if key, value, ok := bytes.Cut(line, []byte(": ")); ok {
					s.header[http.CanonicalHeaderKey(string(key))] = []string{string(value)}
				}
			}
		}
	}
}

func request(name string) []byte {
	return []byte("GET /files/" + name + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

// slice makes n requests, spread over the connections, and returns how long
// they took.
func (s *rawServer) slice(b *testing.B, names []string, n int) time.Duration {
	requests := make([][]byte, len(names))
	for i, name := range names {
		requests[i] = request(name)
	}
	var clients sync.WaitGroup
	began := time.Now()
	for i, c := range s.clients {
		clients.Go(func() {
			for j := i; j < n; j += len(s.clients) {
				if _, _, err := c.get(requests[j%len(requests)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	return time.Since(began)
}

var (
	statusOK      = []byte("HTTP/1.1 200 OK\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

// get sends a request and reads its answer.
func (c *rawClient) get(request []byte) (header, body []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, nil, err
	}
	have, want := 0, -1
	for have != want {
		n, err := c.conn.Read(c.room[have:])
		if err != nil {
			return nil, nil, err
		}
		have += n
		end := bytes.Index(c.room[:have], []byte("\r\n\r\n"))
		if want >= 0 || end < 0 {
			continue
		}
		header = c.room[:end]
		at := bytes.Index(header, contentLength)
		if at < 0 || !bytes.HasPrefix(header, statusOK) {
			return nil, nil, fmt.Errorf("answer %q", header)
		}
		digits, _, _ := bytes.Cut(header[at+len(contentLength):], []byte("\r\n"))
		length, err := strconv.Atoi(string(digits))
		if err != nil {
			return nil, nil, err
		}
		body = c.room[end+4 : end+4+length]
		want = end + 4 + length
	}
	return header, body, nil
}
