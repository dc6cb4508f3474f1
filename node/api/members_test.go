package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/raftmeta"
)

// members is a Cluster that tells what it was given and keeps what it was asked
// for.
type members struct {
	list   MemberList
	ring   RingInfo
	tokens TokenList
	events []RotateEvent
	err    error

	mu    sync.Mutex
	asked []any // guarded by mu
}

func (m *members) ask(req any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, req)
	return m.err
}

func (m *members) all() []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

func (m *members) Members(context.Context) (MemberList, error) { return m.list, m.err }

func (m *members) Ring(_ context.Context, q RingQuery) (RingInfo, error) { return m.ring, m.ask(q) }

func (m *members) Tokens(context.Context) (TokenList, error)                   { return m.tokens, m.err }
func (m *members) RevokeToken(_ context.Context, id string) error              { return m.ask(id) }
func (m *members) Leave(_ context.Context, req LeaveRequest) error             { return m.ask(req) }
func (m *members) RemoveMember(_ context.Context, r RemoveMemberRequest) error { return m.ask(r) }

func (m *members) CreateToken(_ context.Context, req TokenRequest) (TokenCreated, error) {
	return TokenCreated{
		ID: "t1", Token: "dnj1secret", JoinCommand: "desnode join 127.0.0.1:7947 --token dnj1secret",
		Expires: modified.Add(time.Duration(req.TTLSeconds) * time.Second), Uses: req.Uses,
	}, m.ask(req)
}

func (m *members) RotateKeys(_ context.Context, req RotateRequest, event func(RotateEvent) error) error {
	for _, e := range m.events {
		if err := event(e); err != nil {
			return err
		}
	}
	return m.ask(req)
}

const otherNode raftmeta.NodeID = "5e1f0f0a-0000-4000-8000-000000000002"

// fullMembers tells something in every field.
func fullMembers() *members {
	heard, agrees, score := 1.5, true, 2
	return &members{
		list: MemberList{
			Members: []MemberInfo{
				{
					Node: testNode, Self: true, Alive: true, State: MemberAlive, Leader: true, Voter: true, Zone: "room 1", Version: "1.0",
					HTTP: "127.0.0.1:8080", Cluster: "127.0.0.1:7947", Gossip: "127.0.0.1:7946", Work: []string{"mark", "pack", "keep"},
					Joined: 3, Applied: 77, Lag: 1, LastHeardSeconds: &heard, Shards: 512, Share: 0.5, RingAgrees: &agrees, HealthScore: &score, Breaker: true,
				},
				{Node: otherNode, State: MemberJoining, Work: []string{}},
			},
			Removed: []raftmeta.NodeID{"gone"}, Leader: testNode, Voters: 1, Quorum: true,
		},
		ring: RingInfo{
			Digest: "0123456789abcdef", Format: 1, Shards: 16, Vnodes: 200, Load: 1.24, Skew: 1.1,
			Members:    []RingMember{{Node: testNode, Zone: "room 1", Shards: 9, Share: 0.5625}, {Node: otherNode, Shards: 7, Share: 0.4375}},
			Mismatched: []raftmeta.NodeID{otherNode},
			Owners:     []ShardOwners{{Shard: 0, Owner: testNode, Fallbacks: []raftmeta.NodeID{otherNode}}},
		},
		tokens: TokenList{[]TokenInfo{{ID: "t1", State: TokenUsedUp, Expires: modified, Uses: 1, UsedBy: []raftmeta.NodeID{otherNode}}}},
		events: []RotateEvent{{Phase: "adding", Applied: 1, Of: 2}, {Phase: "removing", Applied: 2, Of: 2}},
	}
}

// answered sends one request from this machine and holds the answer against the
// contract.
func answered(t *testing.T, c Cluster, method, path, body string, change func(*http.Request)) reply {
	t.Helper()
	cfg := newWorld(t, 0).config(t)
	cfg.Cluster = c
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:4711", "127.0.0.1:8080"
	r.Header.Set("Content-Type", TypeJSON)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	res := w.Result()
	res.Request = r
	answer := reply{Response: res, body: w.Body.Bytes()}
	documented(t, answer)
	return answer
}

func TestWhatIsToldOfTheCluster(t *testing.T) {
	for name, m := range map[string]*members{"full": fullMembers(), "empty": {ring: RingInfo{Digest: strings.Repeat("0", 16), Owners: []ShardOwners{{Owner: testNode}}}}} {
		for path, want := range map[string]any{PathMembers: &m.list, PathRing: &m.ring, PathTokens: &m.tokens} {
			t.Run(name+path, func(t *testing.T) {
				r := answered(t, m, http.MethodGet, path, "", nil)
				r.want(t, http.StatusOK, "")
				if strings.Contains(string(r.body), "null") {
					t.Errorf("told %s", r.body)
				}
				got := reflect.New(reflect.TypeOf(want).Elem())
				if err := json.Unmarshal(r.body, got.Interface()); err != nil {
					t.Fatal(err)
				}
				if name == "full" && !reflect.DeepEqual(got.Interface(), want) {
					t.Errorf("told %s", r.body)
				}
				answered(t, m, http.MethodHead, path, "", nil).want(t, http.StatusOK, "")
				far := func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" }
				answered(t, m, http.MethodGet, path, "", far).want(t, http.StatusOK, "")
			})
		}
	}
}

// TestNoListHasASecret: what everybody may read does not hold what lets a node
// in.
func TestNoListHasASecret(t *testing.T) {
	if r := answered(t, fullMembers(), http.MethodGet, PathTokens, "", nil); strings.Contains(string(r.body), "dnj1") {
		t.Errorf("told %s", r.body)
	}
	r := answered(t, fullMembers(), http.MethodPost, PathTokens, "{}", nil)
	if r.want(t, http.StatusOK, ""); !strings.Contains(string(r.body), "dnj1secret") || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("told %s, to be kept as %q", r.body, r.Header.Get("Cache-Control"))
	}
}

// changes are the requests that change the cluster, with what is asked for.
var changes = []struct {
	path, body string
	want       any
	says       string // stands in the answer
}{
	{PathTokens, `{}`, TokenRequest{TTLSeconds: 86400, Uses: 1}, `"join_command":"desnode join 127.0.0.1:7947 --token `},
	{PathTokens, `{"ttl_seconds":0,"uses":0}`, TokenRequest{TTLSeconds: 86400, Uses: 1}, `"uses":1`},
	{PathTokens, `{"ttl_seconds":2592000,"uses":65535}`, TokenRequest{TTLSeconds: 2592000, Uses: 65535}, `"uses":65535`},
	{PathRevokeToken, `{"id":"t1"}`, "t1", `"tokens":[`},
	{PathRemoveMember, `{"node":"x"}`, RemoveMemberRequest{Node: "x"}, `"removed":[`},
	{PathRemoveMember, `{"node":"x","force":true}`, RemoveMemberRequest{Node: "x", Force: true}, `"removed":[`},
	{PathLeave, `{}`, LeaveRequest{}, `{"node":"` + string(testNode) + `","shared":["/data/store"]}`},
	{PathRotateKeys, `{"what":"gossip"}`, RotateRequest{What: "gossip"}, `{"phase":"removing","applied":2,"of":2,"done":true}`},
}

func TestTheClusterIsChanged(t *testing.T) {
	for _, c := range changes {
		t.Run(c.path+c.body, func(t *testing.T) {
			m := fullMembers()
			r := answered(t, m, http.MethodPost, c.path, c.body, nil)
			r.want(t, http.StatusOK, "")
			if !strings.Contains(string(r.body), c.says) {
				t.Errorf("answered %s, want %s", r.body, c.says)
			}
			if !reflect.DeepEqual(m.all(), []any{c.want}) {
				t.Errorf("asked for %#v, want %#v", m.all(), c.want)
			}
		})
	}
}

func TestTheClusterIsChangedFromThisMachineAlone(t *testing.T) {
	for _, c := range changes {
		for name, change := range map[string]func(*http.Request){
			"another machine": func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" },
			"a page":          func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:8080") },
			"a proxy":         func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		} {
			t.Run(fmt.Sprint(c.path, c.body, " ", name), func(t *testing.T) {
				m := fullMembers()
				answered(t, m, http.MethodPost, c.path, c.body, change).want(t, http.StatusForbidden, CodeForbidden)
				if len(m.all()) > 0 {
					t.Errorf("done all the same: %v", m.all())
				}
			})
		}
	}
}

func TestChangesOfTheClusterThatMakeNoSense(t *testing.T) {
	for _, c := range []struct{ method, path, body string }{
		{http.MethodPost, PathTokens, `{"ttl_seconds":-1}`},
		{http.MethodPost, PathTokens, `{"ttl_seconds":2592001}`},
		{http.MethodPost, PathTokens, `{"ttl_seconds":9223372036854775807}`},
		{http.MethodPost, PathTokens, `{"uses":-1}`},
		{http.MethodPost, PathTokens, `{"uses":65536}`},
		{http.MethodPost, PathTokens, `{"more":1}`},
		{http.MethodPost, PathTokens, ``},
		{http.MethodPost, PathRevokeToken, `{}`},
		{http.MethodPost, PathRemoveMember, `{"force":true}`},
		{http.MethodPost, PathLeave, `{"node":"x"}`},
		{http.MethodPost, PathRotateKeys, `{}`},
		{http.MethodPost, PathRotateKeys, `{"what":"ca"}`},
		{http.MethodGet, PathRing + "?owners=2", ""},
		{http.MethodGet, PathRing + "?owners=%zz", ""},
	} {
		t.Run(c.method+" "+c.path+c.body, func(t *testing.T) {
			m := fullMembers()
			m.events = nil
			answered(t, m, c.method, c.path, c.body, nil).want(t, http.StatusBadRequest, CodeInvalidRequest)
			if len(m.all()) > 0 {
				t.Errorf("asked for %v", m.all())
			}
		})
	}
}

func TestHowMuchOfTheRingIsAskedFor(t *testing.T) {
	for query, want := range map[string]RingQuery{"": {}, "?owners=": {}, "?owners=0": {}, "?owners=1": {Owners: true}} {
		m := fullMembers()
		answered(t, m, http.MethodGet, PathRing+query, "", nil).want(t, http.StatusOK, "")
		if !reflect.DeepEqual(m.all(), []any{want}) {
			t.Errorf("%q: asked for %v", query, m.all())
		}
	}
}

// TestWhyTheClusterIsNotChanged: the reason is told, without the word that the
// code says already.
func TestWhyTheClusterIsNotChanged(t *testing.T) {
	missing := &Problem{Status: http.StatusNotFound, Code: CodeNotFound, Detail: "no such token"}
	for _, c := range []struct {
		name, path, body string
		err              error
		status           int
		code             Code
		detail           string
	}{
		{"the last member", PathLeave, `{}`, fmt.Errorf("%w: the last member", ErrConflict), 409, CodeConflict, `"detail":"the last member"`},
		{"a living one", PathRemoveMember, `{"node":"x"}`, fmt.Errorf("%w: it is alive", ErrConflict), 409, CodeConflict, `"detail":"it is alive"`},
		{"an unknown token", PathRevokeToken, `{"id":"t2"}`, missing, 404, CodeNotFound, `"detail":"no such token"`},
		{"no quorum", PathTokens, `{}`, context.DeadlineExceeded, 503, CodeUnavailable, ""},
		{"anything", PathTokens, `{}`, errors.New("secret"), 500, CodeInternal, ""},
		{"a rotation that could not begin", PathRotateKeys, `{"what":"gossip"}`, context.DeadlineExceeded, 503, CodeUnavailable, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &members{err: c.err}
			r := answered(t, m, http.MethodPost, c.path, c.body, nil)
			r.want(t, c.status, c.code)
			if !strings.Contains(string(r.body), c.detail) || strings.Contains(string(r.body), "secret") {
				t.Errorf("told %s", r.body)
			}
		})
	}
}

func TestMethodsOfTheCluster(t *testing.T) {
	for _, c := range []struct{ method, path, allow string }{
		{http.MethodPut, PathTokens, "GET, HEAD, POST"},
		{http.MethodPost, PathMembers, "GET, HEAD"},
		{http.MethodPost, PathRing, "GET, HEAD"},
		{http.MethodGet, PathLeave, "POST"},
		{http.MethodDelete, PathRemoveMember, "POST"},
		{http.MethodGet, PathRevokeToken, "POST"},
		{http.MethodGet, PathRotateKeys, "POST"},
	} {
		m := fullMembers()
		r := answered(t, m, c.method, c.path, "{}", nil)
		r.want(t, http.StatusMethodNotAllowed, CodeMethodNotAllowed)
		if got := r.Header.Get("Allow"); got != c.allow || len(m.all()) > 0 {
			t.Errorf("%s %s: allowed %q, asked for %v", c.method, c.path, got, m.all())
		}
	}
}

func TestWithoutAClusterNothingIsTold(t *testing.T) {
	s, err := New(newWorld(t, 0).config(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{PathMembers, PathRing, PathTokens} {
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	answered(t, fullMembers(), http.MethodGet, PathMembers+"/more", "", nil).want(t, http.StatusNotFound, CodeNotFound)
}
