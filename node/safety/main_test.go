package safety

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(1000) // thousands of small worlds, none of which lasts
	goleak.VerifyTestMain(m)
}
