package cli

import (
	"math"
	"strings"
	"testing"
)

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 10 << 10: "10.0 KiB", 100 << 10: "100 KiB",
		1023 << 10: "1023 KiB", 1<<20 - 1: "1.00 MiB", 1 << 20: "1.00 MiB", 5 << 40: "5.00 TiB", math.MaxInt64: "8.00 EiB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestFormatCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := formatCount(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestPrintableKeepsATerminalSafe(t *testing.T) {
	for s, want := range map[string]string{
		"a b/zażółć": "a b/zażółć", "back\\slash": "back\\slash", "a\x1b[2J": `"a\x1b[2J"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`, "a\u202eb": `"a\u202eb"`,
	} {
		if got := printable(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func TestLongTextsAreCutInTables(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"short", "a/b", "a/b"},
		{"not printable", "a\nb", `"a\nb"`},
		{"as long as may be", strings.Repeat("ż", maxCell), strings.Repeat("ż", maxCell)},
		{"long", "begin" + strings.Repeat("ż", 5000) + "end", "begin" + strings.Repeat("ż", 54) + "…" + strings.Repeat("ż", 56) + "end"},
		{"long and not printable", strings.Repeat("\n", 5000), `"` + strings.Repeat(`\n`, 29) + "…" + strings.Repeat(`\n`, 29) + `"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := shortened(c.text); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
