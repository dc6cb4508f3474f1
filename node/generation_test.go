package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/source"
)

// The nodes of the life before still run when a new one begins. They serve what
// they know, change nothing any more, and say so; they join the new life anew.
func TestNodesOfTheLifeBeforeAreSuperseded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		w.pass(time.Second)
		applied := all[0].meta.View().Applied()
		m := w.lives(RebuildRequest{FromDir: w.copyOf(all[1])})
		m.whole()
		w.write(40, 2)
		for _, old := range all {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := old.Import(ctx, api.ImportRequest{Dir: w.docs}, func(api.ImportEvent) error { return nil })
			cancel()
			if !errors.Is(err, source.ErrSuperseded) {
				t.Errorf("%s, of the life before, writes to the source: %v, want ErrSuperseded", old.ip, err)
			}
		}
		w.within(2*generationEvery, "all know", func() error {
			for _, old := range all {
				if err := old.outdated(); !errors.Is(err, ErrSuperseded) {
					return fmt.Errorf("%s: %w", old.ip, errors.Join(err, errors.New("is not superseded")))
				}
			}
			return nil
		})
		for _, old := range all {
			st, err := old.Status(t.Context())
			if err != nil || st.Superseded != 2 {
				t.Errorf("%s: status says superseded by %d, %v", old.ip, st.Superseded, err)
			}
			if err := old.serves(true, "f0000", "f0001", "f0003"); err != nil {
				t.Error(err)
			}
			if err := old.misses(http.StatusServiceUnavailable); err != nil {
				t.Error(err)
			}
			if got := old.read("f0001").Header().Get("X-Des-Unconfirmed"); got == "" {
				t.Errorf("%s claims that what it serves is the newest", old.ip)
			}
			if got := old.request("/readyz"); got.Code != http.StatusOK {
				t.Errorf("%s: /readyz %d: %s", old.ip, got.Code, got.Body)
			}
			for p := range old.meta.View().Packs() {
				if p.AddIndex > applied {
					t.Errorf("%s, of the life before, added pack %s", old.ip, p.ID)
				}
			}
		}
		m.imports()
		m.archives(2)
		w.mustServe(m)

		for _, old := range all {
			old.stop()
			if _, err := old.openNode(); !errors.Is(err, ErrSuperseded) || !strings.Contains(err.Error(), "empty") {
				t.Errorf("%s starts again: %v, want ErrSuperseded and what to do", old.ip, err)
			}
		}
		w.lose(all[0])
		if err := all[0].enter(m, m.token()); err != nil {
			t.Fatal(err)
		}
		all[0].move()
		all[0].start()
		w.settledView(2, m, all[0])
		w.mustServe(all[0])
	})
}
