package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
)

// Secret is what the members of a cluster share; it opens the CA key and what
// else the state holds sealed. It is handed over at the join and never written
// to the object store.
type Secret [32]byte

// NewSecret chooses a cluster's secret.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// An envelope:
//
//	 0   1  version, 1
//	 1   1  algorithm, 1: AES-256-GCM
//	 2  32  salt
//	34  12  nonce
//	46   …  ciphertext and tag
const (
	sealVersion   = 1
	sealAES256GCM = 1
	sealSalt      = 32
	sealHeader    = 2 + sealSalt
	sealOverhead  = sealHeader + 12 + 16

	sealInfoCA     = "desnode ca key/1"
	sealInfoPrefix = "desnode sealed/1 "
	maxPurpose     = 32
)

// Seal encrypts plain under the cluster's secret for one purpose, for a place
// that others may read: the state, the object store. A purpose is 1 to 32 of a-z
// and -; what was sealed for one, or in one cluster, opens for no other. Errors:
// ErrInvalid.
func (s Secret) Seal(purpose, cluster string, plain []byte) ([]byte, error) {
	info, err := sealInfo(purpose, cluster)
	if err != nil {
		return nil, err
	}
	return s.seal(info, []byte(info+"/"+cluster), plain)
}

// Open returns what Seal was given. Errors: ErrSealed for another secret,
// purpose or cluster and for changed bytes, ErrVersion, ErrMalformed, ErrInvalid.
func (s Secret) Open(purpose, cluster string, sealed []byte) ([]byte, error) {
	info, err := sealInfo(purpose, cluster)
	if err != nil {
		return nil, err
	}
	plain, err := s.open(info, []byte(info+"/"+cluster), sealed)
	if err != nil {
		return nil, fmt.Errorf("open sealed %s: %w", purpose, err)
	}
	return plain, nil
}

func sealInfo(purpose, cluster string) (string, error) {
	if !validWord(purpose, maxPurpose) {
		return "", fmt.Errorf("%w: purpose %q", ErrInvalid, purpose)
	}
	if !validLabel(cluster) {
		return "", fmt.Errorf("%w: cluster id %q", ErrInvalid, cluster)
	}
	return sealInfoPrefix + purpose, nil
}

// validWord reports whether s is 1 to limit bytes of a-z and -.
func validWord(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// seal makes an envelope: info chooses the key, data is held against the bytes.
func (s Secret) seal(info string, data, plain []byte) ([]byte, error) {
	b := make([]byte, sealHeader, sealOverhead+len(plain))
	b[0], b[1] = sealVersion, sealAES256GCM
	_, _ = rand.Read(b[2:]) // never fails
	aead, err := s.cipher(info, b[2:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(b, nil, plain, data), nil //nolint:gosec // G407: the cipher chooses the nonce, none is passed
}

func (s Secret) open(info string, data, sealed []byte) ([]byte, error) {
	switch {
	case len(sealed) < 2:
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(sealed))
	case sealed[0] != sealVersion || sealed[1] != sealAES256GCM:
		return nil, fmt.Errorf("%w: an envelope of version %d, algorithm %d", ErrVersion, sealed[0], sealed[1])
	case len(sealed) < sealOverhead:
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(sealed))
	}
	aead, err := s.cipher(info, sealed[2:sealHeader])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed[sealHeader:], data)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// cipher derives a key of its own for each envelope, so that no number of them
// wears out a nonce.
func (s Secret) cipher(info string, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, s[:], salt, info, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of an envelope: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("cipher of an envelope: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
