package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
)

// A cluster falls apart, and two operators, each sure that the other half is
// gone, begin a new life of it at the same time; the old nodes still run. One new
// life there may be, and nobody else changes anything.
func TestTwoHalvesThatAreRestoredAtOnceAreOneLife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.formThree()
		w.write(0, 6)
		a.imports()
		a.archives(6)
		before := a.manifest()

		halves := []*member{w.newMember(), w.newMember()}
		results := make([]error, len(halves))
		done := make(chan int)
		for i, m := range halves {
			go func() {
				results[i] = m.newLife(RebuildRequest{})
				done <- i
			}()
		}
		for range halves {
			<-done
		}
		// Who claimed in the same moment as the other was refused; who came later
		// begins one life more, and ends the other's.
		var alive, over *member
		generation := uint64(0)
		for i, err := range results {
			if err != nil {
				if !errors.Is(err, ErrSuperseded) {
					t.Errorf("the half that lost: %v", err)
				}
				continue
			}
			id, err := readIdentity(filepath.Join(halves[i].cfg.DataDir, identityFile))
			switch {
			case err != nil:
				t.Fatal(err)
			case id.Generation == generation:
				t.Fatalf("both halves are generation %d", generation)
			case id.Generation > generation:
				alive, over, generation = halves[i], alive, id.Generation
			default:
				over = halves[i]
			}
		}
		if alive == nil {
			t.Fatalf("no half has a new life: %v", results)
		}
		past := []*member{a, b, c}
		if over != nil {
			over.begin()
		}
		alive.start()
		alive.whole()
		alive.sameManifest(before)

		// The old half is asked to work on, and must not.
		w.write(6, 3)
		alive.imports()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = b.Archive(ctx, api.ArchiveRequest{}, func(api.ArchiveEvent) error { return nil }) // says why, or waits in vain
		for _, old := range past {
			old.sameManifest(before)
		}
		w.within(2*time.Minute, "the new life archives", func() error {
			w.roundAt(alive)
			return alive.serves(true)
		})
		w.mustServe(alive)
		w.within(time.Minute, "the old half knows that it is over", func() error {
			for _, old := range past {
				if err := old.checkCurrent(t.Context()); !errors.Is(err, ErrSuperseded) {
					return fmt.Errorf("%s: %w", old.ip, err)
				}
				if err := old.misses(http.StatusServiceUnavailable); err != nil {
					return err
				}
			}
			return nil
		})
		for _, old := range past {
			old.sameManifest(before)
		}
		if over == nil {
			return
		}
		if err := over.outdated(); !errors.Is(err, ErrSuperseded) {
			t.Errorf("the life that was overtaken: %v", err)
		}
		for id := range over.manifest() {
			if _, known := before[id]; !known {
				t.Errorf("the life that was overtaken has packed %s", id)
			}
		}
	})
}
