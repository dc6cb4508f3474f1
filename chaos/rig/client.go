package rig

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

// What is looked at of a node's answers.
type (
	// Status is of /cluster/status.
	Status struct {
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
	// MemberList is of /cluster/members.
	MemberList struct {
		Members []Member `json:"members"`
		Removed []string `json:"removed"`
		Leader  string   `json:"leader"`
		Voters  int      `json:"voters"`
		Quorum  bool     `json:"quorum"`
	}
	// Member is one of them.
	Member struct {
		Node    string `json:"node"`
		Alive   bool   `json:"alive"`
		State   string `json:"state"`
		Voter   bool   `json:"voter"`
		Cluster string `json:"cluster"`
		Gossip  string `json:"gossip"`
		Applied uint64 `json:"applied"`
	}
	// RingInfo is of /cluster/ring.
	RingInfo struct {
		Digest string `json:"digest"`
	}
	// PackInfo is one pack of /cluster/packs.
	PackInfo struct {
		ID           string `json:"id"`
		Key          string `json:"key"`
		Range        string `json:"range"`
		Token        string `json:"token"`
		Records      int64  `json:"records"`
		Dead         int64  `json:"dead"`
		Acknowledged bool   `json:"acknowledged"`
	}
	// Lease is one of /cluster/leases.
	Lease struct {
		Token  string `json:"token"`
		Holder string `json:"holder"`
		Job    struct {
			Kind  string `json:"kind"`
			Range string `json:"range"`
		} `json:"job"`
	}
	// Located is of /cluster/locate/NAME.
	Located struct {
		In     string `json:"in"`
		State  string `json:"state"`
		Pack   string `json:"pack"`
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
		Owner  string `json:"owner"`
	}
	// tokenCreated is of `desnode token -o json`.
	tokenCreated struct {
		Token       string `json:"token"`
		JoinCommand string `json:"join_command"`
	}
	// problem is of any answer that is one.
	problem struct {
		Code string `json:"code"`
	}
)

// ErrStatus: a node answered, but not with what was asked for.
var ErrStatus = errors.New("unexpected answer")

// askWithin bounds one question to a node; a frozen one never answers.
const askWithin = 10 * time.Second

// Get asks a node for a JSON document.
func (n *Node) Get(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askWithin, fmt.Errorf("no answer in %s", askWithin))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Base+path, nil)
	if err != nil {
		return err
	}
	resp, err := n.Client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", n.Name, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s: %s: %w", n.Name, path, resp.Status, cut(body), ErrStatus)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s: %s: %w", n.Name, path, err)
	}
	return nil
}

// cut shortens what is shown.
func cut(b []byte) []byte { return bytes.TrimSpace(b[:min(len(b), 1000)]) }

// CLI runs a client command against the node and returns its output.
func (n *Node) CLI(ctx context.Context, args ...string) ([]byte, error) {
	return n.Run(ctx, append(args, "--addr", n.Base)...)
}

// Run runs a command of the program where the node is and returns its output.
func (n *Node) Run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := n.command(args...)
	cmd.SysProcAttr = DieWithParent()
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
		return stdout.Bytes(), fmt.Errorf("desnode %s at %s: %w: %s", strings.Join(args, " "), n.Name, err, cut(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// cliJSON runs a client command with -o json.
func (n *Node) cliJSON(ctx context.Context, out any, args ...string) error {
	b, err := n.CLI(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("desnode %s: %w: %s", strings.Join(args, " "), err, cut(b))
	}
	return nil
}

// Invite asks a node for a token, and returns how a node starts that joins by
// it.
func (n *Node) Invite(ctx context.Context) (verb []string, err error) {
	var token tokenCreated
	if err := n.cliJSON(ctx, &token, "token"); err != nil {
		return nil, err
	}
	// The line is for a shell: desnode join ADDR --token T.
	words := strings.Fields(token.JoinCommand)
	if len(words) < 3 || words[1] != "join" {
		return nil, fmt.Errorf("token: join_command is %q", token.JoinCommand)
	}
	return []string{"join", words[2], "--token", token.Token}, nil
}

// Locate asks a node where a name is.
func (n *Node) Locate(ctx context.Context, name string) (l Located, err error) {
	return l, n.Get(ctx, "/cluster/locate/"+escape(name), &l)
}

// Members asks a node for the members it knows.
func (n *Node) Members(ctx context.Context) (l MemberList, err error) {
	return l, n.Get(ctx, "/cluster/members", &l)
}

// Packs asks a node for the manifest.
func (n *Node) Packs(ctx context.Context) ([]PackInfo, error) {
	var l struct {
		Packs []PackInfo `json:"packs"`
	}
	err := n.Get(ctx, "/cluster/packs", &l)
	return l.Packs, err
}

// Leases asks a node for the leases that live.
func (n *Node) Leases(ctx context.Context) ([]Lease, error) {
	var l struct {
		Leases []Lease `json:"leases"`
	}
	err := n.Get(ctx, "/cluster/leases", &l)
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
