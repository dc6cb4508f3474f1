package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLoggedDurationsHaveUnits(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(&b, slog.LevelInfo)
	log.With("since", time.Second).Info("x", slog.Group("g", "took", 39300*time.Microsecond), "n", 7)
	log.Debug("unseen")
	for _, want := range []string{`"since":"1s"`, `"g":{"took":"39.3ms"}`, `"n":7}`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %s", b.String(), want)
		}
	}
	if strings.Contains(b.String(), "unseen") {
		t.Errorf("the level is not kept: %s", b.String())
	}
}
