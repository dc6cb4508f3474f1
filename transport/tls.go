package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"time"
)

// ALPN names of the planes.
const (
	alpnRead = "desnode-read/1"
	alpnCall = "desnode-call/1"
	alpnJoin = "desnode-join/1"
	alpnRaft = "desnode-raft/1"
)

// base is common to all planes: the certificate of this moment, no resumption.
func (i *Identity) base(alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
		Time:                   i.now,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate(), nil },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate(), nil },
	}
}

// dialling returns what to dial node with; an empty node is any of the cluster.
func (i *Identity) dialling(alpn, node string) *tls.Config {
	c := i.base(alpn)
	c.InsecureSkipVerify = true // #nosec G402 -- names in certificates are URIs, which crypto/tls does not check: VerifyConnection does, and the chain
	c.VerifyConnection = func(s tls.ConnectionState) error {
		got, err := i.peer(s, x509.ExtKeyUsageServerAuth, i.now())
		if err == nil && node != "" && got != node {
			err = badIdentity(reasonNode, "it is node %s, not %s", got, node)
		}
		return err
	}
	return c
}

// refusal is told of every handshake that fails on the peer's certificate.
type refusal func(remote net.Addr, plane string, err error)

// accepting returns what to accept members with. Missing certificates are
// refused by VerifyConnection too, so that they are told of.
func (i *Identity) accepting(alpn string, remote net.Addr, refused refusal) *tls.Config {
	c := i.base(alpn)
	c.ClientAuth = tls.RequestClientCert
	c.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := i.peer(s, x509.ExtKeyUsageClientAuth, i.now())
		if err != nil {
			refused(remote, alpn, err)
		}
		return err
	}
	return c
}

// admitting returns what to accept joiners and renewing nodes with: without a
// certificate, or with one whose time may be over.
func (i *Identity) admitting(remote net.Addr, refused refusal) *tls.Config {
	c := i.base(alpnJoin)
	c.ClientAuth = tls.RequestClientCert
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return nil
		}
		_, err := i.expiredPeer(s)
		if err != nil {
			refused(remote, alpnJoin, err)
		}
		return err
	}
	return c
}

// planes returns the configuration of a QUIC listener.
func (i *Identity) planes(refused refusal) *tls.Config {
	c := i.base(alpnRead)
	c.NextProtos = []string{alpnRead, alpnCall, alpnJoin}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		remote := hello.Conn.RemoteAddr()
		switch {
		case slices.Contains(hello.SupportedProtos, alpnRead):
			return i.accepting(alpnRead, remote, refused), nil
		case slices.Contains(hello.SupportedProtos, alpnCall):
			return i.accepting(alpnCall, remote, refused), nil
		case slices.Contains(hello.SupportedProtos, alpnJoin):
			return i.admitting(remote, refused), nil
		}
		err := fmt.Errorf("%w: none of the planes %q is known", ErrVersion, hello.SupportedProtos)
		refused(remote, "", err)
		return nil, err
	}
	return c
}

// peer returns the node at the other end of a connection.
func (i *Identity) peer(s tls.ConnectionState, usage x509.ExtKeyUsage, at time.Time) (string, error) {
	if len(s.PeerCertificates) == 0 {
		return "", badIdentity(reasonNoCertificate, "it has no certificate")
	}
	st := i.state.Load()
	if err := checkChain(s.PeerCertificates[0], st.ca, at, usage); err != nil {
		return "", err
	}
	return nodeOf(s.PeerCertificates[0], st.cluster)
}

// expiredPeer is peer for a renewal: neither end of the certificate's time
// counts.
func (i *Identity) expiredPeer(s tls.ConnectionState) (string, error) {
	at := i.now()
	if len(s.PeerCertificates) > 0 {
		leaf := s.PeerCertificates[0]
		switch {
		case at.After(leaf.NotAfter):
			at = leaf.NotAfter
		case at.Before(leaf.NotBefore):
			at = leaf.NotBefore
		}
	}
	return i.peer(s, x509.ExtKeyUsageClientAuth, at)
}

// joining returns what to dial with a token: the CA must be among what the
// member shows and match the pin, then it must have signed the member.
func joining(pin Pin, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpnJoin},
		Time:               now,
		InsecureSkipVerify: true, // #nosec G402 -- the CA is known by its pin alone, which VerifyConnection checks
		VerifyConnection: func(s tls.ConnectionState) error {
			ca := pinned(s.PeerCertificates, pin)
			if ca == nil {
				return ErrCAChanged
			}
			leaf := s.PeerCertificates[0]
			if _, err := nodeOf(leaf, ""); err != nil {
				return err
			}
			return checkChain(leaf, ca, now(), x509.ExtKeyUsageServerAuth)
		},
	}
}

// pinned finds the CA of a pin behind the first certificate.
func pinned(chain []*x509.Certificate, pin Pin) *x509.Certificate {
	for n, c := range chain {
		if n > 0 && c.IsCA && pinOf(c) == pin {
			return c
		}
	}
	return nil
}
