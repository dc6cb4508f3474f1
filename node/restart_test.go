package node

import (
	"net/http"
	"testing"
	"time"
)

// After a power failure only one of three returns.
func TestOneOfThreeThatStartsAloneServesWhatItKnew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.archivedAll(5)
		w.pass(5 * time.Second)
		for _, m := range all {
			m.stop()
		}
		one := all[2]
		one.begin()
		w.within(5*time.Second, "its state is read", func() error { return one.serves(true) })
		w.pass(time.Minute)
		w.mustServe(one)
		if got := one.read("unknown"); got.Code != http.StatusServiceUnavailable {
			t.Errorf("a name that nobody can confirm: %d %s", got.Code, got.Body)
		}
		all[0].begin()
		all[1].begin()
		for _, m := range all {
			m.awaitReady()
		}
		w.settled(3, all...)
		w.mustServe(all...)
	})
}
