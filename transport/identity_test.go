package transport

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestAuthorityIsSealed(t *testing.T) {
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret := NewSecret()
	sealed, err := ca.Seal(secret)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ca.Seal(secret)
	if err != nil || bytes.Equal(sealed, again) {
		t.Errorf("sealed twice alike: %v", err)
	}
	opened, err := OpenAuthority(testCluster, ca.Certificate(), sealed, secret)
	if err != nil || !opened.key.Equal(ca.key) || opened.Pin() != ca.Pin() {
		t.Fatalf("opened: %v", err)
	}
	if _, err := OpenAuthority(testCluster, ca.Certificate(), sealed, NewSecret()); !errors.Is(err, ErrSealed) {
		t.Errorf("another secret: %v", err)
	}
	if _, err := OpenAuthority("c2", ca.Certificate(), sealed, secret); !errors.Is(err, ErrSealed) {
		t.Errorf("another cluster: %v", err)
	}
	for n := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[n] ^= 0x10
		want := ErrSealed
		if n < 2 {
			want = ErrVersion
		}
		if _, err := OpenAuthority(testCluster, ca.Certificate(), flipped, secret); !errors.Is(err, want) {
			t.Fatalf("byte %d flipped: %v", n, err)
		}
		if _, err := OpenAuthority(testCluster, ca.Certificate(), sealed[:n], secret); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestIssueChecksTheRequest(t *testing.T) {
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	csr := mustCSR(t, "a")
	if _, err := ca.Issue(csr, "a", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"b", "", "A", "a/b", "-a"} {
		if _, err := ca.Issue(csr, node, time.Now()); !errors.Is(err, ErrIdentity) {
			t.Errorf("for node %q: %v", node, err)
		}
	}
	unsigned := bytes.Clone(csr)
	unsigned[len(unsigned)-1] ^= 1
	if _, err := ca.Issue(unsigned, "a", time.Now()); err == nil {
		t.Error("a request that its key did not sign")
	}
}

func TestIdentityFile(t *testing.T) {
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity.pem")
	if _, err := LoadIdentity(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	id, err := FormIdentity(path, ca, "a", NewSecret(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	back, err := LoadIdentity(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	was, is := id.state.Load(), back.state.Load()
	if is.node != "a" || is.cluster != testCluster || is.secret != was.secret || is.reset != was.reset || is.reset == [32]byte{} ||
		!bytes.Equal(is.cert.Certificate[0], was.cert.Certificate[0]) {
		t.Error("loaded another identity")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for n := 0; n < len(b)-1; n += 7 {
		if err := os.WriteFile(path, b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(path, nil); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// A renewal that cannot be written leaves the old certificate in use.
func TestRenewalNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.identity("a")
		before := id.certificate()
		id.path = filepath.Join(w.dir, "missing", "a.pem")
		err := id.Renew(t.Context(), func(_ context.Context, csr []byte) ([]byte, error) { return w.ca.Issue(csr, "a", time.Now()) })
		if !errors.Is(err, fs.ErrNotExist) || id.certificate() != before {
			t.Errorf("got %v", err)
		}
		id.path = w.path("a")
		err = id.Renew(t.Context(), func(_ context.Context, _ []byte) ([]byte, error) { return before.Certificate[0], nil })
		if !errors.Is(err, ErrIdentity) || id.certificate() != before {
			t.Errorf("a certificate for the old key: %v", err)
		}
	})
}

func TestBreaker(t *testing.T) {
	now := time.Unix(0, 0)
	b := breaker{limit: 2, delay: time.Second, now: func() time.Time { return now }}
	step := func(enter bool, o outcome) {
		t.Helper()
		if got := b.enter(); got != enter {
			t.Fatalf("enter is %v", got)
		}
		if enter {
			b.leave(o)
		}
	}
	step(true, failed)
	step(true, givenUp)
	step(true, failed)
	step(false, 0)
	if !b.open() {
		t.Error("not open")
	}
	now = now.Add(time.Second)
	step(true, givenUp) // gives its turn back
	if !b.enter() {
		t.Fatal("no probe")
	}
	step(false, 0) // one probe at a time
	b.leave(failed)
	step(false, 0)
	now = now.Add(time.Second)
	step(true, succeeded)
	step(true, failed)
	step(true, succeeded)
}
