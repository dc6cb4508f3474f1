package cli

import (
	"math"
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
