package transport

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func fixedToken() Token {
	t := Token{Expires: time.Unix(1_700_000_000, 0).UTC(), Uses: 3}
	for i := range t.ID {
		t.ID[i], t.Secret[i] = byte(i), byte(0x40+i)
	}
	for i := range t.Pin {
		t.Pin[i] = byte(0xff - i)
	}
	return t
}

// goldenToken is the text of fixedToken; it never changes.
const goldenToken = "dnj1aeaacaqdaqcqmbyibefawdanbyhuaqkcincekrshjbeuus2mjvhe77767x6px6xz7d37n5pu6pzpd4hp53w6z27k5huopzxf4tr6fypaadyvgziaaaaaaaya6svdwgy"

func TestToken(t *testing.T) {
	tok := fixedToken()
	text := tok.String()
	if text != goldenToken {
		t.Errorf("the text is %s", text)
	}
	for _, s := range []string{text, "  " + text + "\n", strings.ToUpper(text)} {
		if got, err := ParseToken(s); err != nil || got != tok {
			t.Errorf("%q is %+v, %v", s, got, err)
		}
	}
	forever := NewToken(tok.Pin, time.Time{}, 0)
	if got, err := ParseToken(forever.String()); err != nil || got != forever {
		t.Errorf("a token without bounds: %+v, %v", got, err)
	}
	id, err := ParseTokenID(tok.ID.String())
	if err != nil || id != tok.ID {
		t.Errorf("id %v, %v", id, err)
	}
	for n := range text {
		if _, err := ParseToken(text[:n]); !errors.Is(err, ErrToken) && !errors.Is(err, ErrVersion) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		for _, c := range []byte("a7q-ü") {
			if text[n] == c {
				continue
			}
			b := []byte(text)
			b[n] = c
			if got, err := ParseToken(string(b)); !errors.Is(err, ErrToken) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%q at %d: %+v, %v", c, n, got, err)
			}
		}
	}
	if _, err := ParseToken("dnj2abc"); !errors.Is(err, ErrVersion) {
		t.Errorf("a token of version 2: %v", err)
	}
}

func TestVerifierHidesTheSecret(t *testing.T) {
	tok := fixedToken()
	a, err := tok.Verifier()
	if err != nil {
		t.Fatal(err)
	}
	tok.Secret[0] ^= 1
	b, err := tok.Verifier()
	if err != nil || a == b || strings.Contains(string(a[:]), string(tok.Secret[:4])) {
		t.Errorf("verifiers %x and %x, %v", a, b, err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(goldenToken)
	f.Add("dnj1")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrToken) && !errors.Is(err, ErrVersion) {
				t.Fatalf("an undocumented error: %v", err)
			}
			return
		}
		if got := tok.String(); !strings.EqualFold(got, strings.TrimSpace(text)) {
			t.Fatalf("%q reads as %q", text, got)
		}
	})
}
