package transport

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// maxJoins bounds the joins and renewals that are answered at once.
	maxJoins = 16
	// joinTimeout bounds one of them: a command through Raft, on a busy leader.
	joinTimeout = 15 * time.Second

	maxCSR      = 4096
	maxCert     = 8192
	maxSettings = 512 << 10
	maxKeys     = 4096
)

// Issuer decides who joins. A member that does not lead asks the leader.
type Issuer interface {
	// Verifier returns what the cluster keeps of a token, spent or expired ones
	// too while it still knows them. It changes nothing. Errors: ErrToken when
	// there is no such token.
	Verifier(ctx context.Context, id TokenID) (Verifier, error)
	// Redeem takes one use of a token whose secret the joiner has proved, makes
	// the node a member and signs its certificate; durable on return. Repeating
	// it for the same token and node takes no second use. Errors: ErrToken,
	// ErrTokenExpired, ErrTokenUsed, ErrAlreadyMember; any other is "unavailable".
	Redeem(ctx context.Context, r Redemption) (*Admission, error)
	// Renew signs a member's next certificate. Errors: ErrNotMember; any other is
	// "unavailable".
	Renew(ctx context.Context, node string, csr []byte) (der []byte, err error)
}

// Redemption is a joiner that has proved its token.
type Redemption struct {
	Token  TokenID
	Node   string
	CSR    []byte // DER; names the node and is signed by its key
	Remote string // host:port it comes from
}

// Admission is what a new member gets.
type Admission struct {
	Cluster     string
	Certificate []byte   // DER
	CA          []byte   // DER
	Secret      Secret   // the cluster's
	GossipKeys  [][]byte // 16, 24 or 32 bytes each; the one in use first
	Settings    []byte   // opaque here, at most 512 KiB: seeds, store, sources
}

// admissionStatus says how a join ended; numbers are on the wire.
type admissionStatus uint8

const (
	admitOK            admissionStatus = 1
	admitToken         admissionStatus = 2
	admitExpired       admissionStatus = 3
	admitUsed          admissionStatus = 4
	admitNotMember     admissionStatus = 5
	admitInvalid       admissionStatus = 6
	admitUnavailable   admissionStatus = 7
	admitAlreadyMember admissionStatus = 8
)

func admissionErrors() []struct {
	status admissionStatus
	err    error
} {
	return []struct {
		status admissionStatus
		err    error
	}{
		{admitToken, ErrToken},
		{admitExpired, ErrTokenExpired},
		{admitUsed, ErrTokenUsed},
		{admitNotMember, ErrNotMember},
		{admitAlreadyMember, ErrAlreadyMember},
		{admitInvalid, ErrInvalid},
		{admitUnavailable, ErrUnavailable},
	}
}

// Join: the table stands in doc.go.
const (
	joinToken = 1
	joinNode  = 2
	joinProve = 3
	joinCSR   = 4
)

type joinRequest struct {
	token TokenID
	node  string
	proof []byte
	csr   []byte
}

func appendJoin(b []byte, j *joinRequest) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.bytes(joinToken, j.token[:])
	f.text(joinNode, j.node)
	f.bytes(joinProve, j.proof)
	f.bytes(joinCSR, j.csr)
	return sealFrame(f, at, frameJoin)
}

func parseJoin(body []byte) (*joinRequest, error) {
	var j joinRequest
	err := eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		switch typ {
		case joinToken:
			j.token = TokenID(v.fixed(len(j.token)))
		case joinNode:
			j.node = v.text(maxLabel)
		case joinProve:
			j.proof = append([]byte(nil), v.fixed(32)...)
		case joinCSR:
			j.csr = append([]byte(nil), v.bytes(maxCSR)...)
		default:
			return errUnknownField
		}
		return v.err
	})
	if err == nil && (!validLabel(j.node) || j.proof == nil || j.csr == nil) {
		err = fmt.Errorf("%w: a field is missing", ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return &j, nil
}

const renewCSR = 1

func appendRenewal(b, csr []byte) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.bytes(renewCSR, csr)
	return sealFrame(f, at, frameRenewal)
}

func parseRenewal(body []byte) (csr []byte, err error) {
	err = eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		if typ != renewCSR {
			return errUnknownField
		}
		csr = append([]byte(nil), v.bytes(maxCSR)...)
		return v.err
	})
	if err == nil && csr == nil {
		err = fmt.Errorf("%w: no certificate request", ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("renewal: %w", err)
	}
	return csr, nil
}

// Admission: the table stands in doc.go.
const (
	admStatus   = 1
	admDetail   = 2
	admCert     = 3
	admCA       = 4
	admCluster  = 5
	admSecret   = 6
	admKeys     = 7
	admSettings = 8
)

// verdict is an admission as it is on the wire.
type verdict struct {
	Admission
	status admissionStatus
	detail string
}

func appendAdmission(b []byte, a *verdict) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.u8(admStatus, uint8(a.status))
	f.text(admDetail, cut(a.detail, maxDetail))
	f.bytes(admCert, a.Certificate)
	f.bytes(admCA, a.CA)
	f.text(admCluster, a.Cluster)
	if a.Secret != (Secret{}) {
		f.bytes(admSecret, a.Secret[:])
	}
	var keys []byte
	for _, k := range a.GossipKeys {
		if len(k) == 0 || len(k) > 255 {
			return b, fmt.Errorf("%w: a gossip key of %d bytes", ErrInvalid, len(k))
		}
		keys = append(append(keys, byte(len(k))), k...)
	}
	f.bytes(admKeys, keys)
	f.bytes(admSettings, a.Settings)
	if len(a.Settings) > maxSettings || len(keys) > maxKeys || len(a.Certificate) > maxCert || len(a.CA) > maxCert || len(a.Cluster) > maxLabel {
		return b, fmt.Errorf("%w: a field of the admission", ErrTooLarge)
	}
	return sealFrame(f, at, frameAdmission)
}

func parseAdmission(body []byte) (*verdict, error) {
	var a verdict
	err := eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		switch typ {
		case admStatus:
			a.status = admissionStatus(v.u8())
		case admDetail:
			a.detail = v.text(maxDetail)
		case admCert:
			a.Certificate = append([]byte(nil), v.bytes(maxCert)...)
		case admCA:
			a.CA = append([]byte(nil), v.bytes(maxCert)...)
		case admCluster:
			a.Cluster = v.text(maxLabel)
		case admSecret:
			a.Secret = Secret(v.fixed(len(a.Secret)))
		case admKeys:
			a.GossipKeys = parseKeys(&v)
		case admSettings:
			a.Settings = append([]byte(nil), v.bytes(maxSettings)...)
		default:
			return errUnknownField
		}
		return v.err
	})
	if err == nil && a.status == 0 {
		err = fmt.Errorf("%w: no status", ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	return &a, nil
}

func parseKeys(v *value) [][]byte {
	var keys [][]byte
	for b := v.bytes(maxKeys); len(b) > 0; {
		n := int(b[0])
		if n == 0 || n > len(b)-1 {
			v.fail("a key is cut")
			return nil
		}
		keys = append(keys, append([]byte(nil), b[1:1+n]...))
		b = b[1+n:]
	}
	return keys
}

// serveJoins serves a connection on the join plane until it ends, which is soon.
func (e *Endpoint) serveJoins(ctx context.Context, conn *quic.Conn, state *tls.ConnectionState) {
	if !e.note(conn, "") {
		_ = conn.CloseWithError(codeDone, "the node shuts down")
		return
	}
	defer e.forget(conn)
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	s, err := conn.AcceptStream(ctx)
	if err != nil {
		_ = conn.CloseWithError(codeDone, "nothing was asked")
		return
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline) // a stream that takes none is broken: readFrame says so
	var buf []byte
	kind, msg, err := readFrame(s, &buf, frameJoin, frameRenewal)
	if err != nil {
		e.refusals.tell(conn.RemoteAddr(), alpnJoin, err)
		_ = conn.CloseWithError(codeProtocol, err.Error())
		return
	}
	a := &verdict{}
	select {
	case e.joins <- struct{}{}:
		node := ""
		if kind == frameJoin {
			node, err = e.admit(ctx, conn, state, msg, a)
		} else {
			node, err = e.renew(ctx, state, msg, a)
		}
		<-e.joins
		e.m.join.requestsIn.Inc()
		e.judged(a, conn.RemoteAddr(), node, err)
	default:
		a.status, a.detail = admitUnavailable, "too many nodes join at once"
	}
	out, err := appendAdmission(nil, a)
	if err != nil {
		e.log.Error("an admission cannot be sent", "error", err)
		out, err = appendAdmission(nil, &verdict{status: admitUnavailable, detail: "the cluster's settings are too large"})
	}
	if err == nil {
		_, err = s.Write(out)
	}
	if err = errors.Join(err, s.Close()); err == nil {
		select { // the joiner hangs up when it has the answer
		case <-conn.Context().Done():
		case <-ctx.Done():
		}
	}
	_ = conn.CloseWithError(codeDone, "")
}

// judged puts an outcome into the answer and the log.
func (e *Endpoint) judged(a *verdict, remote net.Addr, node string, err error) {
	if err == nil {
		a.status = admitOK
		e.log.Info("a node was given a certificate", "to", node, "remote", remote.String())
		return
	}
	e.refusals.tell(remote, alpnJoin, fmt.Errorf("node %q: %w", node, err))
	*a = verdict{status: admitUnavailable, detail: err.Error()}
	for _, p := range admissionErrors() {
		if errors.Is(err, p.err) {
			a.status = p.status
			break
		}
	}
}

// admit answers a join.
func (e *Endpoint) admit(ctx context.Context, conn *quic.Conn, state *tls.ConnectionState, msg []byte, a *verdict) (node string, err error) {
	j, err := parseJoin(msg)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := parseCSR(j.csr, j.node); err != nil {
		return j.node, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	v, err := e.cfg.Issuer.Verifier(ctx, j.token)
	if err != nil {
		return j.node, err
	}
	want, err := joinProof(state, v, j.token, j.node, j.csr)
	if err != nil {
		return j.node, err
	}
	if !hmac.Equal(want, j.proof) {
		return j.node, fmt.Errorf("%w: the secret is another", ErrToken)
	}
	got, err := e.cfg.Issuer.Redeem(ctx, Redemption{Token: j.token, Node: j.node, CSR: j.csr, Remote: conn.RemoteAddr().String()})
	if err != nil {
		return j.node, err
	}
	a.Admission = *got
	return j.node, nil
}

// renew answers a renewal: the certificate of the connection, which may be
// expired, says who asks; membership says whether it may.
func (e *Endpoint) renew(ctx context.Context, state *tls.ConnectionState, msg []byte, a *verdict) (node string, err error) {
	csr, err := parseRenewal(msg)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	node, err = e.id.expiredPeer(*state)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	if _, err := parseCSR(csr, node); err != nil {
		return node, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !e.cfg.Allowed(node) {
		return node, ErrNotMember
	}
	a.Certificate, err = e.cfg.Issuer.Renew(ctx, node, csr)
	return node, err
}

// ask sends one message on the join plane and reads the verdict.
func ask(ctx context.Context, conn *quic.Conn, msg []byte) (*verdict, error) {
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, streamError(conn, err)
	}
	defer abandon(s)
	defer context.AfterFunc(ctx, func() { abandon(s) })()
	if _, err = s.Write(msg); err == nil {
		err = s.Close()
	}
	if err != nil {
		return nil, late(ctx, streamError(conn, err))
	}
	var buf []byte
	_, body, err := readFrame(s, &buf, frameAdmission)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, late(ctx, streamError(conn, err))
	}
	a, err := parseAdmission(body)
	if err != nil {
		return nil, err
	}
	if a.status == admitOK {
		return a, nil
	}
	for _, p := range admissionErrors() {
		if p.status == a.status {
			return nil, fmt.Errorf("%w (the member says: %s)", p.err, a.detail)
		}
	}
	return nil, fmt.Errorf("%w: status %d: %s", ErrRefused, a.status, a.detail)
}

// Renew gets this node's next certificate from a member at host:port; node is
// its id, or empty for any member. It is made for Identity.Renew.
func (e *Endpoint) Renew(ctx context.Context, node, addr string, csr []byte) (der []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := e.dialQUIC(ctx, addr, alpnJoin, node)
	if err != nil {
		return nil, err
	}
	defer conn.CloseWithError(codeDone, "") //nolint:errcheck // the answer is here, or an error
	msg, err := appendRenewal(nil, csr)
	if err != nil {
		return nil, err
	}
	e.m.join.requestsOut.Inc()
	a, err := ask(ctx, conn, msg)
	if err != nil {
		return nil, fmt.Errorf("renew at %s: %w", addr, err)
	}
	return a.Certificate, nil
}

// Joining says how to join.
type Joining struct {
	Addr    string // host:port of a member
	Token   Token
	Node    string           // this node's id, a UUID
	Path    string           // of the identity file; what is there is replaced
	Network *Network         // nil: the machine's
	Now     func() time.Time // nil: time.Now
}

// Join proves the token to a member and writes the identity that it gets, on
// disk when it returns nil. The member is known by the token's pin before
// anything is sent. Repeating a Join that was cut, for the same node, takes no
// second use of the token. Errors: ErrToken, ErrTokenExpired, ErrTokenUsed,
// ErrCAChanged, ErrAlreadyMember, ErrUnavailable, ErrRefused, ErrUnreachable,
// ErrIdentity, or the context's.
func Join(ctx context.Context, j Joining) (*Identity, *Admission, error) {
	if j.Now == nil {
		j.Now = time.Now
	}
	id, a, err := join(ctx, &j)
	if err != nil {
		return nil, nil, fmt.Errorf("join at %s: %w", j.Addr, err)
	}
	return id, a, nil
}

func join(ctx context.Context, j *Joining) (_ *Identity, _ *Admission, err error) {
	if !validLabel(j.Node) {
		return nil, nil, fmt.Errorf("%w: node id %q", ErrInvalid, j.Node)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	udp, err := j.Network.orSystem().ListenPacket(":0")
	if err != nil {
		return nil, nil, err
	}
	tr := &quic.Transport{Conn: udp}
	defer func() { err = errors.Join(err, ignoreClosed(tr.Close()), ignoreClosed(udp.Close())) }()
	to, err := resolveUDP(ctx, j.Addr)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	conn, err := tr.Dial(ctx, to, joining(j.Token.Pin, j.Now), &quic.Config{
		HandshakeIdleTimeout: 5 * time.Second, MaxIdleTimeout: joinTimeout, MaxIncomingStreams: -1, MaxIncomingUniStreams: -1,
	})
	if err != nil {
		return nil, nil, connError(err)
	}
	defer conn.CloseWithError(codeDone, "") //nolint:errcheck // the answer is here, or an error
	return j.with(ctx, conn)
}

// with joins over a connection to a member of the token's cluster.
func (j *Joining) with(ctx context.Context, conn *quic.Conn) (*Identity, *Admission, error) {
	state := conn.ConnectionState().TLS
	ca := pinned(state.PeerCertificates, j.Token.Pin)
	cluster := state.PeerCertificates[0].URIs[0].Host
	key, csr, err := newCSR(cluster, j.Node)
	if err != nil {
		return nil, nil, err
	}
	v, err := j.Token.Verifier()
	if err != nil {
		return nil, nil, err
	}
	proof, err := joinProof(&state, v, j.Token.ID, j.Node, csr)
	if err != nil {
		return nil, nil, err
	}
	msg, err := appendJoin(nil, &joinRequest{j.Token.ID, j.Node, proof, csr})
	if err != nil {
		return nil, nil, err
	}
	a, err := ask(ctx, conn, msg)
	if err != nil {
		return nil, nil, err
	}
	if err := a.belongs(cluster, ca); err != nil {
		return nil, nil, err
	}
	id := newIdentity(j.Path, j.Now)
	if err := id.found(key, a.Certificate, ca.Raw, j.Node, a.Secret); err != nil {
		return nil, nil, err
	}
	return id, &a.Admission, nil
}

// belongs holds an admission against the cluster whose CA the token pins.
func (a *verdict) belongs(cluster string, ca *x509.Certificate) error {
	switch {
	case a.Cluster != cluster:
		return fmt.Errorf("%w: admitted to cluster %q by one of %q", ErrIdentity, a.Cluster, cluster)
	case string(a.CA) != string(ca.Raw):
		return fmt.Errorf("%w: the admission holds another", ErrCAChanged)
	case a.Secret == Secret{}:
		return fmt.Errorf("%w: no cluster secret", ErrMalformed)
	}
	return nil
}
