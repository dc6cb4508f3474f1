package compose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
)

var (
	postgres *dev.Postgres
	s3       *dev.S3
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devtest.With(m, devtest.Servers{Postgres: &postgres, S3: &s3}))
}

// readyWithin is more than a node takes to be ready, stopWithin what the file
// gives it to end.
const (
	readyWithin = time.Minute
	stopWithin  = 45 * time.Second
)

var client = &http.Client{Timeout: 30 * time.Second}

// world is the services of the compose file as processes of this machine: the
// same commands and environments, with this machine's names and ports in the
// places of the containers'.
type world struct {
	file    file
	dir     string
	desnode string
	cluster string // where node1 listens for the others, once it runs
	docs    string
}

// here puts what is on this machine in the places of what the file names.
func (w *world) here(text string) string {
	return strings.NewReplacer(
		"@postgres:5432/", "@"+postgres.Addr()+"/",
		"http://s3:7070", "http://"+s3.Addr(),
		"/etc/desnode", w.dir,
		"/documents", w.docs,
		"/join/token", filepath.Join(w.dir, "token"),
		"node1:7947", w.cluster,
		"0.0.0.0:7947", "0.0.0.0:0",
		"0.0.0.0:7946", "0.0.0.0:0",
	).Replace(text)
}

// command is the process of a service, for its args or else its command.
func (w *world) command(t *testing.T, service string, args ...string) *exec.Cmd {
	t.Helper()
	s := w.file.Services[service]
	if args == nil {
		args = s.Command
	}
	if args == nil {
		args = []string{"start"} // of the image
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), w.desnode) // ended by stop, after the test
	for _, a := range args {
		cmd.Args = append(cmd.Args, w.here(a))
	}
	cmd.Env = []string{"DESNODE_DATA_DIR=" + filepath.Join(w.dir, service), "DESNODE_HTTP=127.0.0.1:0"} // of the image, on loopback
	for key, value := range s.Environment {
		switch value = w.here(value); key {
		case "DESNODE_ADVERTISE":
			if value != service {
				t.Errorf("%s is known as %q to the others", service, value)
			}
			value = "127.0.0.1"
		case "AWS_ACCESS_KEY_ID":
			value = dev.S3AccessKey
		case "AWS_SECRET_ACCESS_KEY":
			value = dev.S3SecretKey
		}
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	return cmd
}

// succeed runs a command to its end.
func succeed(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

// running is the process of a node.
type running struct {
	service       string
	cmd           *exec.Cmd
	log           bytes.Buffer // read once ended is closed
	ended         chan struct{}
	ready         chan [2]string
	http, cluster string // from its line "node ready"
}

// launch starts a service's node.
func (w *world) launch(t *testing.T, service string) *running {
	t.Helper()
	n := &running{service: service, cmd: w.command(t, service), ended: make(chan struct{}), ready: make(chan [2]string, 1)}
	stderr, err := n.cmd.StderrPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(n.ended)
		for lines := bufio.NewScanner(io.TeeReader(stderr, &n.log)); lines.Scan(); {
			var line struct {
				Msg, HTTP string
				Cluster   string `json:"cluster_addr"`
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "node ready" {
				n.ready <- [2]string{line.HTTP, line.Cluster}
			}
		}
	}()
	t.Cleanup(func() { n.stop(t) })
	return n
}

// await waits until the node is ready.
func (n *running) await(t *testing.T) {
	t.Helper()
	select {
	case at := <-n.ready:
		n.http, n.cluster = at[0], at[1]
	case <-n.ended:
		t.Fatalf("%s ended", n.service) // its log follows
	case <-time.After(readyWithin):
		t.Fatalf("%s is not ready after %s", n.service, readyWithin)
	}
}

func (w *world) start(t *testing.T, service string) *running {
	t.Helper()
	n := w.launch(t, service)
	n.await(t)
	return n
}

// stop ends the node as the engine does. Calling it again does nothing.
func (n *running) stop(t *testing.T) {
	t.Helper()
	if n.cmd == nil {
		return
	}
	cmd := n.cmd
	n.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	select {
	case <-n.ended:
	case <-time.After(stopWithin):
		t.Errorf("%s does not end within the file's stop_grace_period", n.service)
		_ = cmd.Process.Kill()
		<-n.ended
	}
	err := cmd.Wait()
	if err != nil || t.Failed() {
		t.Errorf("%s ended with %v: %s", n.service, err, n.log.String())
	}
}

// read gets a file by name through the node.
func (n *running) read(t *testing.T, name string) (content []byte, pack string) {
	t.Helper()
	resp, err := client.Get("http://" + n.http + "/files/" + name)
	if err != nil {
		t.Fatal(err)
	}
	content, err = io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s through %s: %s, %v: %s", name, n.service, resp.Status, err, content)
	}
	return content, resp.Header.Get("X-Des-Pack")
}

// newWorld builds the program and does what the services postgres, s3 and init
// do.
func newWorld(t *testing.T) *world {
	t.Helper()
	dir := devtest.Folder(t)
	w := &world{dir: dir, desnode: filepath.Join(dir, "desnode"), docs: filepath.Join(dir, "docs"), cluster: "nobody:1"}
	w.file, _ = load(t)
	succeed(t, exec.CommandContext(t.Context(), "go", "build", "-o", w.desnode, "../.."))
	if err := errors.Join(
		os.Mkdir(w.docs, 0o755),
		os.WriteFile(filepath.Join(dir, "desnode.yaml"), []byte(w.here(read(t, "desnode.yaml"))), 0o600),
		s3.MakeBucket("desnode"),
	); err != nil {
		t.Fatal(err)
	}
	const database = "desnode"
	if _, err := postgres.PSQL(t.Context(), "postgres", "CREATE DATABASE "+database); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"marker", "packer", "deleter", "reader"} {
		if _, err := postgres.PSQL(t.Context(), database, "CREATE ROLE desnode_"+role+" LOGIN"); err != nil {
			t.Fatal(err)
		}
	}
	succeed(t, w.command(t, "init"))
	return w
}

// token does what the service token does.
func (w *world) token(t *testing.T, url string) {
	t.Helper()
	args := slices.Clone(w.file.Services["token"].Command)
	if len(args) != 4 || args[0] != "sh" || args[1] != "/token.sh" || args[2] != "http://127.0.0.1:8080" {
		t.Fatalf("the service token runs %q", args)
	}
	succeed(t, exec.CommandContext(t.Context(), "sh", "token.sh", url, w.here(args[3])))
}

// TestTheClusterOnThisMachine runs the services of the profile cluster: node2
// and node3 join by the token, what is archived is read through each node, and
// all of it starts again when the token is of no use any more.
func TestTheClusterOnThisMachine(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: Postgres, S3 and three nodes")
		return
	}
	t.Cleanup(client.CloseIdleConnections)
	w := newWorld(t)
	node1 := w.start(t, "node1")
	w.cluster = node1.cluster
	w.token(t, "http://"+node1.http)
	nodes := []*running{node1, w.start(t, "node2"), w.start(t, "node3")}

	const files = 40
	content := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "Report %d.\n", i), i*i) }
	written := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	var rows strings.Builder
	for i := range files {
		path := filepath.Join(w.docs, fmt.Sprintf("report%d", i))
		if err := errors.Join(os.WriteFile(path, content(i), 0o600), os.Chtimes(path, written, written)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&rows, "INSERT INTO desnode.files (name, path, size, modified_at) VALUES ('reports/%d', '%s', %d, '2024-01-01T00:00:00Z');\n", i, path, len(content(i)))
	}
	if _, err := postgres.PSQL(t.Context(), "desnode", rows.String()); err != nil {
		t.Fatal(err)
	}
	succeed(t, w.command(t, "node2", "archive", "--addr", "http://"+nodes[1].http))
	if err := os.RemoveAll(w.docs); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T) {
		t.Helper()
		for _, n := range nodes {
			for i := range files {
				if got, pack := n.read(t, fmt.Sprintf("reports/%d", i)); pack == "" || !bytes.Equal(got, content(i)) {
					t.Errorf("reports/%d through %s: %d bytes, from pack %q", i, n.service, len(got), pack)
				}
			}
		}
	}
	check(t)

	// The token is used up; nobody is there who could give out another one.
	for _, n := range nodes {
		n.stop(t)
	}
	w.token(t, "http://127.0.0.1:1")
	for i, n := range nodes { // none is ready before another one is there
		nodes[i] = w.launch(t, n.service)
	}
	for _, n := range nodes {
		n.await(t)
	}
	check(t)
}
