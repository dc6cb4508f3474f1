package transport

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// fakeIssuer keeps tokens as a state machine would.
type fakeIssuer struct {
	w *world

	mu     sync.Mutex // guards what follows
	tokens map[TokenID]*fakeToken
	asked  int
	fail   error
}

type fakeToken struct {
	v       Verifier
	expires time.Time
	uses    int
	by      map[string]bool
}

func (f *fakeIssuer) add(t Token) Token {
	v, err := t.Verifier()
	if err != nil {
		f.w.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tokens == nil {
		f.tokens = map[TokenID]*fakeToken{}
	}
	f.tokens[t.ID] = &fakeToken{v: v, expires: t.Expires, uses: int(t.Uses), by: map[string]bool{}}
	return t
}

func (f *fakeIssuer) Verifier(_ context.Context, id TokenID) (Verifier, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.fail != nil {
		return Verifier{}, f.fail
	}
	if t := f.tokens[id]; t != nil {
		return t.v, nil
	}
	return Verifier{}, ErrToken
}

func (f *fakeIssuer) Redeem(_ context.Context, r Redemption) (*Admission, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tokens[r.Token]
	switch {
	case r.Remote == "":
		f.w.t.Error("no remote address")
	case time.Now().After(t.expires):
		return nil, ErrTokenExpired
	case !t.by[r.Node] && t.uses == 0:
		return nil, ErrTokenUsed
	case !t.by[r.Node]:
		t.uses--
		t.by[r.Node] = true
	}
	der, err := f.w.ca.Issue(r.CSR, r.Node, time.Now())
	return &Admission{
		Cluster: testCluster, Certificate: der, CA: f.w.ca.Certificate(), Secret: f.w.secr,
		GossipKeys: [][]byte{bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16)}, Settings: []byte(`{"store":"…"}`),
	}, err
}

func (f *fakeIssuer) Renew(_ context.Context, node string, csr []byte) ([]byte, error) {
	return f.w.ca.Issue(csr, node, time.Now())
}

func (w *world) join(t *testing.T, name string, n int, tok Token) (*Identity, *Admission, error) {
	t.Helper()
	return Join(t.Context(), Joining{
		Addr: "1.0.0.1:7947", Token: tok, Node: name, Path: w.path(name), Network: w.host("1.0.1." + string(rune('0'+n))),
	})
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issuer := &fakeIssuer{w: w}
		a := w.start("a", 1, func(c *Config) { c.Issuer = issuer })
		tok := issuer.add(NewToken(a.ident.Pin(), time.Now().Add(time.Hour), 1))
		tok, err := ParseToken(tok.String())
		if err != nil {
			t.Fatal(err)
		}
		id, adm, err := w.join(t, "b", 2, tok)
		if err != nil {
			t.Fatal(err)
		}
		if id.Node() != "b" || id.Cluster() != testCluster || id.Secret() != w.secr || id.Pin() != w.ca.Pin() ||
			len(adm.GossipKeys) != 2 || len(adm.GossipKeys[1]) != 16 || string(adm.Settings) != `{"store":"…"}` {
			t.Errorf("admitted as %s/%s with %+v", id.Cluster(), id.Node(), adm)
		}
		st, err := os.Stat(w.path("b"))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("identity file: %v, %v", st.Mode(), err)
		}
		// The new member reads from the old one and the other way round.
		b := w.run(id, 2, nil)
		if _, _, err := b.ReadAll(t.Context(), "a", open("x")); err != nil {
			t.Error(err)
		}
		if _, _, err := a.ReadAll(t.Context(), "b", open("x")); err != nil {
			t.Error(err)
		}
		// A join that was cut is repeated; another node finds the token used up.
		if _, _, err := w.join(t, "b", 2, tok); err != nil {
			t.Errorf("a join repeated: %v", err)
		}
		if _, _, err := w.join(t, "c", 3, tok); !errors.Is(err, ErrTokenUsed) {
			t.Errorf("a token used up: %v", err)
		}
	})
}

func TestJoinIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		want   error
		change func(w *world, f *fakeIssuer, tok *Token)
	}{
		{"wrong secret", ErrToken, func(_ *world, _ *fakeIssuer, tok *Token) { tok.Secret[3] ^= 1 }},
		{"unknown token", ErrToken, func(_ *world, _ *fakeIssuer, tok *Token) { tok.ID[3] ^= 1 }},
		{"expired token", ErrTokenExpired, func(_ *world, _ *fakeIssuer, _ *Token) { time.Sleep(2 * time.Hour) }},
		{"changed CA", ErrCAChanged, func(_ *world, _ *fakeIssuer, tok *Token) { tok.Pin[3] ^= 1 }},
		{"no leader", ErrUnavailable, func(_ *world, f *fakeIssuer, _ *Token) { f.fail = errors.New("no leader") }},
		{"nobody there", ErrUnreachable, func(w *world, _ *fakeIssuer, _ *Token) { w.hole("1.0.0.1", true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				issuer := &fakeIssuer{w: w}
				a := w.start("a", 1, func(c *Config) { c.Issuer = issuer })
				tok := issuer.add(NewToken(a.ident.Pin(), time.Now().Add(time.Hour), 5))
				tt.change(w, issuer, &tok)
				_, _, err := w.join(t, "b", 2, tok)
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v", err)
				}
				if _, err := os.Stat(w.path("b")); err == nil {
					t.Error("an identity was written")
				}
				if errors.Is(tt.want, ErrCAChanged) && issuer.asked != 0 {
					t.Error("something was sent to a cluster that is another")
				}
			})
		})
	}
}

func TestJoinPlaneNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, nil)
		if _, _, err := w.join(t, "b", 2, NewToken(a.ident.Pin(), time.Time{}, 0)); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}

// A proof that was overheard is worth nothing on another connection, nor for
// another node or key.
func TestProofIsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issuer := &fakeIssuer{w: w}
		a := w.start("a", 1, func(c *Config) { c.Issuer = issuer })
		tok := issuer.add(NewToken(a.ident.Pin(), time.Now().Add(time.Hour), 5))
		v, err := tok.Verifier()
		if err != nil {
			t.Fatal(err)
		}
		udp, err := w.host("1.0.1.9").ListenPacket(":0")
		if err != nil {
			t.Fatal(err)
		}
		tr := &quic.Transport{Conn: udp}
		defer func() { _, _ = tr.Close(), udp.Close() }()
		dial := func() *quic.Conn {
			to, err := resolveUDP(t.Context(), "1.0.0.1:7947")
			if err != nil {
				t.Fatal(err)
			}
			conn, err := tr.Dial(t.Context(), to, joining(tok.Pin, time.Now), nil)
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		_, csr, err := newCSR(testCluster, "b")
		if err != nil {
			t.Fatal(err)
		}
		_, otherCSR, err := newCSR(testCluster, "b")
		if err != nil {
			t.Fatal(err)
		}
		first := dial()
		state := first.ConnectionState().TLS
		proof, err := joinProof(&state, v, tok.ID, "b", csr)
		if err != nil {
			t.Fatal(err)
		}
		try := func(conn *quic.Conn, csr []byte) error {
			msg, err := appendJoin(nil, &joinRequest{tok.ID, "b", proof, csr})
			if err != nil {
				t.Fatal(err)
			}
			_, err = ask(t.Context(), conn, msg)
			_ = conn.CloseWithError(codeDone, "")
			return err
		}
		if err := try(dial(), csr); !errors.Is(err, ErrToken) {
			t.Errorf("the proof of another connection: %v", err)
		}
		if err := try(dial(), otherCSR); !errors.Is(err, ErrToken) {
			t.Errorf("the proof for another key: %v", err)
		}
		if err := try(first, csr); err != nil {
			t.Errorf("the proof where it belongs: %v", err)
		}
	})
}

func (n *node) renewAt(member *node) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, csr []byte) ([]byte, error) {
		return n.Renew(ctx, member.name, member.cfg.Bind, csr)
	}
}

// The certificate is renewed while a read streams and a raft connection stands:
// neither notices, and new connections present the new one.
func TestRenewalInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gate, body := make(chan struct{}), pattern(300_000)
		a := w.start("a", 1, func(c *Config) { c.Issuer = &fakeIssuer{w: w} })
		b := w.start("b", 2, func(c *Config) {
			c.Reader = &fakeReader{serve: func(context.Context, string, *Request) (*Reply, error) {
				r := &gated{b: body, gate: gate}
				return &Reply{Body: r, Length: int64(len(body))}, nil
			}}
		})
		raft := dialRaft(t, a, b)
		ans, err := a.Read(t.Context(), "b", open("x"))
		if err != nil {
			t.Fatal(err)
		}
		before := b.ident.Expires()
		for _, n := range []*node{a, b} {
			if err := n.ident.Renew(t.Context(), n.renewAt(a)); err != nil {
				t.Fatal(err)
			}
		}
		if !b.ident.Expires().Equal(before) { // no time has passed
			t.Errorf("expires %v, then %v", before, b.ident.Expires())
		}
		close(gate)
		got, err := payload(ans)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("the read in flight: %d bytes, %v", len(got), err)
		}
		if _, err := raft.Write([]byte("x")); err != nil {
			t.Errorf("the raft connection: %v", err)
		}
		again := dialRaft(t, a, b)
		if _, err := again.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		kept, err := LoadIdentity(w.path("b"), nil)
		if err != nil || !bytes.Equal(kept.certificate().Certificate[0], b.ident.certificate().Certificate[0]) {
			t.Errorf("what is on disk is not what is used: %v", err)
		}
	})
}

type gated struct {
	b    []byte
	gate chan struct{}
	n    int
}

func (g *gated) Read(p []byte) (int, error) {
	if g.n > 100_000 {
		<-g.gate
	}
	n := copy(p, g.b[g.n:])
	g.n += n
	return n, nil
}
func (g *gated) Close() error { return nil }

// Keep renews by itself, after a third of the time; a member that is away is
// asked again.
func TestKeepRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, func(c *Config) { c.Issuer = &fakeIssuer{w: w} })
		b := w.start("b", 2, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var tasks sync.WaitGroup
		tasks.Go(func() { b.ident.Keep(ctx, b.log, b.renewAt(a)) })
		began := time.Now()
		w.hole("1.0.0.1", true)
		time.Sleep(certLifetime/3 + time.Hour)
		if b.ident.Expires().After(began.Add(certLifetime)) {
			t.Error("renewed by nobody")
		}
		if !strings.Contains(w.logs.String(), "could not be renewed") {
			t.Error("the failure is not in the log")
		}
		w.hole("1.0.0.1", false)
		time.Sleep(time.Hour)
		if got := time.Until(b.ident.Expires()); got < certLifetime-time.Hour {
			t.Errorf("the certificate is good for %v", got)
		}
		cancel()
		tasks.Wait()
	})
}

// A listed member that was away for more than a year gets a certificate; until
// then it gets nothing else, and a removed one gets none.
func TestExpiredMemberRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.identity("b")
		gone := w.identity("c")
		w.remove("c")
		time.Sleep(certLifetime + 24*time.Hour)
		a := w.start("a", 1, func(c *Config) { c.Issuer = &fakeIssuer{w: w} })
		b := w.run(old, 2, nil)
		c := w.run(gone, 3, nil)
		if _, err := b.Read(t.Context(), "a", open("x")); !errors.Is(err, ErrRefused) {
			t.Errorf("with an expired certificate: %v", err)
		}
		if _, err := a.Raft().Dial("b", 0); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "2000-12-31") {
			t.Errorf("to a node with an expired certificate: %v", err)
		}
		if err := c.ident.Renew(t.Context(), c.renewAt(a)); !errors.Is(err, ErrNotMember) {
			t.Errorf("a removed node renews: %v", err)
		}
		// Somebody else's name in the request.
		_, err := b.Renew(t.Context(), "a", "1.0.0.1:7947", mustCSR(t, "a"))
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("a request for another node: %v", err)
		}
		if err := b.ident.Renew(t.Context(), b.renewAt(a)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, _, err := b.ReadAll(t.Context(), "a", open("x")); err != nil {
			t.Errorf("after the renewal: %v", err)
		}
	})
}

// A clock that was ahead when the certificate was issued, and then is put right:
// by a day does no harm, by more is mended at the next look.
func TestCertificateFromAClockThatWasAhead(t *testing.T) {
	for _, tc := range []struct {
		name    string
		ahead   time.Duration
		refused bool
	}{{"26 hours", 26 * time.Hour, false}, {"four days", 96 * time.Hour, true}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a := w.start("a", 1, func(c *Config) { c.Issuer = &fakeIssuer{w: w} })
				var ahead atomic.Int64
				ahead.Store(int64(tc.ahead))
				id, err := FormIdentity(w.path("b"), w.ca, "b", w.secr, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
				if err != nil {
					t.Fatal(err)
				}
				b := w.run(id, 2, nil)
				ctx, cancel := context.WithCancel(t.Context())
				var tasks sync.WaitGroup
				tasks.Go(func() { b.ident.Keep(ctx, b.log, b.renewAt(a)) })
				synctest.Wait() // it has set its timer by the wrong clock
				ahead.Store(0)
				before := b.ident.Expires()
				if _, _, err := b.ReadAll(t.Context(), "a", open("x")); errors.Is(err, ErrRefused) != tc.refused {
					t.Errorf("a read with the clock put right: %v", err)
				}
				time.Sleep(renewLook + 2*time.Second)
				if _, _, err := b.ReadAll(t.Context(), "a", open("x")); err != nil {
					t.Errorf("a read after the next look: %v", err)
				}
				if renewed := b.ident.Expires().Before(before); renewed != tc.refused {
					t.Errorf("renewed: %v", renewed)
				}
				cancel()
				tasks.Wait()
			})
		})
	}
}

func mustCSR(t *testing.T, node string) []byte {
	t.Helper()
	_, csr, err := newCSR(testCluster, node)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
