package node

import (
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/datavision/desnode/node/config"
)

// A source that one node brings along: the others can't say what is not in it.
func TestNodeThatLacksASourceSpeaksForNoneOfItsFiles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		if got := a.read("f0000"); got.Code != http.StatusNotFound {
			t.Fatalf("nothing is there: %d %s", got.Code, got.Body)
		}
		b := w.join(a, func(c *config.Config) {
			more := config.Source{URL: (&url.URL{Scheme: "sqlite", Path: filepath.Join(w.dir, "more.db")}).String()}
			c.Sources = map[string]config.Source{"files": c.Sources["files"], "more": more}
		})
		w.settled(1, a, b)
		for _, path := range []string{"/files/f0000", "/ids/17"} {
			if got := b.request(path); got.Code != http.StatusNotFound {
				t.Errorf("%s at the node that has the source: %d %s", path, got.Code, got.Body)
			}
			if got := a.request(path); got.Code != http.StatusServiceUnavailable {
				t.Errorf("%s at the node that lacks it: %d %s", path, got.Code, got.Body)
			}
		}
		if err := a.hasAllSources(); !errors.Is(err, ErrSourceMissing) {
			t.Errorf("it may delete originals: %v", err)
		}
		if err := b.hasAllSources(); err != nil {
			t.Errorf("the other may not: %v", err)
		}
	})
}
