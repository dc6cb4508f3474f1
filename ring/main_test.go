package ring

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testMembers returns n members in the zones, whose ids depend on the seed alone.
func testMembers(seed, n int, zones ...string) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i].ID = NodeID(uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "set %d member %d", seed, i)).String())
		if len(zones) > 0 {
			members[i].Zone = zones[i%len(zones)]
		}
	}
	return members
}

func mustNew(t testing.TB, cfg Config, members []Member) *Ring {
	t.Helper()
	r, err := New(cfg, members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
