package transport

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// sealedSecret is that of the envelopes in testdata/sealed, which stay readable
// for ever: ca-key was made before there were other purposes.
func sealedSecret() Secret {
	var s Secret
	for i := range s {
		s[i] = byte(i)
	}
	return s
}

func TestSealedVectorsOpen(t *testing.T) {
	s := sealedSecret()
	plain, err := s.Open("gossip-keys", testCluster, goldenHex(t, "sealed", "gossip-keys"))
	if err != nil || string(plain) != "the keys" {
		t.Errorf("gossip keys: %q, %v", plain, err)
	}
	ca, err := OpenAuthority(testCluster, goldenHex(t, "sealed", "ca-certificate"), goldenHex(t, "sealed", "ca-key"), s)
	if err != nil || !bytes.Equal(ca.Certificate(), goldenHex(t, "sealed", "ca-certificate")) {
		t.Errorf("the CA's key: %v", err)
	}
}

func TestSeal(t *testing.T) {
	s := sealedSecret()
	for _, plain := range [][]byte{nil, []byte("x"), pattern(100_000)} {
		sealed, err := s.Seal("gossip-keys", testCluster, plain)
		if err != nil || len(sealed) != sealOverhead+len(plain) || len(plain) > 16 && bytes.Contains(sealed, plain[:16]) {
			t.Fatalf("%d bytes sealed to %d, %v", len(plain), len(sealed), err)
		}
		got, err := s.Open("gossip-keys", testCluster, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes opened to %d, %v", len(plain), len(got), err)
		}
		again, err := s.Seal("gossip-keys", testCluster, plain)
		if err != nil || bytes.Equal(again, sealed) {
			t.Errorf("sealed twice alike: %v", err)
		}
	}
}

// What was sealed for one purpose, cluster and secret opens for no other, and
// the CA's key is a purpose of its own.
func TestSealedForAnother(t *testing.T) {
	s := sealedSecret()
	sealed := goldenHex(t, "sealed", "gossip-keys")
	for _, tt := range []struct {
		name             string
		s                Secret
		purpose, cluster string
		sealed           []byte
		want             error
	}{
		{"another secret", NewSecret(), "gossip-keys", testCluster, sealed, ErrSealed},
		{"another purpose", s, "gossip-key", testCluster, sealed, ErrSealed},
		{"another cluster", s, "gossip-keys", "c2", sealed, ErrSealed},
		{"the CA's key", s, "ca-key", testCluster, goldenHex(t, "sealed", "ca-key"), ErrSealed},
		{"no purpose", s, "", testCluster, sealed, ErrInvalid},
		{"a purpose too long", s, strings.Repeat("p", maxPurpose+1), testCluster, sealed, ErrInvalid},
		{"no cluster", s, "gossip-keys", "", sealed, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.s.Open(tt.purpose, tt.cluster, tt.sealed); !errors.Is(err, tt.want) || got != nil {
				t.Errorf("opened as %q, %v", got, err)
			}
		})
	}
	if _, err := s.Seal("Gossip", testCluster, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("sealed for a purpose that is none: %v", err)
	}
	if _, err := OpenAuthority(testCluster, goldenHex(t, "sealed", "ca-certificate"), sealed, s); !errors.Is(err, ErrSealed) {
		t.Errorf("gossip keys opened as the CA's: %v", err)
	}
}

func TestSealedBytesChanged(t *testing.T) {
	s, sealed := sealedSecret(), goldenHex(t, "sealed", "gossip-keys")
	for n := range sealed {
		for bit := range 8 {
			flipped := bytes.Clone(sealed)
			flipped[n] ^= 1 << bit
			want := ErrSealed
			if n < 2 {
				want = ErrVersion
			}
			if _, err := s.Open("gossip-keys", testCluster, flipped); !errors.Is(err, want) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, n, err)
			}
		}
		want := ErrSealed
		if n < sealOverhead {
			want = ErrMalformed
		}
		if _, err := s.Open("gossip-keys", testCluster, sealed[:n]); !errors.Is(err, want) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func FuzzSealed(f *testing.F) {
	s := sealedSecret()
	sealed := goldenHex(f, "sealed", "gossip-keys")
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := s.Open("gossip-keys", testCluster, b)
		switch {
		case err == nil:
			if !bytes.Equal(b, sealed) {
				t.Fatalf("%x opened as %q", b, plain)
			}
		case !errors.Is(err, ErrSealed) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrMalformed):
			t.Fatalf("an undocumented error: %v", err)
		}
	})
}
