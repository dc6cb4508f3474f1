package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/config"
)

// scenario is one of docs/contract.md: its blocks in their order.
type scenario struct {
	name   string
	blocks []block
}

// block is a fenced block: sql, sh or yaml.
type block struct{ kind, text string }

// scenarios reads them.
func scenarios(t *testing.T) []scenario {
	t.Helper()
	b, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n## Scenarios\n")
	if !ok {
		t.Fatal("docs/contract.md has no scenarios")
	}
	var list []scenario
	var open *block
	for line := range strings.Lines(text) {
		switch {
		case open != nil && strings.HasPrefix(line, "```"):
			last := &list[len(list)-1]
			last.blocks = append(last.blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		case strings.HasPrefix(line, "### "):
			list = append(list, scenario{name: strings.TrimSpace(line[4:])})
		case strings.HasPrefix(line, "```"):
			open = &block{kind: strings.TrimSpace(line[3:])}
		}
	}
	return list
}

// TestContractScenarios runs every scenario of docs/contract.md as it stands
// there, against a real Postgres and a real node.
func TestContractScenarios(t *testing.T) {
	server := contractServer(t)
	list := scenarios(t)
	if len(list) < 6 {
		t.Fatalf("%d scenarios in docs/contract.md", len(list))
	}
	for i, s := range list {
		t.Run(s.name, func(t *testing.T) {
			w := newContractWorld(t, server, fmt.Sprintf("scenario%d", i), s)
			for _, b := range s.blocks {
				switch b.kind {
				case "sql":
					w.sql(b.text)
				case "sh":
					w.sh(b.text)
				case "yaml":
				default:
					t.Errorf("a block of kind %q, which nobody runs", b.kind)
				}
			}
		})
	}
}

// contractServer starts a Postgres for one test.
func contractServer(t *testing.T) *dev.Postgres {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	dir, err := os.MkdirTemp("", "desnode-contract-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := dev.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// contractWorld is what one scenario runs in.
type contractWorld struct {
	t      *testing.T
	conn   *pgx.Conn
	root   string // in the place of /mnt/docs
	config string // the configuration's file
	addr   string // of the node, once it runs
}

func newContractWorld(t *testing.T, server *dev.Postgres, name string, s scenario) *contractWorld {
	w := &contractWorld{t: t, root: filepath.Join(t.TempDir(), "docs")}
	if err := os.Mkdir(w.root, 0o750); err != nil {
		t.Fatal(err)
	}
	admin := w.connect(server.URL)
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	w.conn = w.connect(u.String())
	dir := t.TempDir()
	text := fmt.Sprintf("data_dir: %q\nhttp: 127.0.0.1:0\nstore: {url: %q}\narchive: {attempts: 1}\nsources:\n  documents:\n    url: %q\n    roots: [%q]\n",
		filepath.Join(dir, "data"), "file://"+filepath.Join(dir, "store"), u, "/mnt/docs => "+w.root)
	prepares := false
	for _, b := range s.blocks {
		if b.kind == "yaml" {
			text += "    " + strings.ReplaceAll(strings.TrimSpace(b.text), "\n", "\n    ") + "\n"
		}
		prepares = prepares || strings.Contains(b.text, "desnode source init")
	}
	w.config = filepath.Join(dir, "desnode.yaml")
	if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if !prepares {
		w.desnode("source init --apply", "")
	}
	return w
}

func (w *contractWorld) connect(dbURL string) *pgx.Conn {
	conn, err := pgx.Connect(w.t.Context(), dbURL)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	return conn
}

// sql runs the statements of a block; each ends with a line that ends with a
// semicolon, and what should come out stands in the comments behind it.
func (w *contractWorld) sql(text string) {
	w.t.Helper()
	var statement string
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i < len(lines); i++ {
		statement += lines[i] + "\n"
		if strings.HasPrefix(lines[i], "--") || !strings.HasSuffix(lines[i], ";") {
			continue
		}
		var want []string
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "-- => ") {
			i++
			want = append(want, strings.TrimPrefix(lines[i], "-- => "))
		}
		w.statement(statement, want)
		statement = ""
	}
	if strings.TrimSpace(statement) != "" {
		w.t.Errorf("no semicolon ends %q", statement)
	}
}

func (w *contractWorld) statement(sql string, want []string) {
	w.t.Helper()
	results, err := w.conn.PgConn().Exec(w.t.Context(), sql).ReadAll()
	if len(want) == 1 && strings.HasPrefix(want[0], "refused: ") {
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(want[0], "refused: ")) {
			w.t.Errorf("%s%v, want %s", sql, err, want[0])
		}
		return
	}
	if err != nil {
		w.t.Fatalf("%s%v", sql, err)
	}
	var got []string
	for _, row := range results[len(results)-1].Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = "NULL"
			if cell != nil {
				cells[i] = string(cell)
			}
		}
		got = append(got, strings.Join(cells, " | "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Errorf("%sgives\n%s\nwant\n%s", sql, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// sh runs the lines of a block: curl and desnode here, all else in a shell.
func (w *contractWorld) sh(text string) {
	w.t.Helper()
	for line := range strings.Lines(text) {
		line, want, _ := strings.Cut(strings.TrimSpace(line), "# => ")
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "curl "):
			w.curl(strings.TrimPrefix(line, "curl "), want)
		case strings.HasPrefix(line, "desnode "):
			w.desnode(strings.TrimPrefix(line, "desnode "), want)
		default:
			line = strings.ReplaceAll(line, "/mnt/docs", w.root)
			if out, err := exec.CommandContext(w.t.Context(), "sh", "-ec", line).CombinedOutput(); err != nil {
				w.t.Fatalf("%s: %v\n%s", line, err, out)
			}
		}
	}
}

func (w *contractWorld) curl(target, want string) {
	w.t.Helper()
	w.start()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, strings.Replace(target, "$NODE", w.addr, 1), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	got := fmt.Sprint(res.StatusCode)
	if res.StatusCode == http.StatusOK {
		got += " " + string(body)
	}
	if got != want {
		w.t.Errorf("curl %s gives %q (%s), want %q", target, got, body, want)
	}
}

// desnode runs a command in this process.
func (w *contractWorld) desnode(line, want string) {
	w.t.Helper()
	args := strings.Fields(line)
	if args[0] == "source" {
		args = append(args, "--config", w.config)
	} else {
		w.start()
		args = append(args, "--addr", w.addr)
	}
	var out bytes.Buffer
	code := Main(args, strings.NewReader(""), &out, &out)
	if (code != exitOK) != (want == "fails") {
		w.t.Fatalf("desnode %s: exit code %d, want it %s\n%s", line, code, want, &out)
	}
}

// start runs a node until the test's end.
func (w *contractWorld) start() {
	w.t.Helper()
	if w.addr != "" {
		return
	}
	cfg, err := config.Load(config.Input{File: w.config})
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := node.New(w.t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			w.t.Error(err)
		}
	})
	select {
	case <-n.Ready():
	case err := <-ended:
		ended <- err
		w.t.Fatal("the node ended before it was ready:", err)
	case <-time.After(30 * time.Second):
		w.t.Fatal("the node is not ready")
	}
	w.addr = "http://" + n.HTTPAddr()
}
