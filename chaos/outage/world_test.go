package outage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
)

// world is one node over a real Postgres and a real S3 server behind proxies.
type world struct {
	t    *testing.T
	dir  string
	bin  string
	pg   *dev.Postgres
	s3   *faulty
	base string // the node's HTTP address

	mu    sync.Mutex
	files map[string][]byte // what the source system has, by name
}

// newWorld starts the servers, prepares the source and starts a node.
func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out Postgres and S3")
	}
	w := &world{t: t, dir: devtest.Folder(t), files: map[string][]byte{}}
	w.bin = filepath.Join(w.dir, "desnode")
	w.command("go", "build", "-o", w.bin, "github.com/datavision/desnode")
	var err error
	if w.pg, err = dev.StartPostgres(t.Context(), w.mkdir("pg")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.check(w.pg.Stop()) })
	s3, err := dev.StartS3(t.Context(), w.mkdir("s3"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.check(s3.Stop()) })
	w.check(s3.MakeBucket("archive"))
	w.s3 = newFaulty(t, s3.Endpoint)
	config := fmt.Sprintf(`
data_dir: %q
http: 127.0.0.1:0
store: {url: "s3://archive/packs?endpoint=http://%s&region=%s"}
sources: {docs: {url: %q, roots: [%q]}}
archive: {pack_size: 1MiB, max_wait: 1s, min_age: 24h, attempts: 1000}
cache: {data: 1MiB} # so that reads need the store
`, w.mkdir("data"), w.s3.addr, dev.S3Region, w.pg.URL, w.mkdir("files"))
	w.check(os.WriteFile(filepath.Join(w.dir, "desnode.yaml"), []byte(config), 0o600))
	w.command(w.bin, "--config", filepath.Join(w.dir, "desnode.yaml"), "source", "init", "docs", "--apply")
	w.startNode()
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

func (w *world) mkdir(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(path, 0o750); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// environ is the environment of the node: the store's credentials.
func environ() []string {
	return append(os.Environ(), "AWS_ACCESS_KEY_ID="+dev.S3AccessKey, "AWS_SECRET_ACCESS_KEY="+dev.S3SecretKey)
}

func (w *world) command(program string, args ...string) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	cmd.Env = environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// startNode starts the node and waits until it is ready; it ends with the test.
func (w *world) startNode() {
	w.t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(w.t.Context()), w.bin,
		"--config", filepath.Join(w.dir, "desnode.yaml"), "start")
	cmd.Env = environ()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ready := make(chan string, 1)
	var log bytes.Buffer // read after done
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			log.Write(append(lines.Bytes(), '\n'))
			var line struct{ Msg, HTTP string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "node ready" {
				ready <- line.HTTP
			}
		}
	}()
	w.t.Cleanup(func() {
		w.check(cmd.Process.Signal(syscall.SIGTERM))
		<-done
		w.check(cmd.Wait())
		if w.t.Failed() {
			w.t.Logf("the node's log:\n%s", tail(log.String(), 16<<10))
		}
	})
	select {
	case addr := <-ready:
		w.base = "http://" + addr
	case <-done:
		w.t.Fatalf("the node ended:\n%s", log.String())
	case <-time.After(time.Minute):
		w.t.Fatal("the node is not ready")
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// add has the source system list n new old files of up to 64 KiB.
func (w *world) add(prefix string, n int) (names []string) {
	w.t.Helper()
	old := time.Now().Add(-100 * 24 * time.Hour).Truncate(time.Second)
	random := rand.New(rand.NewPCG(1, uint64(len(w.files))))
	rows := make([][]any, 0, n)
	for i := range n {
		name := fmt.Sprintf("%s/%05d", prefix, i)
		content := make([]byte, random.IntN(64<<10))
		for j := range content {
			content[j] = byte(random.Uint32())
		}
		path := filepath.Join(w.dir, "files", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			w.t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path, content, 0o600), os.Chtimes(path, old, old)); err != nil {
			w.t.Fatal(err)
		}
		w.mu.Lock()
		w.files[name] = content
		w.mu.Unlock()
		rows = append(rows, []any{name, path, int64(len(content)), old})
		names = append(names, name)
	}
	conn, err := pgx.Connect(w.t.Context(), w.pg.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = conn.CopyFrom(w.t.Context(), pgx.Identifier{"desnode", "files"},
		[]string{"name", "path", "size", "modified_at"}, pgx.CopyFromRows(rows))
	if err = errors.Join(err, conn.Close(w.t.Context())); err != nil {
		w.t.Fatal(err)
	}
	return names
}

// packed waits until all rows are PACKED, and fails when some are FAILED.
func (w *world) packed(patience time.Duration) {
	w.t.Helper()
	began := time.Now()
	deadline := began.Add(patience)
	for {
		states, err := w.states()
		switch {
		case err == nil && states["PACKED"] == int64(len(w.files)) && len(states) == 1:
			w.t.Logf("%d files are PACKED after %s", len(w.files), time.Since(began).Round(time.Millisecond))
			return
		case time.Now().After(deadline):
			w.t.Fatalf("after %s the rows are %v, %v; want %d PACKED", patience, states, err, len(w.files))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// states counts the rows by state, from the database itself.
func (w *world) states() (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.pg.URL)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, "SELECT status, count(*) FROM desnode.files GROUP BY 1")
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	states := map[string]int64{}
	for rows.Next() {
		var state string
		var n int64
		err = errors.Join(err, rows.Scan(&state, &n))
		states[state] = n
	}
	return states, errors.Join(err, rows.Err(), conn.Close(ctx))
}

// answer is what one read came to.
type answer struct {
	status int
	retry  string // Retry-After
	right  bool   // the bytes are those of the file
	took   time.Duration
	err    error
}

// read reads one file by name.
func (w *world) read(ctx context.Context, name string) (a answer) {
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+"/files/"+name, nil)
	if err != nil {
		return answer{err: err}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	w.mu.Lock()
	want := w.files[name]
	w.mu.Unlock()
	return answer{
		status: res.StatusCode, retry: res.Header.Get("Retry-After"),
		right: res.StatusCode == http.StatusOK && bytes.Equal(body, want), err: err,
	}
}

// readers reads names at random until the returned function is called, which
// returns what came.
func (w *world) readers(names []string, count int) (stop func() []answer) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []answer
	for range count {
		wg.Go(func() {
			for ctx.Err() == nil {
				// A read that has begun is waited for.
				a := w.read(w.t.Context(), names[rand.IntN(len(names))])
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() []answer {
		cancel()
		wg.Wait()
		return all
	}
}

// whole checks that every file is read back identical and stands in exactly
// one live record, and that every pack is whole.
func (w *world) whole() {
	w.t.Helper()
	for name := range w.files {
		if a := w.read(w.t.Context(), name); !a.right {
			w.t.Errorf("%s: %+v", name, a)
		}
	}
	var packs struct {
		Packs []struct {
			Records, Dead int64
			Acknowledged  bool
		}
	}
	w.get("/cluster/packs", &packs)
	live := int64(0)
	for _, p := range packs.Packs {
		live += p.Records - p.Dead
		if !p.Acknowledged {
			w.t.Errorf("a pack is not acknowledged: %+v", p)
		}
	}
	if live != int64(len(w.files)) {
		w.t.Errorf("%d live records for %d files", live, len(w.files))
	}
	w.command(w.bin, "--addr", w.base, "verify")
}

func (w *world) get(path string, into any) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.base+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(json.NewDecoder(res.Body).Decode(into), res.Body.Close()); err != nil {
		w.t.Fatal(err)
	}
}
