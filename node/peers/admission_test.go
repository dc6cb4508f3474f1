package peers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// TestTokens: each way to be refused says why, and none takes a use.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.form()
		stranger := transport.NewToken(transport.Pin{1}, time.Now().Add(time.Hour), 1).String()
		unknown := transport.NewToken(first.id2().Pin(), time.Now().Add(time.Hour), 1).String()
		short, err := first.CreateToken(t.Context(), time.Minute, 1)
		if err != nil {
			t.Fatal(err)
		}
		revoked := first.token(1)
		parsed, _ := transport.ParseToken(revoked)
		if err := first.meta.RevokeToken(t.Context(), parsed.ID.String()); err != nil {
			t.Fatal(err)
		}
		forged := parsed
		forged.Secret[0] ^= 1
		time.Sleep(2 * time.Minute) // virtual
		for _, tc := range []struct {
			name, token string
			want        error
		}{
			{"not a token", "dnj1nonsense", transport.ErrToken},
			{"of another CA", stranger, transport.ErrCAChanged},
			{"never given", unknown, transport.ErrToken},
			{"expired", short.String(), transport.ErrTokenExpired},
			{"revoked", revoked, transport.ErrToken},
			{"with another secret", forged.String(), transport.ErrToken},
		} {
			n := w.newNode()
			if _, err := n.tryJoin(first, tc.token); !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
			}
		}
		once := first.token(1)
		if _, err := w.newNode().tryJoin(first, once); err != nil {
			t.Fatal(err)
		}
		if _, err := w.newNode().tryJoin(first, once); !errors.Is(err, transport.ErrTokenUsed) {
			t.Errorf("used up: got %v", err)
		}
		if members := len(first.meta.View().Members()); members != 2 {
			t.Errorf("%d members", members)
		}
	})
}

func (n *node) id2() *transport.Identity { return n.Peers.id }

// TestJoinIsRepeated: after any of its writes was lost, the same join takes no
// second use and ends in a node that runs.
func TestJoinIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.form()
		token := first.token(1)
		n := w.newNode()
		for _, lost := range []string{"", identityFile, joinedFile, keysFile, addressesFile} {
			if lost != "" {
				if err := errors.Join(os.Remove(filepath.Join(n.peersDir(), lost)), missingIsNil(os.Remove(filepath.Join(n.peersDir(), identityFile)))); err != nil {
					t.Fatal(err)
				}
			}
			admitted, err := n.tryJoin(first, token)
			if err != nil || string(admitted.Settings) != "settings" || admitted.Already {
				t.Fatalf("without %q: %+v, %v", lost, admitted, err)
			}
		}
		if again, err := n.tryJoin(first, token); err != nil || !again.Already || string(again.Settings) != "settings" {
			t.Errorf("on the dir of a member: %+v, %v", again, err)
		}
		n.joined = true
		n.start()
		w.awaitAll(first, n)
	})
}

// TestDirOfAnotherCluster is refused before anybody is asked.
func TestDirOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.form()
		n := w.newNode()
		if err := Form(n.peersDir(), "another", n.id, nil); err != nil {
			t.Fatal(err)
		}
		_, err := n.tryJoin(first, first.token(1))
		wantErr(t, err, ErrOtherCluster)
		wantErr(t, Form(first.peersDir(), "another", first.id, nil), ErrOtherCluster)
		wantErr(t, Form(first.peersDir(), w.cluster.String(), n.id, nil), ErrOtherNode)
		if err := Form(first.peersDir(), w.cluster.String(), first.id, nil); err != nil {
			t.Error("formed again:", err)
		}
	})
}

// TestRemovedMemberIsRefusedEverywhere, though its certificate and its gossip
// key are good.
func TestRemovedMemberIsRefusedEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		gone, rest := nodes[2], nodes[:2]
		if err := nodes[0].meta.RemoveMember(t.Context(), gone.Node()); err != nil {
			t.Fatal(err)
		}
		w.await("the others are two", func() bool { return together(rest...) })
		time.Sleep(2 * time.Minute) // virtual: it tries to come back
		if !together(rest...) {
			t.Error("it is back")
		}
		for _, n := range rest {
			if _, seen := n.View().Member(ring.NodeID(gone.id)); seen {
				t.Errorf("%s sees it", n.id)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := gone.Call(ctx, n.Node(), []byte("{}"))
			wantErr(t, err, raftmeta.ErrNotMember)
			_, err = gone.Endpoint().Read(ctx, n.id, transport.Request{Kind: transport.KindStat, Name: "a"})
			wantErr(t, err, transport.ErrNotMember)
			_, err = gone.Endpoint().Raft().DialContext(ctx, n.id)
			wantErr(t, err, transport.ErrNotMember)
			_, err = gone.greet(ctx, n.ClusterAddr())
			wantErr(t, err, transport.ErrNotMember)
			err = gone.Peers.id.Renew(ctx, func(ctx context.Context, csr []byte) ([]byte, error) {
				return gone.Endpoint().Renew(ctx, n.id, n.ClusterAddr(), csr)
			})
			wantErr(t, err, transport.ErrNotMember)
			_, err = n.issue(ctx, gone.id, nil) // had the connection been let in
			wantErr(t, err, transport.ErrNotMember)
			if _, err := n.Call(ctx, gone.Node(), []byte("{}")); !errors.Is(err, transport.ErrNotMember) {
				t.Errorf("%s calls it: %v", n.id, err)
			}
			cancel()
		}
	})
}

// clock is a time that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// TestRenewalByAnother: a certificate is renewed at a third of its time, without
// a restart, with the founder dead.
func TestRenewalByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		nodes[0].stop()
		w.awaitAll(nodes[1:]...)
		before := nodes[2].Peers.id.Expires()
		err := nodes[2].Peers.id.Renew(t.Context(), func(ctx context.Context, csr []byte) ([]byte, error) {
			return nodes[2].Endpoint().Renew(ctx, nodes[1].id, nodes[1].ClusterAddr(), csr)
		})
		if err != nil {
			t.Fatal(err)
		}
		if !nodes[2].Peers.id.Expires().After(before) {
			t.Errorf("good until %s, before %s", nodes[2].Peers.id.Expires(), before)
		}
		w.awaitAll(nodes[1:]...) // new connections show the new certificate
		if !nodes[1].logs.has("a member's certificate is renewed") {
			t.Error("the issuer does not tell")
		}
	})
}

// TestAllCertificatesHaveExpired: a cluster that slept for two years wakes up.
func TestAllCertificatesHaveExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		for _, n := range nodes {
			n.stop()
		}
		late := &clock{}
		late.ahead.Store(int64(2 * 365 * 24 * time.Hour))
		for _, n := range nodes {
			n.now = late.now
			n.start()
		}
		w.awaitAllWithin(5*time.Minute, nodes...)
	})
}

// TestGossipWithoutTheKeyIsRefused and told.
func TestGossipWithoutTheKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(2)
		nodes[1].stop()
		strange := firstKeys()
		strange.Version = nodes[1].keys.Load().Version
		if err := writeJSON(filepath.Join(nodes[1].peersDir(), keysFile), strange); err != nil {
			t.Fatal(err)
		}
		nodes[1].start()
		time.Sleep(time.Minute) // virtual
		if len(nodes[0].View().Members()) != 1 {
			t.Error("it is among the living")
		}
		if !nodes[0].logs.has(`msg="gossip refused" reason=key`) {
			t.Error("nobody tells")
		}
		if nodes[0].metric("des_gossip_refused_total", "key") == 0 {
			t.Error("nobody counts")
		}
	})
}
