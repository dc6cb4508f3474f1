package desformat

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestCheckName(t *testing.T) {
	for _, tc := range []struct {
		name  string
		input string
		why   string // part of the error; empty: accepted
	}{
		{"one byte", "a", ""},
		{"path", "src/net/http/server.go", ""},
		{"spaces and signs", " a b;c?d#e%2F&'\"<>|*:$.txt ", ""},
		{"dots inside", "a/.b/..c/d../...", ""},
		{"latin", "zażółć/gęślą jaźń.pdf", ""},
		{"han, emoji, rtl letters", "漢字/😀/עברית/فارسی", ""},
		{"variation selector", "❤️", ""},
		{"soft hyphen is visible enough", "a\u00adb", ""},
		{"replacement character itself", "a\ufffdb", ""},
		{"longest", strings.Repeat("x", MaxNameBytes), ""},
		{"empty", "", "it is empty"},
		{"too long", strings.Repeat("x", MaxNameBytes+1), "1025 bytes"},
		{"too long in bytes", strings.Repeat("ż", 513), "1026 bytes"},
		{"leading slash", "/a", "begins with a slash"},
		{"only a slash", "/", "begins with a slash"},
		{"trailing slash", "a/", "ends with a slash"},
		{"empty segment", "a//b", "empty segment at byte 2"},
		{"dot", ".", `segment "." at byte 0`},
		{"dot segment", "a/./b", `segment "." at byte 2`},
		{"dot dot", "a/..", `segment ".." at byte 2`},
		{"dot dot first", "../a", `segment ".." at byte 0`},
		{"backslash", `a\b`, "backslash at byte 1"},
		{"nul", "a\x00", "control character U+0000 at byte 1"},
		{"newline", "a\nb", "control character U+000A at byte 1"},
		{"delete", "ab\x7f", "control character U+007F at byte 2"},
		{"c1 control", "ż\u0085", "control character U+0085 at byte 2"},
		{"private use", "a\ue000", "private-use character U+E000 at byte 1"},
		{"private use plane", "a\U00100000", "private-use"},
		{"rtl override", "a\u202etxt.exe", "bidirectional control character U+202E at byte 1"},
		{"isolate", "a\u2066", "bidirectional control"},
		{"rtl mark", "a\u200f", "bidirectional control"},
		{"zero-width space", "a\u200bb", "zero-width character U+200B at byte 1"},
		{"zero-width joiner", "a\u200db", "zero-width"},
		{"word joiner", "a\u2060b", "zero-width"},
		{"byte order mark", "\ufeffa", "zero-width character U+FEFF at byte 0"},
		{"tag", "a\U000e0041", "zero-width"},
		{"noncharacter", "a\uffff", "unassigned character U+FFFF at byte 1"},
		{"unassigned", "a\U000e1000", "unassigned"},
		{"decomposed", "ke\u0301", "normal form C; first difference at byte 1"},
		{"singleton", "5 \u212b", "normal form C; first difference at byte 2"},
		{"lone continuation byte", "a\x80", "not UTF-8 at byte 1"},
		{"cut rune", "a\xc5", "not UTF-8 at byte 1"},
		{"surrogate", "a\xed\xa0\x80", "not UTF-8 at byte 1"},
		{"overlong slash", "a\xc0\xafb", "not UTF-8 at byte 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := CheckName(tc.input)
			if tc.why == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrInvalidName) || !strings.Contains(err.Error(), tc.why) {
				t.Fatalf("got %v, want ErrInvalidName saying %q", err, tc.why)
			}
		})
	}
}

// Every character alone: exactly the assigned ones pass, less those that the
// rules name.
func TestCheckNameEveryCharacter(t *testing.T) {
	refused := []*unicode.RangeTable{unicode.Cc, unicode.Co, unicode.Bidi_Control}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		want := !unicode.Is(unicode.Cn, r) && !unicode.In(r, refused...) && !zeroWidth(r) &&
			r != '/' && r != '.' && r != '\\' && norm.NFC.IsNormalString(string(r))
		if err := CheckName(string(r)); (err == nil) != want {
			t.Fatalf("U+%04X: %v, want accepted: %v", r, err, want)
		}
	}
}

func TestCheckNameDoesNotAllocate(t *testing.T) {
	const name = "src/cmd/compile/internal/ssa/rewriteAMD64.go"
	if n := testing.AllocsPerRun(100, func() {
		if err := CheckName(name); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"a", "a/b", "/a", "a//b", "..", `\`, "ż", "e\u0301", "\u202e", "\xff", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := CheckName(name)
		if err != nil {
			if !errors.Is(err, ErrInvalidName) {
				t.Fatalf("%q: %v does not wrap ErrInvalidName", name, err)
			}
			return
		}
		if !utf8.ValidString(name) || !norm.NFC.IsNormalString(name) || len(name) == 0 || len(name) > MaxNameBytes {
			t.Fatalf("%q accepted", name)
		}
		for segment := range strings.SplitSeq(name, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Fatalf("%q accepted with segment %q", name, segment)
			}
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '\\' || unicode.IsControl(r) }) {
			t.Fatalf("%q accepted", name)
		}
	})
}

func BenchmarkCheckName(b *testing.B) {
	for _, bc := range []struct{ name, input string }{
		{"ascii", "src/net/http/transport_test.go"},
		{"unicode", "zażółć/gęślą jaźń.pdf"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := CheckName(bc.input); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
