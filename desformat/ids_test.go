package desformat

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestRangeText(t *testing.T) {
	for _, tc := range []struct {
		name  string
		value uint32
		bits  uint8
		text  string
		key   string
	}{
		{"whole space", 0, 0, "0/0", "0-0"},
		{"half", 1, 1, "1/1", "1-1"},
		{"byte", 0x3a, 8, "3a/8", "3a-8"},
		{"odd bits", 0x05, 9, "005/9", "005-9"},
		{"longest", 0xdeadbeef, 32, "deadbeef/32", "deadbeef-32"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := NewRange(tc.value, tc.bits)
			if err != nil {
				t.Fatal(err)
			}
			if r.String() != tc.text || r.Key() != tc.key {
				t.Errorf("got %s and %s, want %s and %s", r, r.Key(), tc.text, tc.key)
			}
			for _, s := range []string{tc.text, tc.key} {
				if back, err := ParseRange(s); err != nil || back != r {
					t.Errorf("ParseRange(%q) = %v, %v", s, back, err)
				}
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "0", "/", "0/", "3a/4", "3A/8", "03a/8", "0/33", "g/4", "-1/4", "3a/8/1"} {
		if _, err := ParseRange(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseRange(%q) = %v, want ErrBadID", s, err)
		}
	}
	for _, s := range []string{"", "1", "1-", "-1", "01-2", "1-2-3", "+1-2"} {
		if _, err := ParseToken(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseToken(%q) = %v, want ErrBadID", s, err)
		}
	}
	for _, s := range []string{"", "ab", "ABCDEF00000000000000000000000000"} {
		if _, err := ParsePackID(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParsePackID(%q) = %v, want ErrBadID", s, err)
		}
	}
	for _, s := range []string{"", "packs/0-0/1-2.des", "packs/0-0/1-2-00.des", "other/0-0/1-2-000102030405060708090a0b0c0d0e0f.des"} {
		if _, _, _, err := ParsePackKey(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParsePackKey(%q) = %v, want ErrBadID", s, err)
		}
	}
}

func drawRange(t *rapid.T) Range {
	bits := rapid.Uint8Range(0, MaxRangeBits).Draw(t, "bits")
	v := uint32(uint64(rapid.Uint32().Draw(t, "value")) >> (32 - bits))
	r, err := NewRange(v, bits)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRangeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawRange(t), drawRange(t)
		overlap := a.First() <= b.Last() && b.First() <= a.Last()
		if a.Overlaps(b) != overlap {
			t.Fatalf("%s overlaps %s: got %v", a, b, !overlap)
		}
		if a.Bits() < MaxRangeBits {
			lo, hi := a.Halves()
			if lo.First() != a.First() || hi.Last() != a.Last() || lo.Last()+1 != hi.First() || lo.Overlaps(hi) {
				t.Fatalf("halves of %s: %s %s", a, lo, hi)
			}
		}
	})
}

func TestPackKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRange(t)
		tok := Token{rapid.Uint64().Draw(t, "generation"), rapid.Uint64().Draw(t, "index")}
		var p PackID
		copy(p[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		r2, t2, p2, err := ParsePackKey(PackKey(r, tok, p))
		if err != nil || r2 != r || t2 != tok || p2 != p {
			t.Fatalf("%s: %v %v %v %v", PackKey(r, tok, p), r2, t2, p2, err)
		}
	})
}
