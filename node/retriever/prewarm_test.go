package retriever

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// halves packs one name in each half of the hash space, besides one over all of
// it.
func halves(t *testing.T, w *world) (low, high, all *raftmeta.Pack) {
	t.Helper()
	l, h := desformat.Range{}.Halves()
	in := func(r desformat.Range) version {
		for i := 0; ; i++ {
			if name := fmt.Sprint("file-", i); r.Contains(desformat.HashName(name)) {
				return version{name: name, seq: 1}
			}
		}
	}
	low = w.packOf(desformat.WriterConfig{Range: l}, in(l))
	high = w.packOf(desformat.WriterConfig{Range: h}, in(h))
	all = w.packOf(desformat.WriterConfig{}, in(l), in(h))
	w.manifest.set(low, high, all)
	return low, high, all
}

func (r *Retriever) has(p *raftmeta.Pack) bool {
	_, ok := r.indexes.cache.GetEntryQuietly(p.ID)
	return ok
}

func TestPrewarmLoadsWhatTheNodeOwns(t *testing.T) {
	w := newWorld(t)
	low, high, all := halves(t, w)
	r := w.retriever(func(c *Config) {
		c.Owned = func(x desformat.Range) bool { return x.Overlaps(low.Range) }
	})
	if err := r.Prewarm(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if !r.has(low) || !r.has(all) || r.has(high) {
		t.Errorf("low %v, all %v, high %v", r.has(low), r.has(all), r.has(high))
	}
}

// When the ring changes, what the node has come to own is loaded; what it had
// stays as long as there is room.
func TestRunFollowsTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		low, high, _ := halves(t, w)
		changed, owned := make(chan struct{}), low.Range
		r := w.retriever(func(c *Config) {
			c.Owned = func(x desformat.Range) bool { return x == owned }
			c.OwnedChanged = func() <-chan struct{} { return changed }
		})
		running(t, r)
		if !r.has(low) || r.has(high) {
			t.Fatalf("before: low %v, high %v", r.has(low), r.has(high))
		}
		was := changed
		changed, owned = make(chan struct{}), high.Range
		close(was)
		time.Sleep(2 * settleTime)
		synctest.Wait()
		if !r.has(low) || !r.has(high) {
			t.Errorf("after: low %v, high %v", r.has(low), r.has(high))
		}
	})
}
