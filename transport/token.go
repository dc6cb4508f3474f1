package transport

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// TokenID names a join token; it is no secret.
type TokenID [16]byte

// String returns the id in hex.
func (id TokenID) String() string { return hex.EncodeToString(id[:]) }

// ParseTokenID reads what String returns.
func ParseTokenID(s string) (TokenID, error) {
	var id TokenID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("token id %q: %w: not %d bytes in hex", s, ErrMalformed, len(id))
	}
	return TokenID(b), nil
}

// Pin is the SHA-256 of a CA's SubjectPublicKeyInfo.
type Pin [sha256.Size]byte

// String returns the pin in hex.
func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// Token lets whoever holds it join a cluster, and lets him know that cluster.
// Its text is a secret.
type Token struct {
	ID      TokenID
	Secret  [16]byte
	Pin     Pin
	Expires time.Time // whole seconds; zero: never
	Uses    uint16    // 0: no bound
}

// NewToken makes a token for the cluster of that CA.
func NewToken(pin Pin, expires time.Time, uses uint16) Token {
	t := Token{Pin: pin, Expires: expires.UTC().Truncate(time.Second), Uses: uses}
	_, _ = rand.Read(t.ID[:]) // never fails
	_, _ = rand.Read(t.Secret[:])
	return t
}

const (
	tokenPrefix  = "dnj1"
	tokenVersion = 1
	tokenBytes   = 79
	verifierInfo = "desnode join verifier/1"
)

// base32 without case and signs survives every terminal, chat and double click.
func tokenEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// String returns the text that ParseToken reads: 131 letters and digits.
func (t Token) String() string {
	b := make([]byte, 0, tokenBytes)
	b = append(b, tokenVersion)
	b = append(b, t.ID[:]...)
	b = append(b, t.Secret[:]...)
	b = append(b, t.Pin[:]...)
	var expires int64
	if !t.Expires.IsZero() {
		expires = t.Expires.Unix()
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(expires))
	b = binary.LittleEndian.AppendUint16(b, t.Uses)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	return tokenPrefix + tokenEncoding().EncodeToString(b)
}

// ParseToken reads a token's text, white space around it ignored. Errors:
// ErrToken with what is wrong with it, ErrVersion.
func ParseToken(text string) (Token, error) {
	var t Token
	s := strings.ToLower(strings.TrimSpace(text))
	body, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		if strings.HasPrefix(s, "dnj") {
			return t, fmt.Errorf("join token: %w: made by another version of desnode", ErrVersion)
		}
		return t, fmt.Errorf("%w: it does not start with %s", ErrToken, tokenPrefix)
	}
	want := tokenEncoding().EncodedLen(tokenBytes)
	if len(body) != want {
		return t, fmt.Errorf("%w: it has %d characters, not %d: was it copied whole?", ErrToken, len(s), want+len(tokenPrefix))
	}
	b, err := tokenEncoding().DecodeString(body)
	if err != nil || tokenEncoding().EncodeToString(b) != body {
		return t, fmt.Errorf("%w: a character that no token has", ErrToken)
	}
	if crc32.Checksum(b[:tokenBytes-4], castagnoli()) != binary.LittleEndian.Uint32(b[tokenBytes-4:]) {
		return t, fmt.Errorf("%w: a character is not as it was given out", ErrToken)
	}
	if b[0] != tokenVersion {
		return t, fmt.Errorf("join token: %w: version %d", ErrVersion, b[0])
	}
	t.ID, t.Secret, t.Pin = TokenID(b[1:]), [16]byte(b[17:]), Pin(b[33:])
	if expires := int64(binary.LittleEndian.Uint64(b[65:])); expires != 0 {
		t.Expires = time.Unix(expires, 0).UTC()
	}
	t.Uses = binary.LittleEndian.Uint16(b[73:])
	return t, nil
}

// Verifier is what the cluster keeps of a token to know its secret again.
type Verifier [sha256.Size]byte

// Verifier returns what the cluster keeps of the token. Whoever has it can use
// the token, but the token's text does not follow from it.
func (t Token) Verifier() (Verifier, error) {
	b, err := hkdf.Key(sha256.New, t.Secret[:], nil, verifierInfo, sha256.Size)
	if err != nil {
		return Verifier{}, fmt.Errorf("derive the token's verifier: %w", err)
	}
	return Verifier(b), nil
}

const exporterLabel = "EXPORTER-desnode-join/1"

// joinProof proves the knowledge of a token on one TLS connection, for one node
// and one certificate request.
func joinProof(state *tls.ConnectionState, v Verifier, id TokenID, node string, csr []byte) ([]byte, error) {
	h := sha256.New()
	h.Write(id[:])
	h.Write([]byte{byte(len(node))})
	h.Write([]byte(node))
	h.Write(csr)
	bound, err := state.ExportKeyingMaterial(exporterLabel, h.Sum(nil), 32)
	if err != nil {
		return nil, fmt.Errorf("bind the proof to the connection: %w", err)
	}
	mac := hmac.New(sha256.New, v[:])
	mac.Write(bound)
	return mac.Sum(nil), nil
}
