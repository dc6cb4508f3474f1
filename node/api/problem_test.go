package api

import (
	"context"
	"fmt"
	"testing"

	"github.com/datavision/desnode/node/retriever"
)

// What a client is told says more than the code, and not the same twice.
func TestDetailOfAProblem(t *testing.T) {
	const noAnswer = "the store or a source does not answer; the node's log says which"
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"a request", fmt.Errorf("%w: this node has no source %q", ErrInvalidRequest, "x"), `this node has no source "x"`},
		{"a source that is late", fmt.Errorf("source docs at 10.0.0.1: %w", context.DeadlineExceeded), noAnswer},
		{"a store that is away", fmt.Errorf("get packs/x: %w", retriever.ErrUnavailable), noAnswer},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := problemOf(c.err).Detail; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
