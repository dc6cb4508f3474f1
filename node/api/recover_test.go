package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// recoverer is a Recoverer and Backups that keeps what it was asked for.
type recoverer struct {
	unfinished Unfinished
	recovers   []RecoverEvent
	compares   []CompareEvent
	backups    BackupList
	err        error

	mu    sync.Mutex
	asked []any // guarded by mu
}

func (r *recoverer) ask(req any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, req)
}

func (r *recoverer) all() []any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *recoverer) Unfinished(context.Context) (Unfinished, error) { return r.unfinished, r.err }

func (r *recoverer) Recover(_ context.Context, req RecoverRequest, event func(RecoverEvent) error) error {
	r.ask(req)
	return sent(r.recovers, event, r.err)
}

func (r *recoverer) Compare(_ context.Context, req CompareRequest, event func(CompareEvent) error) error {
	r.ask(req)
	return sent(r.compares, event, r.err)
}

func (r *recoverer) Backup(context.Context) (BackupInfo, error) {
	r.ask(BackupRequest{})
	return r.backups.Backups[0], r.err
}

func (r *recoverer) Backups(context.Context) (BackupList, error) { return r.backups, r.err }

func sent[E any](events []E, event func(E) error, err error) error {
	for _, e := range events {
		if err := event(e); err != nil {
			return err
		}
	}
	return err
}

// fullRecoverer tells something in every field.
func fullRecoverer() *recoverer {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	finding := Finding{
		Kind: "upload-open", Severity: SeverityRepairable, Subject: "packs/0-0/1-7-ab.des", Since: at,
		Why: "its lease is gone", Cure: "desnode recover --fix --yes", Fixable: true, Destructive: true,
	}
	counts := CompareCounts{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	return &recoverer{
		unfinished: Unfinished{Node: testNode, Generation: 2, At: at, Findings: []Finding{finding}},
		recovers: []RecoverEvent{
			{Finding: &finding, Outcome: OutcomeNeedsYes, Text: "say --yes", Found: 1, Left: 1},
			{Finding: &finding, Outcome: OutcomeFixed, Found: 2, Fixed: 1, Left: 1},
		},
		compares: []CompareEvent{
			{Phase: CompareStore, CompareCounts: counts},
			{Difference: &Difference{Kind: "pack-missing", Severity: SeverityAtRisk, Subject: "pack 01", Found: "nothing", Cure: "restore it"}, CompareCounts: counts},
		},
		backups: BackupList{
			Backups:      []BackupInfo{{Key: "backups/2-00000000000000000077", Generation: 2, Index: 77, At: at, Packs: 3, Bytes: 4}},
			EverySeconds: 3600, Problem: "the store does not answer",
		},
	}
}

// recovered sends one request from this machine and holds the answer against the
// contract.
func recovered(t *testing.T, rec *recoverer, method, path, body string, change func(*http.Request)) reply {
	t.Helper()
	cfg := newWorld(t, 0).config(t)
	cfg.Recoverer, cfg.Backups = rec, rec
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

func TestWhatIsToldOfRecovery(t *testing.T) {
	for name, rec := range map[string]*recoverer{"full": fullRecoverer(), "empty": {unfinished: Unfinished{Node: testNode}}} {
		for path, want := range map[string]any{PathUnfinished: &rec.unfinished, PathBackups: &rec.backups} {
			t.Run(name+path, func(t *testing.T) {
				far := func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" }
				r := recovered(t, rec, http.MethodGet, path, "", far)
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
				recovered(t, rec, http.MethodHead, path, "", nil).want(t, http.StatusOK, "")
			})
		}
	}
}

// recoveries are the requests that do something, with what is asked for and the
// end of the answer.
var recoveries = []struct {
	path, body string
	want       any
	ends       string
}{
	{PathRecover, `{}`, RecoverRequest{}, `{"found":2,"fixed":1,"left":1,"done":true}`},
	{PathRecover, `{"fix":true}`, RecoverRequest{Fix: true}, `{"found":2,"fixed":1,"left":1,"done":true}`},
	{PathRecover, `{"fix":true,"yes":true}`, RecoverRequest{Fix: true, Yes: true}, `{"found":2,"fixed":1,"left":1,"done":true}`},
	{PathCompare, `{}`, CompareRequest{}, `"repairable":10,"at_risk":11,"done":true}`},
	{PathCompare, `{"only":["rows","store"]}`, CompareRequest{Only: []string{"rows", "store"}}, `"at_risk":11,"done":true}`},
	{PathBackup, `{}`, BackupRequest{}, `"packs":3,"bytes":4}`},
}

func TestRecoveryIsAskedFor(t *testing.T) {
	for _, c := range recoveries {
		t.Run(c.path+c.body, func(t *testing.T) {
			rec := fullRecoverer()
			r := recovered(t, rec, http.MethodPost, c.path, c.body, nil)
			r.want(t, http.StatusOK, "")
			if got := strings.TrimSuffix(string(r.body), "\n"); !strings.HasSuffix(got, c.ends) {
				t.Errorf("answered %s, want it to end with %s", got, c.ends)
			}
			if !reflect.DeepEqual(rec.all(), []any{c.want}) {
				t.Errorf("asked for %#v, want %#v", rec.all(), c.want)
			}
		})
	}
}

func TestRecoveryIsAskedForFromThisMachineAlone(t *testing.T) {
	for _, c := range recoveries {
		for name, change := range map[string]func(*http.Request){
			"another machine": func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" },
			"a page":          func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:8080") },
			"a proxy":         func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		} {
			t.Run(fmt.Sprint(c.path, c.body, " ", name), func(t *testing.T) {
				rec := fullRecoverer()
				recovered(t, rec, http.MethodPost, c.path, c.body, change).want(t, http.StatusForbidden, CodeForbidden)
				if len(rec.all()) != 0 {
					t.Errorf("asked for %v", rec.all())
				}
			})
		}
	}
}

func TestRecoveryRefuses(t *testing.T) {
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     Code
	}{
		{"yes without fix", http.MethodPost, PathRecover, `{"yes":true}`, http.StatusBadRequest, CodeInvalidRequest},
		{"an unknown leg", http.MethodPost, PathCompare, `{"only":["payload"]}`, http.StatusBadRequest, CodeInvalidRequest},
		{"an unknown field", http.MethodPost, PathBackup, `{"key":"x"}`, http.StatusBadRequest, CodeInvalidRequest},
		{"recover by GET", http.MethodGet, PathRecover, "", http.StatusMethodNotAllowed, CodeMethodNotAllowed},
		{"unfinished by POST", http.MethodPost, PathUnfinished, "{}", http.StatusMethodNotAllowed, CodeMethodNotAllowed},
		{"backup by GET", http.MethodGet, PathBackup, "", http.StatusMethodNotAllowed, CodeMethodNotAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := fullRecoverer()
			recovered(t, rec, c.method, c.path, c.body, nil).want(t, c.status, c.code)
			if len(rec.all()) != 0 {
				t.Errorf("asked for %v", rec.all())
			}
		})
	}
}

// TestRecoveryThatEndsEarlySaysSo: what was told before stands, and the end says
// why there is no more.
func TestRecoveryThatEndsEarlySaysSo(t *testing.T) {
	for _, path := range []string{PathRecover, PathCompare} {
		t.Run(path, func(t *testing.T) {
			rec := fullRecoverer()
			rec.err = errors.New("the store went away")
			r := recovered(t, rec, http.MethodPost, path, "{}", nil)
			r.want(t, http.StatusOK, "")
			if lines := strings.Count(string(r.body), "\n"); lines != 3 || !strings.Contains(string(r.body), `"done":true,"error":{`) {
				t.Errorf("answered %s", r.body)
			}
		})
	}
	rec := fullRecoverer()
	rec.err = fmt.Errorf("%w: another node makes one", ErrConflict)
	recovered(t, rec, http.MethodPost, PathBackup, "{}", nil).want(t, http.StatusConflict, CodeConflict)
}
