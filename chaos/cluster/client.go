package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The parts of the nodes' answers that are looked at.
type (
	status struct {
		Node    string `json:"node"`
		Leader  string `json:"leader"`
		Applied uint64 `json:"applied"`
		Packs   struct {
			Count, Records, Dead, Damaged, Unacknowledged int64
		} `json:"packs"`
		Uploads []struct {
			Token string `json:"token"`
		} `json:"uploads"`
		Sources []struct {
			Error  string `json:"error"`
			States map[string]struct {
				Rows int64 `json:"rows"`
			} `json:"states"`
		} `json:"sources"`
	}
	memberList struct {
		Members []member `json:"members"`
		Removed []string `json:"removed"`
		Leader  string   `json:"leader"`
		Voters  int      `json:"voters"`
		Quorum  bool     `json:"quorum"`
	}
	member struct {
		Node    string `json:"node"`
		Alive   bool   `json:"alive"`
		State   string `json:"state"`
		Voter   bool   `json:"voter"`
		Cluster string `json:"cluster"`
		Gossip  string `json:"gossip"`
		Applied uint64 `json:"applied"`
	}
	ringInfo struct {
		Digest string `json:"digest"`
	}
	packInfo struct {
		ID           string `json:"id"`
		Key          string `json:"key"`
		Range        string `json:"range"`
		Token        string `json:"token"`
		Records      int64  `json:"records"`
		Dead         int64  `json:"dead"`
		Acknowledged bool   `json:"acknowledged"`
	}
	lease struct {
		Token  string `json:"token"`
		Holder string `json:"holder"`
		Job    struct {
			Kind  string `json:"kind"`
			Range string `json:"range"`
		} `json:"job"`
	}
	located struct {
		In     string `json:"in"`
		State  string `json:"state"`
		Pack   string `json:"pack"`
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
		Owner  string `json:"owner"`
	}
	tokenCreated struct {
		Token       string `json:"token"`
		JoinCommand string `json:"join_command"`
	}
	problem struct {
		Code string `json:"code"`
	}
)

// errStatus: a node answered, but not with what was asked for.
var errStatus = errors.New("unexpected answer")

// askWithin bounds one question to a node; a frozen one never answers.
const askWithin = 10 * time.Second

// get asks a node for a JSON document.
func (n *node) get(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askWithin, fmt.Errorf("no answer in %s", askWithin))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", n.name, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s: %s: %w", n.name, path, resp.Status, cut(body), errStatus)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s: %s: %w", n.name, path, err)
	}
	return nil
}

// cut shortens what is shown.
func cut(b []byte) []byte { return bytes.TrimSpace(b[:min(len(b), 1000)]) }

// cli runs a client command against the node and returns its output.
func (n *node) cli(ctx context.Context, args ...string) ([]byte, error) {
	return n.run(ctx, append(args, "--addr", n.base)...)
}

// run runs a command of the program where the node is and returns its output.
func (n *node) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := n.command(args...)
	cmd.SysProcAttr = dieWithParent()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may be gone already
	err := cmd.Wait()
	stop()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return stdout.Bytes(), fmt.Errorf("desnode %s at %s: %w: %s", strings.Join(args, " "), n.name, err, cut(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// cliJSON runs a client command with -o json.
func (n *node) cliJSON(ctx context.Context, out any, args ...string) error {
	b, err := n.cli(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("desnode %s: %w: %s", strings.Join(args, " "), err, cut(b))
	}
	return nil
}

// locate asks a node where a name is.
func (n *node) locate(ctx context.Context, name string) (l located, err error) {
	return l, n.get(ctx, "/cluster/locate/"+escape(name), &l)
}

func (n *node) members(ctx context.Context) (l memberList, err error) {
	return l, n.get(ctx, "/cluster/members", &l)
}

func (n *node) packs(ctx context.Context) ([]packInfo, error) {
	var l struct {
		Packs []packInfo `json:"packs"`
	}
	err := n.get(ctx, "/cluster/packs", &l)
	return l.Packs, err
}

func (n *node) leases(ctx context.Context) ([]lease, error) {
	var l struct {
		Leases []lease `json:"leases"`
	}
	err := n.get(ctx, "/cluster/leases", &l)
	return l.Leases, err
}

// escape writes a name as a path of a URL.
func escape(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
