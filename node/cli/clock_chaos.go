//go:build chaos

package cli

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/node"
)

// clockVariable names the file that says by how many seconds a node's clock is
// wrong; no file: it is right. Only builds with the tag chaos know it: there is
// no other way to make one process's clock jump.
const clockVariable = "DESNODE_CHAOS_CLOCK"

// clockOptions gives a node a clock that jumps.
func clockOptions() []node.Option {
	path := os.Getenv(clockVariable)
	if path == "" {
		return nil
	}
	return []node.Option{node.WithClock(func() time.Time {
		b, err := os.ReadFile(path)
		if err != nil {
			return time.Now()
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		if err != nil {
			return time.Now()
		}
		return time.Now().Add(time.Duration(seconds * float64(time.Second)))
	})}
}
