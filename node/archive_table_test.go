package node

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/source"
)

// A table that is not as mapped is the operator's to mend: an answer says so.
func TestTableProblem(t *testing.T) {
	for _, unfit := range []error{source.ErrRelation, source.ErrUnfit} {
		var p *api.Problem
		err := tableProblem(fmt.Errorf("source docs: %w", unfit))
		if !errors.As(err, &p) || p.Code != api.CodeUnavailable || !strings.Contains(p.Detail, "source docs") || !strings.Contains(p.Detail, "source check") {
			t.Errorf("%v becomes %#v", unfit, err)
		}
	}
	if err := tableProblem(io.EOF); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if err := tableProblem(nil); err != nil {
		t.Errorf("got %v", err)
	}
}
