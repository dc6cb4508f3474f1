package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Identity is who a node is: its certificate and key, its cluster's CA and
// secret, and the key of its stateless resets. One file holds them all, so that
// no crash leaves parts that do not belong together. Its methods may be called
// at once; what they return follows the certificate's renewal.
type Identity struct {
	path string
	now  func() time.Time

	mu      sync.Mutex // held while the file and with it the state changes
	state   atomic.Pointer[identityState]
	renewed chan struct{} // takes a word when the certificate was replaced
}

// identityState is immutable.
type identityState struct {
	cluster, node string
	ca            *x509.Certificate
	secret        Secret
	reset         [32]byte
	cert          tls.Certificate // Leaf is set; the chain holds the CA
}

// PEM blocks of an identity file, in this order.
const (
	pemKey    = "PRIVATE KEY"
	pemCert   = "CERTIFICATE"            // the node's, then the CA's
	pemSecret = "DESNODE CLUSTER SECRET" //nolint:gosec // G101: the name of a block, not a secret
	pemReset  = "DESNODE STATELESS RESET KEY"
)

// FormIdentity makes the identity of a new cluster's first node and writes it
// to path, durably, mode 0600. An identity that is there already is replaced.
// now nil is time.Now.
func FormIdentity(path string, a *Authority, node string, s Secret, now func() time.Time) (*Identity, error) {
	key, csr, err := newCSR(a.cluster, node)
	if err != nil {
		return nil, err
	}
	i := newIdentity(path, now)
	der, err := a.Issue(csr, node, i.now())
	if err != nil {
		return nil, err
	}
	return i, i.found(key, der, a.cert.Raw, node, s)
}

// LoadIdentity reads the identity at path. Errors: fs.ErrNotExist, ErrMalformed.
// An expired certificate is no error: it can be renewed.
func LoadIdentity(path string, now func() time.Time) (*Identity, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the node's identity: %w", err)
	}
	st, err := parseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	i := newIdentity(path, now)
	i.state.Store(st)
	return i, nil
}

func newIdentity(path string, now func() time.Time) *Identity {
	if now == nil {
		now = time.Now
	}
	return &Identity{path: path, now: now, renewed: make(chan struct{}, 1)}
}

// found writes the first state of an identity.
func (i *Identity) found(key *ecdsa.PrivateKey, der, ca []byte, node string, s Secret) error {
	st := &identityState{secret: s}
	_, _ = rand.Read(st.reset[:]) // never fails
	var err error
	if st.ca, err = x509.ParseCertificate(ca); err != nil {
		return fmt.Errorf("the CA's certificate: %w: %w", ErrMalformed, err)
	}
	if err := st.take(key, der); err != nil {
		return err
	}
	if st.node != node {
		return fmt.Errorf("%w: a certificate of node %s for node %s", ErrIdentity, st.node, node)
	}
	if err := st.good(i.now()); err != nil {
		return err
	}
	return i.store(st)
}

// take sets key and certificate, which say what node and cluster are.
func (st *identityState) take(key *ecdsa.PrivateKey, der []byte) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("the node's certificate: %w: %w", ErrMalformed, err)
	}
	if st.node, err = nodeOf(leaf, ""); err != nil {
		return err
	}
	st.cluster = leaf.URIs[0].Host
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return fmt.Errorf("%w: the certificate of node %s is for another key", ErrIdentity, st.node)
	}
	st.cert = tls.Certificate{Certificate: [][]byte{der, st.ca.Raw}, PrivateKey: key, Leaf: leaf}
	return nil
}

// good holds the certificate against the CA.
func (st *identityState) good(at time.Time) error {
	return checkChain(st.cert.Leaf, st.ca, at, x509.ExtKeyUsageClientAuth)
}

// store makes st the state, on disk first. Its callers hold mu or are alone.
func (i *Identity) store(st *identityState) error {
	key, err := x509.MarshalPKCS8PrivateKey(st.cert.PrivateKey)
	if err != nil {
		return fmt.Errorf("store the node's key: %w", err)
	}
	var b bytes.Buffer
	for _, block := range []pem.Block{
		{Type: pemKey, Bytes: key},
		{Type: pemCert, Bytes: st.cert.Certificate[0]},
		{Type: pemCert, Bytes: st.ca.Raw},
		{Type: pemSecret, Bytes: st.secret[:]},
		{Type: pemReset, Bytes: st.reset[:]},
	} {
		_ = pem.Encode(&b, &block) // a buffer takes everything
	}
	if err := writeDurably(i.path, b.Bytes()); err != nil {
		return fmt.Errorf("store the node's identity: %w", err)
	}
	i.state.Store(st)
	return nil
}

func parseIdentity(b []byte) (*identityState, error) {
	var parts [5][]byte
	for n, want := range []string{pemKey, pemCert, pemCert, pemSecret, pemReset} {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != want {
			return nil, fmt.Errorf("not a node's identity: %w: no %s in place %d", ErrMalformed, want, n+1)
		}
		parts[n], b = block.Bytes, rest
	}
	st := &identityState{}
	if copy(st.secret[:], parts[3]) != len(parts[3]) || copy(st.reset[:], parts[4]) != len(parts[4]) ||
		len(parts[3]) != len(st.secret) || len(parts[4]) != len(st.reset) || len(bytes.TrimSpace(b)) > 0 {
		return nil, fmt.Errorf("not a node's identity: %w: a secret of the wrong length, or more after it", ErrMalformed)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(parts[0])
	if err != nil {
		return nil, fmt.Errorf("the node's key: %w: %w", ErrMalformed, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the node's key: %w: not an ECDSA key", ErrMalformed)
	}
	if st.ca, err = x509.ParseCertificate(parts[2]); err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w: %w", ErrMalformed, err)
	}
	if err := st.take(key, parts[1]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := st.good(st.cert.Leaf.NotAfter); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return st, nil
}

// Node returns the node's id.
func (i *Identity) Node() string { return i.state.Load().node }

// Cluster returns the cluster's id.
func (i *Identity) Cluster() string { return i.state.Load().cluster }

// CA returns the CA's certificate, DER.
func (i *Identity) CA() []byte { return i.state.Load().ca.Raw }

// Pin returns what a join token says of the CA.
func (i *Identity) Pin() Pin { return pinOf(i.state.Load().ca) }

// Secret returns the cluster's secret.
func (i *Identity) Secret() Secret { return i.state.Load().secret }

// Expires returns the end of the certificate's time.
func (i *Identity) Expires() time.Time { return i.state.Load().cert.Leaf.NotAfter }

// RenewAt returns when the certificate should be renewed: after a third of its
// time, so that two thirds are left to try again; now when its time has not
// begun, since a clock that was far ahead has issued it.
func (i *Identity) RenewAt() time.Time {
	leaf := i.state.Load().cert.Leaf
	if now := i.now(); now.Before(leaf.NotBefore) {
		return now
	}
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// certificate returns what handshakes of this moment present.
func (i *Identity) certificate() *tls.Certificate { return &i.state.Load().cert }

// Renew makes a new key, has ask get a certificate for it, and puts both in the
// place of the old ones, on disk first. Connections that stand stay, new ones
// present the new certificate. ask is Endpoint.Renew with a member of the
// caller's choice or, on a node that can open the CA key, Authority.Issue.
func (i *Identity) Renew(ctx context.Context, ask func(ctx context.Context, csr []byte) (der []byte, err error)) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.state.Load()
	key, csr, err := newCSR(old.cluster, old.node)
	if err != nil {
		return err
	}
	der, err := ask(ctx, csr)
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	st := &identityState{ca: old.ca, secret: old.secret, reset: old.reset}
	if err := st.take(key, der); err != nil {
		return err
	}
	if st.node != old.node || st.cluster != old.cluster {
		return fmt.Errorf("renew the certificate: %w: got one of %s/%s", ErrIdentity, st.cluster, st.node)
	}
	if err := st.good(i.now()); err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	if err := i.store(st); err != nil {
		return err
	}
	select {
	case i.renewed <- struct{}{}:
	default:
	}
	return nil
}

const (
	// renewRetry is how long Keep waits after a failure.
	renewRetry = 10 * time.Minute
	// renewLook is how often Keep looks at the clock, which may be set, and which
	// the time that passes then says nothing of.
	renewLook = 10 * time.Minute
)

// nextLook is how long Keep waits until it looks whether to renew.
func (i *Identity) nextLook() time.Duration { return min(i.RenewAt().Sub(i.now()), renewLook) }

// Keep renews the certificate when its time has come, until ctx ends. It starts
// no goroutine; one Keep may run at a time. A failure is logged and tried again.
func (i *Identity) Keep(ctx context.Context, log *slog.Logger, ask func(ctx context.Context, csr []byte) (der []byte, err error)) {
	timer := time.NewTimer(i.nextLook())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-i.renewed:
			timer.Reset(i.nextLook())
		case <-timer.C:
			if wait := i.nextLook(); wait > 0 {
				timer.Reset(wait)
				continue
			}
			if err := i.Renew(ctx, ask); err != nil {
				if ctx.Err() == nil {
					log.Warn("the node's certificate could not be renewed", "error", err, "expires", i.Expires(), "again_in", renewRetry)
				}
				timer.Reset(renewRetry)
				continue
			}
			log.Info("the node's certificate was renewed", "expires", i.Expires())
		}
	}
}
