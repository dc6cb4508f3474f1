package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// served is what a node serves on all planes, and counts what reached it.
type served struct {
	reads fakeReader
	calls fakeHandler
	joins fakeIssuer
}

// serveAll runs b with all planes.
func serveAll(w *world) (b *node, got *served) {
	got = &served{joins: fakeIssuer{w: w}}
	b = w.start("b", 2, func(c *Config) {
		c.Reader, c.Handler, c.Issuer = &got.reads, &got.calls, &got.joins
	})
	return b, got
}

// planeCalls are one use of each plane.
func planeCalls() []struct {
	plane string
	use   func(ctx context.Context, from *node, to string) error
} {
	return []struct {
		plane string
		use   func(ctx context.Context, from *node, to string) error
	}{
		{"read", func(ctx context.Context, from *node, to string) error {
			_, err := from.Read(ctx, to, open("x"))
			return err
		}},
		{"call", func(ctx context.Context, from *node, to string) error {
			_, err := from.Call(ctx, to, "meta", []byte("x"))
			return err
		}},
		{"join", func(ctx context.Context, from *node, to string) error {
			_, csr, err := newCSR(testCluster, from.name)
			if err != nil {
				return err
			}
			_, err = from.Renew(ctx, to, "1.0.0.2:7947", csr)
			return err
		}},
		{"raft", func(_ context.Context, from *node, to string) error {
			c, err := from.Raft().Dial(to, 0)
			if err == nil {
				_ = c.Close() // it may find nobody to say goodbye to
			}
			return err
		}},
	}
}

// impostor runs node a with an identity that is changed: it trusts b's CA, so
// that it gets past its own checks and b's decide.
func impostor(w *world, change func(st *identityState)) *node {
	id := w.identity("a")
	st := *id.state.Load()
	change(&st)
	id.state.Store(&st)
	return w.run(id, 1, nil)
}

// refusedOnAllPlanes uses every plane of b and expects an error and, at teller, a
// line in the log and a count for each.
func refusedOnAllPlanes(t *testing.T, w *world, a *node, to, reason string, teller func(a, b *node) *node, want ...error) {
	t.Helper()
	b, got := serveAll(w)
	for _, p := range planeCalls() {
		err := p.use(t.Context(), a, to)
		known := false
		for _, e := range want {
			known = known || errors.Is(err, e)
		}
		if !known {
			t.Errorf("%s: %v", p.plane, err)
		}
	}
	time.Sleep(100 * time.Millisecond) // a client knows its refusal before the server
	at := teller(a, b)
	for _, p := range planeCalls() {
		if n := testutil.ToFloat64(at.m.refused.WithLabelValues(p.plane, reason)); n != 1 {
			t.Errorf("%s: %v refusals were counted", p.plane, n)
		}
		line := ""
		for l := range strings.Lines(w.logs.String()) {
			if strings.Contains(l, "a connection was refused") && strings.Contains(l, "plane=desnode-"+p.plane+"/1") && strings.Contains(l, "reason="+reason+" ") {
				line = l
			}
		}
		for _, part := range []string{"level=WARN", "remote="} {
			if !strings.Contains(line, part) {
				t.Errorf("%s: the log has %q for %s, without %q", p.plane, line, reason, part)
			}
		}
	}
	if len(got.reads.seen) != 0 || got.calls.count() != 0 || got.joins.asked != 0 {
		t.Errorf("something was served: %v, %v, %d", got.reads.seen, got.calls.seen, got.joins.asked)
	}
}

func byServer(_, b *node) *node { return b }
func byClient(a, _ *node) *node { return a }

func TestClientWithoutCertificateGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := impostor(w, func(st *identityState) { st.cert.Certificate = nil })
		// Whoever joins has no certificate: there the renewal itself is refused.
		refusedOnAllPlanes(t, w, a, "b", reasonNoCertificate, byServer, ErrRefused, ErrNotMember)
	})
}

func TestClientOfAnotherClusterGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stranger := newWorld(t).identity("a").state.Load() // the same ids, another CA
		a := impostor(w, func(st *identityState) { st.cert = stranger.cert })
		refusedOnAllPlanes(t, w, a, "b", reasonCertificate, byServer, ErrRefused)
	})
}

// The same CA, but a certificate that says another cluster.
func TestClientNamedOfAnotherClusterGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := impostor(w, func(st *identityState) {
			misled := *w.ca
			misled.cluster = "c2"
			key, csr, err := newCSR("c2", "a")
			if err != nil {
				t.Fatal(err)
			}
			der, err := misled.Issue(csr, "a", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := st.take(key, der); err != nil {
				t.Fatal(err)
			}
			st.cluster = testCluster
		})
		refusedOnAllPlanes(t, w, a, "b", reasonNode, byServer, ErrRefused)
	})
}

func TestClientWithExpiredCertificateGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.identity("a")
		time.Sleep(certLifetime + time.Hour)
		a := w.run(old, 1, nil)
		b, got := serveAll(w)
		for _, p := range planeCalls() {
			err := p.use(t.Context(), a, "b")
			if p.plane == "join" { // the one thing that it may: ask for its next certificate
				if err != nil {
					t.Errorf("renewal: %v", err)
				}
				continue
			}
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v", p.plane, err)
			}
			time.Sleep(10 * time.Millisecond)
			if n := testutil.ToFloat64(b.m.refused.WithLabelValues(p.plane, reasonExpired)); n != 1 {
				t.Errorf("%s: %v refusals were counted", p.plane, n)
			}
		}
		if len(got.reads.seen) != 0 || got.calls.count() != 0 {
			t.Errorf("something was served: %v, %v", got.reads.seen, got.calls.seen)
		}
	})
}

// A node that answers at another's address, by a stale entry or because it took
// it, is not spoken to: its certificate is good, but it is not the one dialled.
func TestNodeAtAnothersAddressGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, nil)
		w.mu.Lock()
		w.addrs["z"] = "1.0.0.2:7947" // b answers there
		w.mu.Unlock()
		refusedOnAllPlanes(t, w, a, "z", reasonNode, byClient, ErrIdentity)
	})
}

// A node is who its certificate says, whatever it calls itself.
func TestClientIsWhoItsCertificateSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other := w.identity("c").state.Load()
		a := impostor(w, func(st *identityState) { st.cert = other.cert })
		b, got := serveAll(w)
		accepted := make(chan string, 1)
		go func() {
			c, err := b.Raft().Accept()
			if err != nil {
				accepted <- err.Error()
				return
			}
			accepted <- c.RemoteAddr().String()
			_ = c.Close()
		}()
		for _, p := range planeCalls() {
			err := p.use(t.Context(), a, "b")
			switch p.plane {
			case "join":
				if !errors.Is(err, ErrInvalid) { // c's certificate asks for one of a
					t.Errorf("renewal: %v", err)
				}
			case "raft":
				if from := <-accepted; err != nil || from != "c" {
					t.Errorf("raft takes it for %q, %v", from, err)
				}
			default:
				if err != nil {
					t.Errorf("%s: %v", p.plane, err)
				}
			}
		}
		if got.calls.seen[0] != "c/meta" {
			t.Errorf("a call is taken for %v", got.calls.seen)
		}
	})
}

func TestRemovedMemberGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.remove("a")
		a := w.start("a", 1, func(c *Config) { c.Allowed = func(string) bool { return true } }) // it has not heard of it
		refusedOnAllPlanes(t, w, a, "b", reasonNotMember, byServer, ErrNotMember)
	})
}

// What stands when a member is removed ends with Recheck, on all planes.
func TestRecheckEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, func(c *Config) { c.Allowed = func(string) bool { return true } })
		ended := make(chan error, 1)
		b := w.start("b", 2, func(c *Config) {
			c.Handler = &fakeHandler{serve: func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) {
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			}}
		})
		answered := make(chan error, 1)
		go func() {
			_, err := a.Call(t.Context(), "b", "meta", nil)
			answered <- err
		}()
		time.Sleep(100 * time.Millisecond)
		w.remove("a")
		began := time.Now()
		b.Recheck()
		if err := <-answered; !errors.Is(err, ErrNotMember) {
			t.Errorf("a call of a removed member: %v", err)
		}
		if err := <-ended; err == nil || time.Since(began) > 100*time.Millisecond {
			t.Errorf("its handler ended with %v after %v", err, time.Since(began))
		}
	})
}

func TestGarbageOverUDPGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := serveAll(w)
		pc, err := w.host("1.0.0.9").ListenPacket(":0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("1.0.0.2:7947"))
		for _, p := range [][]byte{
			[]byte("\x00\x01 a name server's question"),        // not QUIC
			append([]byte{0x40}, pattern(1200)...),             // of a connection that never was
			append([]byte{0xc0, 0, 0, 0, 1}, pattern(1200)...), // an Initial that holds nothing
		} {
			if _, err := pc.WriteTo(p, to); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if n := testutil.ToFloat64(b.m.refused.WithLabelValues("none", reasonNotQUIC)); n != 1 {
			t.Errorf("%v packets were counted", n)
		}
		if log := w.logs.String(); !strings.Contains(log, "remote=1.0.0.9:40000") || !strings.Contains(log, "reason=not-quic") {
			t.Errorf("the log has %s", log)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.inbound) != 0 {
			t.Error("garbage made a connection")
		}
	})
}

func TestGarbageOverTCPGetsNothing(t *testing.T) {
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var logs lockedBuffer
	cfg := realConfig(t, ca, "b", nil)
	cfg.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	e := runReal(t, cfg)
	conn, err := net.Dial("tcp", e.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(conn)                               // until it hangs up, by a reset perhaps
	if bytes.Contains(got, []byte("HTTP")) || len(got) > 7 { // an alert of TLS
		t.Errorf("it answered %q", got)
	}
	if n := testutil.ToFloat64(e.m.refused.WithLabelValues("raft", reasonHandshake)); n != 1 {
		t.Errorf("%v refusals were counted", n)
	}
	if log := logs.String(); !strings.Contains(log, "remote="+conn.LocalAddr().String()) || !strings.Contains(log, "reason=handshake") {
		t.Errorf("the log has %s", log)
	}
}

// Whoever opens connections and says nothing keeps out nobody but its own host,
// and not for long.
func TestSilentHandshakesAreBounded(t *testing.T) {
	h := handshakes{byHost: map[string]int{}}
	took := func(host string) (n int) {
		for h.begin(host) {
			n++
		}
		return n
	}
	if one, two, three := took("1.0.0.9"), took("1.0.0.8"), took("1.0.0.7"); one != maxHandshakesHost || two != maxHandshakes-maxHandshakesHost || three != 0 {
		t.Errorf("%d of one host, %d of another, %d of a third", one, two, three)
	}
	h.end("1.0.0.9")
	if h.begin("1.0.0.8") || !h.begin("1.0.0.7") {
		t.Error("a place that was given back went to the wrong host")
	}

	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		var silent []net.Conn
		for range maxHandshakesHost { // all of one host: a pipe has no address
			c, err := w.dial(t.Context(), "1.0.0.2:7947")
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, c)
		}
		synctest.Wait()
		if _, err := a.Raft().Dial("b", 0); !errors.Is(err, ErrUnreachable) {
			t.Errorf("one more of that host: %v", err)
		}
		if n := testutil.ToFloat64(b.m.refused.WithLabelValues("raft", reasonBusy)); n != 1 {
			t.Errorf("%v refusals were counted", n)
		}
		time.Sleep(b.cfg.DialTimeout)
		dialRaft(t, a, b)
		for _, c := range silent {
			_ = c.Close()
		}
	})
}

// A scanner does not fill the disk, and hides no refusal of another kind.
func TestRefusalsAreLoggedWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs lockedBuffer
		r := &refusals{
			log: slog.New(slog.NewTextHandler(&logs, nil)), metrics: newMetrics(func() float64 { return 0 }), now: time.Now,
			kinds: map[refusalKind]*refusalLog{},
		}
		from := &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5}
		for range 3600 { // a second
			r.tell(from, "", errNotQUIC)
			time.Sleep(time.Second)
		}
		lines := strings.Count(logs.String(), "\n")
		if lines < 60 || lines > refusalBurst+61 {
			t.Errorf("%d lines an hour", lines)
		}
		if !strings.Contains(logs.String(), "not_logged=59") {
			t.Errorf("the log does not count what it leaves out: %s", logs.String())
		}
		if n := testutil.ToFloat64(r.metrics.refused.WithLabelValues("none", reasonNotQUIC)); n != 3600 {
			t.Errorf("%v counted", n)
		}
		r.tell(from, alpnRaft, badIdentity(reasonExpired, "%s", strings.Repeat("x", 1<<20)))
		if strings.Count(logs.String(), "\n") != lines+1 || len(logs.String()) > 64<<10 {
			t.Errorf("another kind of refusal: %d lines, %d bytes", strings.Count(logs.String(), "\n"), len(logs.String()))
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		reg := prometheus.NewRegistry()
		a := w.start("a", 1, func(c *Config) { c.Registerer = reg })
		b := w.start("b", 2, func(c *Config) { c.Handler = &fakeHandler{} })
		if _, err := a.Call(t.Context(), "b", "meta", []byte("four")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.ReadAll(t.Context(), "b", open("seven77")); err != nil {
			t.Fatal(err)
		}
		if _, err := dialRaft(t, a, b).Write([]byte("sixsix")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for name, c := range map[string]struct {
			got  prometheus.Counter
			want float64
		}{
			"calls out": {a.m.call.requestsOut, 1}, "calls in": {b.m.call.requestsIn, 1},
			"call bytes out": {a.m.call.bytesOut, 4}, "call bytes in": {b.m.call.bytesIn, 4},
			"answer bytes out": {b.m.call.bytesOut, 4}, "answer bytes in": {a.m.call.bytesIn, 4},
			"reads out": {a.m.read.requestsOut, 1}, "reads in": {b.m.read.requestsIn, 1},
			"read bytes out": {b.m.read.bytesOut, 7}, "read bytes in": {a.m.read.bytesIn, 7},
			"raft bytes out": {a.m.raft.bytesOut, 6}, "raft bytes in": {b.m.raft.bytesIn, 6},
			"handshakes out": {a.m.read.handshakesOut, 1}, "handshakes in": {b.m.call.handshakesIn, 1},
			"raft handshakes out": {a.m.raft.handshakesOut, 1}, "raft handshakes in": {b.m.raft.handshakesIn, 1},
		} {
			if got := testutil.ToFloat64(c.got); got != c.want {
				t.Errorf("%s: %v, not %v", name, got, c.want)
			}
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range families {
			names = append(names, f.GetName())
			if f.GetName() == "des_transport_certificate_expires_seconds" {
				if left := f.GetMetric()[0].GetGauge().GetValue(); left < (certLifetime-time.Minute).Seconds() || left > certLifetime.Seconds() {
					t.Errorf("the certificate expires in %v s", left)
				}
			}
		}
		want := "des_transport_bytes_total des_transport_certificate_expires_seconds des_transport_handshakes_total des_transport_refused_total des_transport_requests_total"
		if got := strings.Join(names, " "); got != want {
			t.Errorf("registered %s", got)
		}
		cfg := a.cfg
		cfg.Network = newWorld(t).host("1.0.0.1")
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "register") {
			t.Errorf("registered twice: %v", err)
		}
	})
}

// Whoever hears that it is no member ends for ever.
func TestNodeThatClosesDoesNotSayThatTheOtherIsNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, nil)
		var b *node
		var closes sync.Once
		b = w.start("b", 2, func(c *Config) {
			c.Handler = &fakeHandler{}
			c.Allowed = func(string) bool {
				closes.Do(func() { // after the first look at the caller, before its connection is noted
					b.mu.Lock()
					defer b.mu.Unlock()
					b.closing = true
				})
				return true
			}
		})
		_, err := a.Call(t.Context(), b.name, "meta", []byte("x"))
		if err == nil || errors.Is(err, ErrNotMember) {
			t.Errorf("called: %v", err)
		}
	})
}
