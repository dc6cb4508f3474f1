package api

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
)

// operator is an Operator that sends given events, returns a given error, and
// keeps what it was asked for.
type operator struct {
	imports  []ImportEvent
	archives []ArchiveEvent
	verifies []VerifyEvent
	failed   FailedPage
	retried  int64
	err      error
	block    chan struct{} // when set, work waits for it or its context after the events

	mu    sync.Mutex
	asked []any // guarded by mu
}

func (o *operator) ask(req any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, req)
}

// last returns what was asked last; nil: nothing.
func (o *operator) last() any {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.asked) == 0 {
		return nil
	}
	return o.asked[len(o.asked)-1]
}

func work[E any](ctx context.Context, o *operator, req any, events []E, event func(E) error) error {
	o.ask(req)
	for _, e := range events {
		if err := event(e); err != nil {
			return err
		}
	}
	if o.block != nil {
		select {
		case <-o.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return o.err
}

func (o *operator) Import(ctx context.Context, req ImportRequest, event func(ImportEvent) error) error {
	return work(ctx, o, req, o.imports, event)
}

func (o *operator) Archive(ctx context.Context, req ArchiveRequest, event func(ArchiveEvent) error) error {
	return work(ctx, o, req, o.archives, event)
}

func (o *operator) Verify(ctx context.Context, req VerifyRequest, event func(VerifyEvent) error) error {
	return work(ctx, o, req, o.verifies, event)
}

func (o *operator) Retry(_ context.Context, req RetryRequest) (RetryResponse, error) {
	o.ask(req)
	return RetryResponse{o.retried}, o.err
}

func (o *operator) Failed(_ context.Context, q FailedQuery) (FailedPage, error) {
	o.ask(q)
	return o.failed, o.err
}

// observer is an Observer that tells what it was given.
type observer struct {
	status  Status
	packs   PackList
	leases  LeaseList
	backlog Backlog
	err     error
}

func (o *observer) Status(context.Context) (Status, error)    { return o.status, o.err }
func (o *observer) Packs(context.Context) (PackList, error)   { return o.packs, o.err }
func (o *observer) Leases(context.Context) (LeaseList, error) { return o.leases, o.err }
func (o *observer) Backlog(context.Context) (Backlog, error)  { return o.backlog, o.err }

// fullObserver tells something in every field.
func fullObserver(t testing.TB) *observer {
	t.Helper()
	rng, err := desformat.NewRange(0x3a, 8)
	if err != nil {
		t.Fatal(err)
	}
	var (
		pack  = desformat.PackID{1, 2, 3}
		token = desformat.Token{Generation: 1, Index: 42}
		at    = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		tally = Tally{Rows: 3, Bytes: 4, Oldest: at, Newest: at}
		cp    = raftmeta.Copy{Key: desformat.PackKey(rng, token, pack), Version: "v", VerifiedAt: at, VerifiedBy: testNode, Damage: "record 3"}
	)
	return &observer{
		status: Status{
			Node: testNode, Cluster: desformat.ClusterID{9}, Generation: 1, Version: "1.0", Started: at, Uptime: 1.5, Ready: true,
			Zone: "room 1", Members: MemberCounts{Known: 3, Alive: 2}, Voters: 3, HealthScore: 1,
			Leader: testNode, Applied: 77, ShardBits: 10, Store: "file:///srv/des", Work: []string{"mark", "pack", "keep"},
			Sources: []SourceStatus{{Name: sourceName, States: map[string]Tally{"ACTIVE": tally}}, {Name: "other", Error: "down"}},
			Packs:   PackTotals{1, 2, 3, 4, 5, 6, 7, 8, 9},
			Uploads: []raftmeta.Upload{{Key: cp.Key, Pack: pack, Token: token, BeganAt: at}}, Leases: 1,
			Cache: CacheStatus{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, StoreCalls: map[string]int64{"get": 3},
			Pauses: []Pause{{Work: "pack", Reason: "disk full", Until: at}}, Pace: fullThrottle(at),
			Superseded: 2, Rebuild: &RebuildStatus{true, "adopt", "backups/1-77", true, 1, 2, 3, 4, 5, 6, 7, 8},
		},
		packs: PackList{[]PackInfo{{
			ID: pack, Key: cp.Key, Range: rng, Token: token, MinSeq: token, MaxSeq: token, Size: 10, SHA256: strings.Repeat("ab", 32),
			Records: 1, Dead: 1, PayloadBytes: 5, IndexBytes: 6, Created: at, Acknowledged: true, Copies: []raftmeta.Copy{cp},
		}}},
		leases: LeaseList{[]raftmeta.Lease{
			{Token: token, Job: raftmeta.Job{Kind: raftmeta.JobPack, Range: rng}, Holder: testNode},
			{Token: token, Job: raftmeta.Job{Kind: raftmeta.JobMark, Source: sourceName}, Holder: testNode},
			{Token: token, Job: raftmeta.Job{Kind: raftmeta.JobVerify, Packs: []desformat.PackID{pack}}, Holder: testNode},
		}},
		backlog: Backlog{[]SourceBacklog{
			{Source: sourceName, Rows: 1, Bytes: 2, Oldest: at, Buckets: []BacklogBucket{{Range: rng, Rows: 1, Bytes: 2}}},
			{Source: "other", Error: "down"},
		}},
	}
}

// failingFiles answers every read with one error, or panics with it.
type failingFiles struct {
	err    error
	panics bool
}

func (f failingFiles) fail() error {
	if f.panics {
		panic(f.err)
	}
	return f.err
}

func (f failingFiles) Open(context.Context, string, retriever.Query) (retriever.File, error) {
	return retriever.File{}, f.fail()
}

func (f failingFiles) OpenID(context.Context, string, string, retriever.Query) (retriever.File, error) {
	return retriever.File{}, f.fail()
}

func (f failingFiles) Locate(context.Context, string) (*retriever.Place, error) {
	return nil, f.fail()
}

// logBuffer keeps JSON log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines parses the log; a line that is no JSON object of its own fails the
// test.
func (l *logBuffer) lines(t *testing.T) (lines []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		lines = append(lines, v)
	}
	return lines
}

// leaving reports how the Archive of another Operator ended.
type leaving struct {
	*operator
	left chan<- error
}

func (l *leaving) Archive(ctx context.Context, req ArchiveRequest, event func(ArchiveEvent) error) error {
	err := l.operator.Archive(ctx, req, event)
	l.left <- err
	return err
}

// panicking panics after the first event.
type panicking struct{ *operator }

func (panicking) Archive(_ context.Context, _ ArchiveRequest, event func(ArchiveEvent) error) error {
	if err := event(ArchiveEvent{Marked: 1}); err != nil {
		return err
	}
	panic("in the middle")
}
