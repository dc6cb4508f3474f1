package main

// Benchmarks of the whole binary, driven from outside over HTTP: what a user
// waits for and what the machine has to hold. `make bench` runs them.

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/cli"
)

// asNode makes this test binary act as desnode itself.
const asNode = "DESNODE_BENCH_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asNode) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// child is a node in a process of its own.
type child struct {
	b   *testing.B
	cmd *exec.Cmd
	url string
}

// startNode starts a node on an empty data dir and waits until it is ready.
func startNode(b *testing.B) *child {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), exe, "start", "--data-dir", filepath.Join(b.TempDir(), "data"), "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), asNode+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := &child{b: b, cmd: cmd}
	b.Cleanup(c.stop)
	lines := bufio.NewScanner(stderr)
	for c.url == "" && lines.Scan() {
		var line struct{ Msg, HTTP string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "node ready" {
			c.url = "http://" + line.HTTP
		}
	}
	if c.url == "" {
		b.Fatal("the node ended before it was ready")
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }() // ends with the child
	return c
}

func (c *child) stop() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Signal(os.Interrupt)
		_ = c.cmd.Wait()
	}
}

// post sends a request whose answer is a stream of events and waits for its end.
func (c *child) post(path string, body any) {
	c.b.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		c.b.Fatal(err)
	}
	res, err := http.Post(c.url+path, api.TypeJSON, bytes.NewReader(b))
	if err != nil {
		c.b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var last api.End
	for dec := json.NewDecoder(res.Body); !last.Done; {
		last = api.End{}
		if err := dec.Decode(&last); err != nil {
			c.b.Fatalf("%s: %s: %v", path, res.Status, err)
		}
	}
	if last.Error != nil {
		c.b.Fatalf("%s: %v", path, last.Error)
	}
}

// peakMiB returns the most memory the child has held.
func (c *child) peakMiB() float64 {
	c.b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		c.b.Fatal("no VmHWM in /proc")
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		c.b.Fatal(err)
	}
	return kib / 1024
}

// BenchmarkArchive archives Go's own source tree, from import to PACKED, and
// reports the time as a ratio to tar piped into sha256sum over the same tree in
// the same run. The bar is 3.
func BenchmarkArchive(b *testing.B) {
	dir := filepath.Join(runtime.GOROOT(), "src") //nolint:staticcheck // a large tree that every developer has
	var ours, tar time.Duration
	for b.Loop() {
		tar += tarTime(b, dir)
		node := startNode(b)
		began := time.Now()
		node.post(api.PathImport, api.ImportRequest{Dir: dir})
		node.post(api.PathArchive, api.ArchiveRequest{})
		ours += time.Since(began)
		node.stop()
	}
	b.ReportMetric(ours.Seconds()/float64(b.N), "archive-s")
	b.ReportMetric(tar.Seconds()/float64(b.N), "tar-s")
	b.ReportMetric(ours.Seconds()/tar.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

func tarTime(b *testing.B, dir string) time.Duration {
	b.Helper()
	began := time.Now()
	cmd := exec.CommandContext(b.Context(), "sh", "-c", `tar c -C "$1" . | sha256sum`, "sh", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("tar: %v: %s", err, out)
	}
	return time.Since(began)
}

// BenchmarkLargeRecord archives one file of 6 GiB and reads it back, whole and
// in ranges, and reports the most memory the node held. The bar is 200 MiB.
func BenchmarkLargeRecord(b *testing.B) {
	const size = 6 << 30
	for b.Loop() {
		dir := b.TempDir()
		want := writeLarge(b, filepath.Join(dir, "large"), size)
		node := startNode(b)
		began := time.Now()
		node.post(api.PathImport, api.ImportRequest{Dir: dir})
		node.post(api.PathArchive, api.ArchiveRequest{})
		b.ReportMetric(size/1e6/time.Since(began).Seconds(), "archive-MB/s")

		began = time.Now()
		h := sha256.New()
		if n := node.read(h, ""); n != size {
			b.Fatalf("read %d bytes, want %d", n, int64(size))
		}
		if got := [sha256.Size]byte(h.Sum(nil)); got != want {
			b.Fatal("the file was read back differently")
		}
		b.ReportMetric(size/1e6/time.Since(began).Seconds(), "read-MB/s")
		for _, from := range []int64{0, 1<<20 - 7, size / 2, size - 100} {
			to := min(from+3<<20, size) - 1
			if n := node.read(io.Discard, fmt.Sprintf("bytes=%d-%d", from, to)); n != to-from+1 {
				b.Fatalf("range %d-%d: %d bytes", from, to, n)
			}
		}
		b.ReportMetric(node.peakMiB(), "peak-MiB")
		node.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// writeLarge writes a file whose content differs from block to block.
func writeLarge(b *testing.B, path string, size int64) [sha256.Size]byte {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
	block := make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(block)) {
		for i := range block[:512] {
			block[i] = byte(at>>16) ^ byte(i*int(at>>20|1))
		}
		if _, err := w.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// read reads the large file, or a range of it, into w.
func (c *child) read(w io.Writer, byteRange string) int64 {
	c.b.Helper()
	req, err := http.NewRequestWithContext(c.b.Context(), http.MethodGet, c.url+"/files/large", nil)
	if err != nil {
		c.b.Fatal(err)
	}
	want := http.StatusOK
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
		want = http.StatusPartialContent
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != want {
		c.b.Fatalf("GET %s: %s", byteRange, res.Status)
	}
	n, err := io.Copy(w, res.Body)
	if err != nil {
		c.b.Fatal(err)
	}
	return n
}
