package cli

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// The ids of the tests' nodes. The second and third begin alike.
const (
	node1 raftmeta.NodeID = "5e1f0f0a-0000-4000-8000-000000000001"
	node2 raftmeta.NodeID = "ab120000-0000-4000-8000-000000000002"
	node3 raftmeta.NodeID = "ab129999-0000-4000-8000-000000000003"
	gone  raftmeta.NodeID = "dead0000-0000-4000-8000-000000000004"
)

// fakeNode is a node's HTTP face as far as commands about the cluster go.
type fakeNode struct {
	list api.MemberList

	mu    sync.Mutex
	asked []string // method, path and body of each change; guarded by mu
}

func threeMembers() api.MemberList {
	heard, slow, agrees := 1.25, 3, false
	return api.MemberList{
		Members: []api.MemberInfo{
			{
				Node: node1, Self: true, Alive: true, State: api.MemberAlive, Leader: true, Voter: true, Zone: "a", Version: "1.0", HTTP: "10.0.0.1:8080",
				Work: []string{"mark", "pack"}, Applied: 1234, Shards: 512, HealthScore: &slow,
			},
			{Node: node2, Alive: true, State: api.MemberAlive, Voter: true, LastHeardSeconds: &heard, RingAgrees: &agrees, Lag: 7, Breaker: true},
			{Node: node3, State: api.MemberUnreachable, Zone: "b\x1b[31m"},
		},
		Removed: []raftmeta.NodeID{gone}, Leader: node1, Voters: 2, Quorum: true,
	}
}

// ServeHTTP tells the members and notes what changes them.
func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodPost {
		n.mu.Lock()
		n.asked = append(n.asked, r.URL.Path+" "+string(body))
		n.mu.Unlock()
	}
	_ = json.NewEncoder(w).Encode(n.list)
}

func (n *fakeNode) changes() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.asked, "\n")
}

// serveAt starts a server and names it to every command.
func serveAt(t *testing.T, h http.Handler) (run func(args ...string) (code int, stdout, stderr string)) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Setenv("DESNODE_ADDR", s.URL)
	return func(args ...string) (int, string, string) {
		var stdout, stderr strings.Builder
		code := Main(args, strings.NewReader(""), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
}

func TestMembersAsATable(t *testing.T) {
	run := serveAt(t, &fakeNode{list: threeMembers()})
	code, stdout, stderr := run("members")
	want := `NODE       STATE                            ROLE      ZONE        VERSION  HTTP           LAG  SHARDS  HEARD     WORK
5e1f0f0a*  alive, slow 3                    leader    a           1.0      10.0.0.1:8080  0    512     -         mark,pack
ab120000   alive, other ring, breaker open  voter     -           -        -              7    0       1.3s      -
ab129999   unreachable                      nonvoter  "b\x1b[31m"  -        -              0    0       -         -
3 members, 2 alive; 2 voters, leader 5e1f0f0a: there is a quorum
removed for ever: dead0000
`
	if fields(stdout) != fields(want) || code != exitOK || stderr != "" {
		t.Errorf("got %d, %q,\n%s", code, stderr, stdout)
	}
	code, stdout, _ = run("members", "-o", "json")
	if code != exitOK || !strings.Contains(stdout, `"node": "`+string(node1)+`"`) {
		t.Errorf("got %d, %s", code, stdout)
	}
}

func TestMembersFitATerminal(t *testing.T) {
	list := threeMembers()
	for i := range list.Members {
		m := &list.Members[i]
		heard := 1.3
		*m = api.MemberInfo{
			Node: m.Node, Self: i == 0, Alive: true, State: api.MemberAlive, Version: "devel", HTTP: "10.20.30.40:8080",
			Shards: 356, LastHeardSeconds: &heard, Work: []string{"mark", "pack", "keep"},
		}
	}
	_, stdout, _ := serveAt(t, &fakeNode{list: list})("members")
	for line := range strings.Lines(stdout) {
		if len(line) > 81 { // with its end
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if !strings.Contains(stdout, "all") || strings.Contains(stdout, "ZONE") {
		t.Errorf("got %s", stdout)
	}
}

// fields is text without the widths of its columns.
func fields(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestNoQuorumIsLoud(t *testing.T) {
	list := threeMembers()
	list.Quorum, list.Leader = false, ""
	if _, stdout, _ := serveAt(t, &fakeNode{list: list})("members"); !strings.Contains(stdout, "leader -: NO QUORUM") {
		t.Errorf("got %s", stdout)
	}
}

func TestRemovingAMember(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		asked  string
		stdout string // stands there
		stderr string
	}{
		{"a dead one", []string{"ab1299"}, exitOK, `/cluster/members/remove {"node":"` + string(node3) + `"}`, "removed for ever: ab129999; 3 members left", ""},
		{"in capitals", []string{"AB1299"}, exitOK, `/cluster/members/remove {"node":"` + string(node3) + `"}`, "ab129999", ""},
		{"by its whole id", []string{string(node3)}, exitOK, `/cluster/members/remove {"node":"` + string(node3) + `"}`, "ab129999", ""},
		{"a living one", []string{"ab120"}, exitFailed, "", "", "ab120000 is alive; let it leave"},
		{"a living one, by force", []string{"ab120", "--force"}, exitOK, `/cluster/members/remove {"node":"` + string(node2) + `","force":true}`, "ab120000", ""},
		{"the node that answers", []string{"5e1f"}, exitFailed, "", "", "'desnode leave' lets it leave"},
		{"the node that answers, by force", []string{"5e1f", "--force"}, exitFailed, "", "", "'desnode leave' lets it leave"},
		{"one that was removed", []string{"dead"}, exitOK, "", "dead0000 had been removed before; 3 members left", ""},
		{"two at once", []string{"ab12"}, exitUsage, "", "", "begins more than one id: " + string(node2) + ", " + string(node3)},
		{"none", []string{"0000"}, exitNotFound, "", "", "no member's id begins with 0000"},
		{"too little", []string{"dea"}, exitUsage, "", "", "give 4 characters or more"},
		{"nobody", nil, exitUsage, "", "", "accepts 1 arg"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := &fakeNode{list: threeMembers()}
			code, stdout, stderr := serveAt(t, n)(append([]string{"members", "remove"}, tc.args...)...)
			if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("got %d, %q, %q", code, stdout, stderr)
			}
			if got := n.changes(); got != tc.asked {
				t.Errorf("asked %q, want %q", got, tc.asked)
			}
		})
	}
}

func TestTheLastMemberDoesNotLeave(t *testing.T) {
	n := &fakeNode{list: api.MemberList{Members: threeMembers().Members[:1]}}
	code, stdout, stderr := serveAt(t, n)("leave")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "the only member of its cluster") || n.changes() != "" {
		t.Errorf("got %d, %q, %q, asked %q", code, stdout, stderr, n.changes())
	}
}

// TestLeaveWaitsForTheEndOfTheNode: the command ends when the node answers no
// more, not before.
func TestLeaveWaitsForTheEndOfTheNode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	polled, ended := 0, make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case api.PathMembers:
			_ = json.NewEncoder(w).Encode(threeMembers())
		case api.PathLeave:
			_ = json.NewEncoder(w).Encode(api.Left{Node: node1, Shared: []string{"/data/store"}})
		case livePath:
			if polled++; polled == 2 {
				go func() {
					defer close(ended)
					_ = server.Close()
				}()
			}
		}
	})
	go func() { _ = server.Serve(l) }()
	t.Setenv("DESNODE_ADDR", "http://"+l.Addr().String())
	const wantLeft = "5e1f0f0a has left the cluster, and its process has ended\ndo NOT empty its data dir, the other nodes use what is there: /data/store\n"
	var stdout, stderr strings.Builder
	code := Main([]string{"leave"}, strings.NewReader(""), &stdout, &stderr)
	<-ended
	if code != exitOK || polled < 2 || stdout.String() != wantLeft {
		t.Errorf("got %d after %d questions, %q, %q", code, polled, stdout.String(), stderr.String())
	}
}

func TestTheRingAsATable(t *testing.T) {
	ring := api.RingInfo{
		Digest: "0123456789abcdef", Format: 1, Shards: 1024, Vnodes: 200, Load: 1.24, Skew: 1.015,
		Members:    []api.RingMember{{Node: node1, Zone: "a", Shards: 520, Share: 0.508}, {Node: node2, Shards: 504, Share: 0.492}},
		Mismatched: []raftmeta.NodeID{node2},
	}
	var query string
	run := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		answer := ring
		if query != "" {
			answer.Owners = []api.ShardOwners{{Shard: 0, Owner: node1, Fallbacks: []raftmeta.NodeID{node2}}, {Shard: 1, Owner: node2}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	const table = `NODE ZONE SHARDS SHARE
5e1f0f0a a 520 50.8 %
ab120000 - 504 49.2 %
1,024 shards, the largest share is 1.01 of the average, at most 1.24; digest 0123456789abcdef (format 1, 200 places a member)
another ring is seen by: ab120000`
	if code, stdout, _ := run("ring"); code != exitOK || fields(stdout) != table || query != "" {
		t.Errorf("got %d, %q,\n%s", code, query, stdout)
	}
	if code, stdout, _ := run("ring", "--owners"); code != exitOK || fields(stdout) != table+"\nSHARD OWNER THEN\n0 5e1f0f0a ab120000\n1 ab120000 -" || query != "owners=1" {
		t.Errorf("got %d, %q,\n%s", code, query, stdout)
	}
}

func TestTokens(t *testing.T) {
	expires := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const line = "desnode join 10.0.0.1:7947 --token dnj1abc"
	var asked string
	run := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = r.Method + " " + r.URL.Path + " " + string(body)
		var answer any = api.TokenList{Tokens: []api.TokenInfo{
			{ID: "t1", State: api.TokenValid, Expires: expires, Uses: 2, UsedBy: []raftmeta.NodeID{node1}},
			{ID: "t2", State: api.TokenUsedUp, Expires: expires, Uses: 1, UsedBy: []raftmeta.NodeID{node2}},
		}}
		if r.Method == http.MethodPost && r.URL.Path == api.PathTokens {
			answer = api.TokenCreated{ID: "t1", Token: "dnj1abc", JoinCommand: line, Expires: expires, Uses: 2}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		asked  string
		stdout string // without the widths of columns
		stderr string // stands there
	}{
		{"one line to paste", []string{"token"}, exitOK, `POST /cluster/tokens {"ttl_seconds":86400,"uses":1}`, line, "good for 2 nodes until 2026-01-02T03:04:05Z"},
		{"narrower", []string{"token", "--ttl", "10m", "--uses", "3"}, exitOK, `POST /cluster/tokens {"ttl_seconds":600,"uses":3}`, line, "'desnode token revoke t1'"},
		{
			"for programs",
			[]string{"token", "-o", "json"},
			exitOK, `POST /cluster/tokens {"ttl_seconds":86400,"uses":1}`,
			"{\n\"id\": \"t1\",\n\"token\": \"dnj1abc\",\n\"join_command\": \"" + line + "\",\n\"expires\": \"2026-01-02T03:04:05Z\",\n\"uses\": 2\n}", "",
		},
		{
			"listed",
			[]string{"token", "list"},
			exitOK, "GET /cluster/tokens ",
			"ID STATE EXPIRES USED BY\nt1 valid 2026-01-02T03:04:05Z 1 of 2 5e1f0f0a\nt2 used-up 2026-01-02T03:04:05Z 1 of 1 ab120000", "",
		},
		{"revoked", []string{"token", "revoke", "t1"}, exitOK, `POST /cluster/tokens/revoke {"id":"t1"}`, "t1 is worthless; nodes that joined by it stay", ""},
		{"for no time", []string{"token", "--ttl", "0s"}, exitUsage, "", "", "--ttl: 0s is not between 1s and 720h0m0s"},
		{"for too long", []string{"token", "--ttl", "721h"}, exitUsage, "", "", "--ttl: 721h0m0s is not between"},
		{"for nobody", []string{"token", "--uses", "0"}, exitUsage, "", "", "--uses: "},
		{"an unknown word", []string{"token", "lst"}, exitUsage, "", "", `unknown command "lst"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked = ""
			code, stdout, stderr := run(tc.args...)
			if code != tc.code || fields(stdout) != tc.stdout || !strings.Contains(stderr, tc.stderr) || asked != tc.asked {
				t.Errorf("got %d, %q, %q, asked %q", code, stdout, stderr, asked)
			}
			if a := strings.Contains(stderr, "dnj1"); a {
				t.Errorf("the secret is told on stderr: %q", stderr)
			}
		})
	}
}

func TestRotatingKeysShowsItsPhases(t *testing.T) {
	run := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.URL.Path != api.PathRotateKeys || string(body) != `{"what":"gossip"}` {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, `{"phase":"adding","applied":1,"of":3}
{"phase":"adding","applied":1,"of":3}
{"phase":"adding","applied":3,"of":3}
{"phase":"using","applied":3,"of":3}
{"phase":"removing","applied":3,"of":3}
{"phase":"removing","applied":3,"of":3,"done":true}`)
	}))
	code, stdout, stderr := run("keys", "rotate")
	const progress = "adding: 1 of 3 living members\nadding: 3 of 3 living members\nusing: 3 of 3 living members\nremoving: 3 of 3 living members\n"
	if code != exitOK || stdout != "gossip has a new key, the old one is forgotten\n" || stderr != progress {
		t.Errorf("got %d, %q, %q", code, stdout, stderr)
	}
	if code, stdout, _ := run("keys", "rotate", "-o", "json"); code != exitOK || fields(stdout) != fields(`{
"what": "gossip",
"phases": [
{
"phase": "adding",
"applied": 3,
"of": 3
},
{
"phase": "using",
"applied": 3,
"of": 3
},
{
"phase": "removing",
"applied": 3,
"of": 3
}
]
}`) {
		t.Errorf("got %d, %s", code, stdout)
	}
	if code, _, stderr := run("keys"); code != exitUsage || !strings.Contains(stderr, "say what to do: rotate") {
		t.Errorf("got %d, %q", code, stderr)
	}
}

func TestStatusAndPlaceTellOfTheCluster(t *testing.T) {
	run := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any = api.Status{
			Node: node1, Zone: "room 1", Members: api.MemberCounts{Known: 3, Alive: 2}, Voters: 3, HealthScore: 2, Leader: node2,
		}
		if strings.HasPrefix(r.URL.Path, api.PathLocate) {
			answer = api.Located{Name: "a", Shard: 7, Owner: node1, Fallbacks: []raftmeta.NodeID{node2, node3}, In: api.InSource}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	_, stdout, _ := run("status")
	for _, want := range []string{
		"members 3 known, 2 alive, 3 voters; this node is too slow to judge the others well (health score 2, 0 is healthy)",
		"zone room 1", "work none: it serves reads", "leader " + string(node2),
	} {
		if !strings.Contains(fields(stdout), want) {
			t.Errorf("status does not say %q:\n%s", want, stdout)
		}
	}
	if _, stdout, _ := run("locate", "a"); !strings.Contains(fields(stdout), "owner 5e1f0f0a, then ab120000, ab129999") {
		t.Errorf("got %s", stdout)
	}
}

func TestWhichAddressIsTaken(t *testing.T) {
	cfg := config.Default("/d")
	for _, tc := range []struct {
		name string
		err  error
		say  string
	}{
		{"http", &net.OpError{Op: "listen", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}, Err: syscall.EADDRINUSE}, "127.0.0.1:8080 is in use by another process; stop that one, or choose another address with --http"},
		{"cluster", &net.OpError{Op: "listen", Addr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7947}, Err: syscall.EADDRINUSE}, "127.0.0.1:7947 is in use by another process; stop that one, or choose another address with --cluster"},
		{"gossip", &net.OpError{Op: "listen", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7946}, Err: syscall.EADDRINUSE}, "127.0.0.1:7946 is in use by another process; stop that one, or choose another address with --gossip"},
		{"not told", syscall.EADDRINUSE, "127.0.0.1:8080 is in use by another process; stop that one, or choose another address with --http"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := explain(tc.err, cfg).Error(); !strings.HasPrefix(got, tc.say) {
				t.Errorf("got %q", got)
			}
		})
	}
}
