package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
)

func TestAnUnreadableOriginalNamesItsCauseAndNoPlace(t *testing.T) {
	err := fmt.Errorf("open: %w", &retriever.OriginalError{
		Row: source.Row{ID: "7", Source: "docs", Path: "a/b"},
		Err: errors.Join(errors.New("/mnt/secret/a/b"), source.ErrNotRegular),
	})
	p := problemOf(err)
	if p.Status != http.StatusServiceUnavailable || p.Code != CodeUnavailable {
		t.Errorf("%d %s", p.Status, p.Code)
	}
	if !strings.Contains(p.Detail, `"a/b"`) || !strings.Contains(p.Detail, "not a regular file") || strings.Contains(p.Detail, "secret") {
		t.Errorf("detail: %s", p.Detail)
	}
}
