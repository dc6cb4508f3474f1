package hostiletest

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPlant(t *testing.T) {
	w := Plant(t, t.TempDir())
	names, good := make(map[string]bool), 0
	for _, c := range w.Cases {
		if names[c.Name] {
			t.Errorf("%s: the name %q is there twice", c.What, c.Name)
		}
		names[c.Name] = true
		if c.Code == "" {
			good++
		}
	}
	if len(w.Cases) < 60 || good < 4 {
		t.Errorf("%d cases, %d of them good", len(w.Cases), good)
	}
	w.Untouched()
}

func TestTheWatchSeesWhatIsOpened(t *testing.T) {
	w := Plant(t, t.TempDir())
	f, err := os.Open(filepath.Join(w.outside, "folder", "secret"))
	w.check(err)
	w.check(f.Close())
	if w.events() == 0 {
		t.Error("an opened file was not seen")
	}
}
