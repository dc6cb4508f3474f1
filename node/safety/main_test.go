package safety

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Thousands of small worlds, none of which lasts: the garbage is collected when
	// there is this much of it, and not twice as much as is in use.
	debug.SetGCPercent(1000)
	debug.SetMemoryLimit(1 << 30)
	goleak.VerifyTestMain(m)
}
