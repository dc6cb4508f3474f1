package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

// joining runs the command line with a joinFunc that fails, so that no node
// starts.
func joining(t *testing.T, err error, args ...string) (asked []invitation, cfg config.Config, code int, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	a.joinCluster = func(_ context.Context, c config.Config, by invitation, _ *slog.Logger) error {
		asked, cfg = append(asked, by), c
		return err
	}
	code = a.run(t.Context(), append([]string{"join"}, args...))
	if out.Len() > 0 {
		t.Errorf("on stdout: %s", out.String())
	}
	return asked, cfg, code, errs.String()
}

func goodToken() string { return transport.NewToken(transport.Pin{1}, time.Time{}, 1).String() }

func TestWhatANodeJoinsWith(t *testing.T) {
	good, other := goodToken(), goodToken()
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "token"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(file, []byte(good+"\n"), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		variable string
		args     []string
		want     invitation // the zero one: nobody is asked
		say      string     // of wrong usage
	}{
		{"by flag", "", []string{"10.0.0.1:7947", "--token", good}, invitation{"10.0.0.1:7947", good}, ""},
		{"by variable", good, []string{"node1:7947"}, invitation{"node1:7947", good}, ""},
		{"the flag outranks the variable", other, []string{"[::1]:7947", "--token", good}, invitation{"[::1]:7947", good}, ""},
		{"by file, which outranks the variable", other, []string{"node1:7947", "--token-file", file}, invitation{"node1:7947", good}, ""},
		{"by file and flag", "", []string{"node1:7947", "--token-file", file, "--token", good}, invitation{}, "one of them"},
		{"a file that is not there", good, []string{"node1:7947", "--token-file", file + "s"}, invitation{}, "no such file"},
		{"an empty file", good, []string{"node1:7947", "--token-file", empty}, invitation{}, "no token"},
		{"no token", "", []string{"10.0.0.1:7947"}, invitation{}, "no token; 'desnode token' on a member prints the whole line"},
		{"a token that was cut", "", []string{"10.0.0.1:7947", "--token", good[:40]}, invitation{}, "was it copied whole?"},
		{"the URL of HTTP", "", []string{"http://10.0.0.1:8080", "--token", good}, invitation{}, "is not the cluster address of a member"},
		{"no port", "", []string{"10.0.0.1", "--token", good}, invitation{}, "write host:port"},
		{"no host", "", []string{":7947", "--token", good}, invitation{}, "write host:port"},
		{"no address", "", []string{"--token", good}, invitation{}, "accepts 1 arg"},
		{"a bad configuration", "", []string{"10.0.0.1:7947", "--token", good, "--cluster", "0.0.0.0:1"}, invitation{}, "set advertise"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(tokenVariable, tc.variable)
			failed := errors.New("enough")
			asked, _, code, stderr := joining(t, failed, tc.args...)
			if tc.say != "" {
				if code != exitUsage || len(asked) > 0 || !strings.Contains(stderr, tc.say) {
					t.Errorf("got %d, %q, asked %v", code, stderr, asked)
				}
			} else if len(asked) != 1 || asked[0] != tc.want || code != exitFailed {
				t.Errorf("got %d, %q, asked %v", code, stderr, asked)
			}
			for _, secret := range []string{good, other, good[:40]} {
				if strings.Contains(stderr, secret) {
					t.Errorf("the token is repeated: %q", stderr)
				}
			}
		})
	}
}

func TestJoinTakesTheFlagsOfStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, cfg, _, stderr := joining(t, errors.New("enough"), "10.0.0.1:7947", "--token", goodToken(), "--data-dir", dir, "--http", "127.0.0.1:1",
		"--cluster", "0.0.0.0:2", "--gossip", "127.0.0.1:3", "--advertise", "node2", "--zone", "b")
	if cfg.DataDir != dir || cfg.HTTP != "127.0.0.1:1" || cfg.Cluster != "0.0.0.0:2" || cfg.Gossip != "127.0.0.1:3" || cfg.Advertise != "node2" || cfg.Zone != "b" {
		t.Errorf("got %+v, %q", cfg, stderr)
	}
}

func TestWhyANodeCouldNotJoin(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code int
		say  string
	}{
		{"expired", transport.ErrTokenExpired, exitFailed, "the token has expired; make a new line with 'desnode token' on a member"},
		{"used up", transport.ErrTokenUsed, exitFailed, "the token is used up; make a new line"},
		{"unknown", transport.ErrToken, exitFailed, "the cluster at 10.0.0.1:7947 does not know this token"},
		{"another CA", transport.ErrCAChanged, exitFailed, "does not have the CA that the token pins"},
		{"a copied data dir", transport.ErrAlreadyMember, exitFailed, "take an empty one with --data-dir"},
		{"a removed node", transport.ErrNotMember, exitFailed, "removed from the cluster for ever"},
		{"another cluster's data dir or store", node.ErrOtherCluster, exitFailed, "desnode: join: belongs to another cluster"},
		{"a data dir that has left", node.ErrLeft, exitFailed, "no member of its cluster any more"},
		{"nobody there", transport.ErrUnreachable, exitUnavailable, "no member answers at 10.0.0.1:7947"},
		{"no quorum", transport.ErrUnavailable, exitUnavailable, "can't admit anybody at the moment"},
		{"a data dir in use", raftmeta.ErrLocked, exitInUse, "is in use by another process"},
		{"anything", errors.New("x"), exitFailed, "desnode: join: x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, code, stderr := joining(t, fmt.Errorf("join: %w", tc.err), "10.0.0.1:7947", "--token", goodToken())
			if code != tc.code || !strings.Contains(stderr, tc.say) {
				t.Errorf("got %d, %q, want %d and %q", code, stderr, tc.code, tc.say)
			}
			if !strings.Contains(stderr, tc.err.Error()) {
				t.Errorf("the reason is not told: %q", stderr)
			}
		})
	}
}
