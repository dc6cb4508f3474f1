package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ResetPeak makes PeakMemory begin anew. Some kernels can't.
func ResetPeak() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200) }

// PeakMemory returns the most memory, in bytes, that this process has held at
// once: VmHWM.
func PeakMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/self/status")
}
