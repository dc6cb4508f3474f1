package source_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
)

// front stands before the Postgres of the tests: with TLS when it has a
// certificate, and as a pooler does when it makes up process ids.
type front struct {
	secure *tls.Config
	pooler bool
}

// listen returns the URL of the database behind a front.
func (f front) listen(t *testing.T, dbURL string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	back := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(client, back) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	u.Host = l.Addr().String()
	return u.String()
}

func (f front) serve(client net.Conn, back string) {
	defer func() { _ = client.Close() }()
	if f.secure != nil {
		ask := make([]byte, 8) // SSLRequest
		if _, err := io.ReadFull(client, ask); err != nil {
			return
		}
		if _, err := client.Write([]byte("S")); err != nil {
			return
		}
		client = tls.Server(client, f.secure)
	}
	server, err := net.Dial("tcp", back)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_ = f.answers(client, server)
	_ = client.Close()
	wg.Wait()
}

// answers copies the server's messages, changing the process id in the one
// that tells it.
func (f front) answers(to io.Writer, from io.Reader) error {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return err
		}
		if head[0] == 'K' && f.pooler {
			body[0] ^= 0x40
		}
		if _, err := to.Write(append(head, body...)); err != nil {
			return err
		}
	}
}

// certificate returns a certificate for 127.0.0.1 and the file of who signed
// it.
func certificate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12}, file
}

func with(t *testing.T, dbURL string, params ...string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func TestConnectionsAreLookedAt(t *testing.T) {
	db := database(t)
	secure, ca := certificate(t)
	behindTLS := front{secure: secure}.listen(t, db)
	elsewhere := with(t, strings.Replace(behindTLS, "127.0.0.1", "localhost", 1), "sslrootcert", ca)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "postgres://postgres:hush@" + closed.Addr().String() + "/db?sslmode=disable"
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		url   string
		level source.Level
		what  string
	}{
		{"let in", db, source.LevelOK, `user "postgres" is let in`},
		{"on this machine", db, source.LevelOK, "no TLS, on this machine"},
		{"nobody there", nobody, source.LevelFail, "can't be reached"},
		{"no such user", as(t, db, "stranger"), source.LevelFail, "28000"},
		{"no such database", strings.Replace(db, "/test", "/absent", 1), source.LevelFail, "3D000"},
		{"no URL", "", source.LevelFail, "there is no connection URL"},
		{"not a URL", "postgres://u:hush@host:port/db", source.LevelFail, "connection URL"},
		{"certificate not checked", with(t, behindTLS, "sslmode", "require"), source.LevelWarn, "is not checked"},
		{"TLS if it can be had", with(t, behindTLS, "sslmode", "prefer"), source.LevelWarn, "is not checked"},
		{"authority checked", with(t, behindTLS, "sslmode", "verify-ca", "sslrootcert", ca), source.LevelWarn, "verify-ca"},
		{"all checked", with(t, behindTLS, "sslmode", "verify-full", "sslrootcert", ca), source.LevelOK, "host name checked"},
		{"unknown authority", with(t, behindTLS, "sslmode", "verify-full"), source.LevelFail, "not accepted"},
		{"another host's certificate", with(t, elsewhere, "sslmode", "verify-full"), source.LevelFail, "not accepted"},
		{"pooler", front{pooler: true}.listen(t, db), source.LevelOK, "a pooler"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found := source.CheckConnections(t.Context(), source.PostgresConfig{
				Mapping: migrations.Mapping{Source: "documents"}, URL: tc.url, Roles: []source.Role{source.RoleMarker},
			})
			if !slices.ContainsFunc(found, func(f source.Finding) bool {
				return f.Check == "role marker" && f.Level == tc.level && strings.Contains(f.What, tc.what)
			}) {
				t.Errorf("no %s finding that says %q: %+v", tc.level, tc.what, found)
			}
			for _, f := range found {
				if strings.Contains(f.What+f.Cure, "hush") {
					t.Errorf("a finding has the password: %+v", f)
				}
				if f.Level != source.LevelOK && (f.Why == "" || f.Cure == "") {
					t.Errorf("a finding that says too little: %+v", f)
				}
			}
		})
	}
}

// TestEachRoleConnectsAsItself: one role that is refused does not hide the
// others.
func TestEachRoleConnectsAsItself(t *testing.T) {
	db := database(t)
	found := source.CheckConnections(t.Context(), source.PostgresConfig{
		Mapping: migrations.Mapping{Source: "documents"}, URL: db, URLs: map[source.Role]string{source.RolePacker: as(t, db, "stranger")},
		Roles: []source.Role{source.RoleMarker, source.RolePacker, source.RoleReader},
	})
	level := map[string]source.Level{}
	for _, f := range found {
		if f.Level == source.LevelFail || level[f.Check] == "" {
			level[f.Check] = f.Level
		}
	}
	want := map[string]source.Level{"role marker": source.LevelOK, "role packer": source.LevelFail, "role reader": source.LevelOK, "clock": source.LevelOK}
	for check, l := range want {
		if level[check] != l {
			t.Errorf("%s: got %q, want %s", check, level[check], l)
		}
	}
}

func TestTheDatabasesClockIsCompared(t *testing.T) {
	db := database(t)
	for _, tc := range []struct {
		name  string
		off   time.Duration // of our clock
		level source.Level
		what  string
	}{
		{"ours", 0, source.LevelOK, "is ours"},
		{"a little", 30 * time.Second, source.LevelOK, "30s behind"},
		{"an hour", -time.Hour, source.LevelWarn, "1h0m0s ahead of"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found := source.CheckConnections(t.Context(), source.PostgresConfig{
				Mapping: migrations.Mapping{Source: "documents"}, URL: db, Roles: []source.Role{source.RoleReader},
				Now: func() time.Time { return time.Now().Add(tc.off) },
			})
			if !slices.ContainsFunc(found, func(f source.Finding) bool {
				return f.Check == "clock" && f.Level == tc.level && strings.Contains(f.What, tc.what)
			}) {
				t.Errorf("%+v", found)
			}
		})
	}
}

func TestConnectionsEndWithTheirContext(t *testing.T) {
	db := database(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	found := source.CheckConnections(ctx, source.PostgresConfig{
		Mapping: migrations.Mapping{Source: "documents"}, URL: db, Roles: []source.Role{source.RoleReader},
	})
	if len(found) != 1 || found[0].Level != source.LevelFail {
		t.Errorf("%+v", found)
	}
}
