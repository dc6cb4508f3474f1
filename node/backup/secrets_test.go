package backup_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/transport"
)

// TestBackupHoldsNoSecretInClear makes a backup of a real node's state, with a
// join token that is good, and looks for whatever that node keeps to itself.
func TestBackupHoldsNoSecretInClear(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default(filepath.Join(dir, "data"))
	cfg.HTTP = "127.0.0.1:0"
	cfg.Store.URL = (&url.URL{Scheme: "file", Path: filepath.Join(dir, "store")}).String()
	n, err := node.New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-n.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the node is not ready")
	}
	var token api.TokenCreated
	post(t, n, api.PathTokens, &token)
	var made api.BackupInfo
	post(t, n, api.PathBackup, &made)

	s, err := store.OpenFolder(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := backup.Load(t.Context(), s, made.Key)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Tokens()) != 1 || v.Tokens()[0].ID != token.ID {
		t.Errorf("the backup's tokens are %v", v.Tokens())
	}
	var text bytes.Buffer
	if err := v.WriteSnapshot(&text); err != nil {
		t.Fatal(err)
	}
	all := unfold(text.Bytes())
	if !bytes.Contains(all, []byte(filepath.Join(dir, "store"))) || !bytes.Contains(all, []byte("sealed")) {
		t.Fatal("not even what must be there is found: the test proves nothing")
	}
	private := secrets(t, filepath.Join(cfg.DataDir, "cluster"))
	parsed, err := transport.ParseToken(token.Token)
	if err != nil {
		t.Fatal(err)
	}
	private["join token's secret"] = parsed.Secret[:]
	for what, secret := range private {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), base64.RawStdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
		} {
			if bytes.Contains(all, []byte(form)) {
				t.Errorf("the %s stands in the backup", what)
			}
		}
	}
	if bytes.Contains(all, []byte(token.Token)) {
		t.Error("the join token stands in the backup")
	}
}

func post(t *testing.T, n *node.Node, path string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.HTTPAddr()+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", path, resp.Status, err, b)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// secrets returns what a node has on its own disk only, by name.
func secrets(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	b, err := os.ReadFile(filepath.Join(dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if !strings.Contains(block.Type, "CERTIFICATE") {
			all[block.Type] = block.Bytes
		}
	}
	var keys struct {
		Keys [][]byte `json:"keys"`
	}
	b, err = os.ReadFile(filepath.Join(dir, "gossip-keys"))
	if err == nil {
		err = json.Unmarshal(b, &keys)
	}
	if err != nil || len(keys.Keys) == 0 {
		t.Fatalf("gossip keys: %v", err)
	}
	all["gossip key"] = keys.Keys[0]
	if len(all) != 4 {
		t.Fatalf("%d secrets are known: did the identity change?", len(all))
	}
	for what, secret := range all {
		if len(secret) < 16 {
			t.Fatalf("%s has %d bytes", what, len(secret))
		}
	}
	return all
}

// unfold returns text with whatever stands in it as base64 behind it, decoded,
// again and again: a setting's value is base64 of JSON that may hold more.
func unfold(text []byte) []byte {
	all := bytes.Clone(text)
	for _, word := range regexp.MustCompile(`[A-Za-z0-9+/]{16,}={0,2}`).FindAll(text, -1) {
		if b, err := base64.StdEncoding.DecodeString(string(word)); err == nil {
			all = append(append(all, '\n'), unfold(b)...)
		}
	}
	return all
}
