package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
)

const (
	// certLifetime is how long a node's certificate is good.
	certLifetime = 365 * 24 * time.Hour
	// caLifetime is beyond the life of any disk: a CA that expires takes the
	// whole cluster with it, and membership guards what expiry would.
	caLifetime = 50 * 365 * 24 * time.Hour
	// clockSlack is how far a node's clock may be behind the issuer's. A clock
	// that is set a day ahead, and put right again, is the common mistake: what was
	// issued meanwhile must be good at once.
	clockSlack = 48 * time.Hour
	// uriScheme is that of a node's name in its certificate.
	uriScheme = "desnode"
)

// Authority is a cluster's CA with its key. Its methods may be called at once.
type Authority struct {
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// NewAuthority makes the CA of a new cluster.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	if !validLabel(cluster) {
		return nil, fmt.Errorf("make the CA: %w: cluster id %q", ErrInvalid, cluster)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "desnode CA " + cluster},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(caLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		URIs:                  []*url.URL{{Scheme: uriScheme, Host: cluster}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	return &Authority{cluster, cert, key}, nil
}

// Certificate returns the CA's certificate, DER.
func (a *Authority) Certificate() []byte { return a.cert.Raw }

// Pin returns what a join token says of the CA.
func (a *Authority) Pin() Pin { return pinOf(a.cert) }

func pinOf(ca *x509.Certificate) Pin { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// Issue signs a node's certificate request: good for a year from now. The
// request must be signed by the key it holds and name that very node. Whether
// the node may have a certificate is the caller's to know.
func (a *Authority) Issue(csr []byte, node string, now time.Time) (der []byte, err error) {
	req, err := parseCSR(csr, node)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: node},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(certLifetime),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{nodeURI(a.cluster, node)},
	}
	der, err = x509.CreateCertificate(rand.Reader, template, a.cert, req.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", node, err)
	}
	return der, nil
}

// parseCSR reads a certificate request and holds it against the node's id. The
// cluster in its URI is empty when a joiner does not know it yet.
func parseCSR(csr []byte, node string) (*x509.CertificateRequest, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("certificate request: %w: %d bytes", ErrTooLarge, len(csr))
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", ErrMalformed, err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", ErrIdentity, err)
	}
	if k, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("certificate request: %w: not a key on P-256", ErrIdentity)
	}
	if !validLabel(node) || len(req.URIs) != 1 || req.URIs[0].Scheme != uriScheme || req.URIs[0].Path != "/"+node {
		return nil, fmt.Errorf("certificate request: %w: it does not name node %q", ErrIdentity, node)
	}
	return req, nil
}

// newCSR makes a node's next key and the request for its certificate.
func newCSR(cluster, node string) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the node's key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: node}, URIs: []*url.URL{nodeURI(cluster, node)},
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate request: %w", err)
	}
	return key, csr, nil
}

// Seal returns the CA's key under the cluster's secret, for a place that all
// members read. The layout stands in doc.go.
func (a *Authority) Seal(s Secret) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("seal the CA key: %w", err)
	}
	return s.seal(sealInfoCA, sealData(a.cluster, a.Pin()), plain)
}

// OpenAuthority opens what Seal returned. Errors: ErrSealed, ErrVersion,
// ErrMalformed.
func OpenAuthority(cluster string, ca, sealed []byte, s Secret) (*Authority, error) {
	cert, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w: %w", ErrMalformed, err)
	}
	plain, err := s.open(sealInfoCA, sealData(cluster, pinOf(cert)), sealed)
	if err != nil {
		return nil, fmt.Errorf("the sealed CA key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, fmt.Errorf("the CA key: %w: %w", ErrMalformed, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the CA key: %w: it is not the certificate's", ErrMalformed)
	}
	return &Authority{cluster, cert, key}, nil
}

func sealData(cluster string, pin Pin) []byte {
	return append([]byte(sealInfoCA+cluster), pin[:]...)
}

// serial returns a random serial number of 127 bits.
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// validLabel reports whether s may be a cluster's or node's id: 1 to 63 of
// a-z, 0-9 and -, as a UUID is.
func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-'
}

const maxLabel = 63

func nodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: cluster, Path: "/" + node}
}

// nodeOf returns the node that a certificate names, which must be of the
// cluster; an empty cluster stands for any.
func nodeOf(cert *x509.Certificate, cluster string) (node string, err error) {
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
		return "", badIdentity(reasonNode, "the certificate names no node")
	}
	u := cert.URIs[0]
	node = strings.TrimPrefix(u.Path, "/")
	if !validLabel(node) || !validLabel(u.Host) || u.String() != nodeURI(u.Host, node).String() {
		return "", badIdentity(reasonNode, "the certificate names %q", u)
	}
	if cluster != "" && u.Host != cluster {
		return "", badIdentity(reasonNode, "node %s is of cluster %s", node, u.Host)
	}
	return node, nil
}

// checkChain holds a peer's certificate against the CA at a time.
func checkChain(leaf, ca *x509.Certificate, at time.Time, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err == nil {
		return nil
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return badIdentity(reasonExpired, "its certificate is good from %s to %s, and it is %s here",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	return badIdentity(reasonCertificate, "%w", err)
}
