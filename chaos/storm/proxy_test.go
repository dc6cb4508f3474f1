package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/chaos/rig"
	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
)

// proxied starts an HTTP server that counts what it was asked for, and a proxy
// before it.
func proxied(t *testing.T) (p *proxy, url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte("done"))
	}))
	t.Cleanup(server.Close)
	p = newProxy(server.Listener.Addr().String(), 1, func() listener { return newHTTPEar() })
	addr, err := open(t.Context(), p, nil, "127.0.0.1:0", "n1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, "http://" + addr, asked
}

// request sends one request over a connection of its own.
func request(t *testing.T, method, url string, within time.Duration) error {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && string(b) != "done" {
		err = errors.New("other bytes")
	}
	return err
}

func TestProxyModes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		mode    mode
		method  string
		works   bool
		reaches bool // the server is asked
	}{
		{"passing", mode{}, http.MethodPut, true, true},
		{"refusing", mode{way: refusing}, http.MethodPut, false, false},
		{"hanging", mode{way: hanging}, http.MethodPut, false, false},
		{"slow", mode{way: slowing, latency: 50 * time.Millisecond, rate: 1 << 20}, http.MethodPut, true, true},
		{"too slow", mode{way: slowing, latency: time.Hour}, http.MethodPut, false, true},
		{"breaking", mode{way: breaking, odds: 1}, http.MethodGet, false, true},
		{"breaking seldom", mode{way: breaking, odds: 0}, http.MethodGet, true, true},
		{"losing a change", mode{way: losing, odds: 1}, http.MethodPut, false, true},
		{"losing no read", mode{way: losing, odds: 1}, http.MethodGet, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, url, asked := proxied(t)
			p.set(tc.mode)
			within := 10 * time.Second
			if tc.mode.way == hanging || tc.mode.latency == time.Hour {
				within = 200 * time.Millisecond
			}
			before := p.lostAnswers()
			err := request(t, tc.method, url, within)
			if (err == nil) != tc.works {
				t.Errorf("answer: %v, works %t", err, tc.works)
			}
			if (asked.Load() > 0) != tc.reaches {
				t.Errorf("the server was asked %d times, reaches %t", asked.Load(), tc.reaches)
			}
			if lost := p.lostAnswers() > before; lost != (tc.mode.way == losing && !tc.works) {
				t.Errorf("lost answers: %t", lost)
			}
			p.set(mode{})
			if err := request(t, tc.method, url, 10*time.Second); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

func TestProxySeversOneAlone(t *testing.T) {
	p, url, _ := proxied(t)
	other, err := open(t.Context(), p, nil, "127.0.0.1:0", "n2")
	if err != nil {
		t.Fatal(err)
	}
	p.sever("n1", true)
	if err := request(t, http.MethodGet, url, 200*time.Millisecond); err == nil {
		t.Error("who is cut off is answered")
	}
	if err := request(t, http.MethodGet, "http://"+other, 10*time.Second); err != nil {
		t.Errorf("another is not: %v", err)
	}
	p.sever("n1", false)
	if err := request(t, http.MethodGet, url, 10*time.Second); err != nil {
		t.Errorf("let in again: %v", err)
	}
}

func TestProxyWithoutServer(t *testing.T) {
	p := newProxy("127.0.0.1:1", 1, func() listener { return newHTTPEar() })
	addr, err := open(t.Context(), p, nil, "127.0.0.1:0", "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := request(t, http.MethodGet, "http://"+addr, 10*time.Second); err == nil {
		t.Error("somebody answers")
	}
}

// message is one of Postgres's.
func message(kind byte, body string) []byte {
	b := []byte{kind, 0, 0, 0, byte(4 + len(body))}
	return append(b, body...)
}

func TestPostgresEar(t *testing.T) {
	commit, update, chosen := message('C', "COMMIT\x00"), message('C', "UPDATE 1000\x00"), message('C', "SELECT 1\x00")
	idle, within := message('Z', "I"), message('Z', "T")
	row := message('D', strings.Repeat("COMMIT", 30))
	for _, tc := range []struct {
		name string
		says [][]byte
		want bool // the last one tells of something that stays
	}{
		{"log in", [][]byte{message('R', "\x00\x00\x00\x00"), message('S', "a\x00b\x00"), idle}, false},
		{"a choice", [][]byte{row, chosen, idle}, false},
		{"a change by itself", [][]byte{update, idle}, true},
		{"a change within", [][]byte{update, within}, false},
		{"its commit", [][]byte{update, within, commit, idle}, true},
		{"a roll-back", [][]byte{chosen, message('C', "ROLLBACK\x00"), idle}, false},
		{"a choice after a change", [][]byte{update, idle, chosen, idle}, false},
		{"a body of nothing", [][]byte{message('1', ""), message('2', ""), update, idle}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			last := len(tc.says) - 1
			e := &postgresEar{}
			e.answered(bytes.Join(tc.says[:last], nil))
			if got := e.answered(tc.says[last]); got != tc.want {
				t.Errorf("whole: %t", got)
			}
			bytewise, got := &postgresEar{}, false
			for _, b := range bytes.Join(tc.says, nil) {
				got = bytewise.answered([]byte{b})
			}
			if got != tc.want {
				t.Errorf("byte by byte: %t", got)
			}
		})
	}
}

func TestHTTPEar(t *testing.T) {
	e := newHTTPEar()
	for i, step := range []struct {
		asked, answered string
		want            bool
	}{
		{"PUT /a HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", true},
		{"GET /a HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", false},
		{"PUT /b HTTP/1.1\r\nExpect: 100-continue\r\n", "HTTP/1.1 100 Continue\r\n", false},
		{"GET in the body", "HTTP/1.1 200 OK\r\n", true},
		{"DELETE /b HTTP/1.1\r\n", "HTTP/1.1 204 No Content\r\n", true},
		{"PUT /c HTTP/1.1\r\n", "HTTP/1.1 412 Precondition Failed\r\n", false},
		{"POST /c?uploads HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", true},
	} {
		e.asked([]byte(step.asked))
		if got := e.answered([]byte(step.answered)); got != step.want {
			t.Errorf("step %d: %q, %q: %t", i, step.asked, step.answered, got)
		}
	}
}

// TestCommitsWhoseAnswerIsLost: what a real Postgres was told to commit is
// there, and who told it never hears so.
func TestCommitsWhoseAnswerIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	pg, err := dev.StartPostgres(t.Context(), devtest.Folder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	}()
	p := newProxy(pg.Addr(), 1, func() listener { return &postgresEar{} })
	defer p.close()
	addr, err := open(t.Context(), p, nil, "127.0.0.1:0", "n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pg.PSQL(t.Context(), "postgres", "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(context.Context, *pgx.Conn) error{
		"1, by itself": func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1)", 1)
			return err
		},
		"2, in a transaction": func(ctx context.Context, conn *pgx.Conn) error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", 2)
				if err != nil {
					t.Errorf("before its commit: %v", err)
				}
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.set(mode{})
			conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+addr+"/postgres?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // it is broken
			p.set(mode{way: losing, odds: 1})
			if err := change(t.Context(), conn); err == nil {
				t.Error("it is told that its change was committed")
			}
			err = rig.Await(t.Context(), "the row is there", 10*time.Second, func(ctx context.Context) error {
				n, err := pg.PSQL(ctx, "postgres", "SELECT count(*) FROM t WHERE n = "+name[:1])
				if err == nil && n != "1" {
					err = errors.New(n + " rows")
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
