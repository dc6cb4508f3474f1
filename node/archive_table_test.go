package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// A database that is away is no fault of the program: the caller may try again,
// and learns no address.
func TestArchiveRunWithoutItsDatabase(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 5432}, Err: errors.New("connection refused")}
	var p *api.Problem
	err := sourceProblem(fmt.Errorf("source docs: %w", refused))
	if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable || p.Code != api.CodeUnavailable || strings.Contains(p.Detail, "10.0.0.7") {
		t.Errorf("%v becomes %#v", refused, err)
	}
	if err := sourceProblem(fmt.Errorf("source docs: %w", source.ErrRelation)); !errors.As(err, &p) || !strings.Contains(p.Detail, "source check") {
		t.Errorf("a table that is not as mapped becomes %#v", err)
	}
	for _, err := range []error{nil, context.Canceled, errors.New("anything else")} {
		if got := sourceProblem(err); got != err { //nolint:errorlint // the very same
			t.Errorf("%v becomes %v", err, got)
		}
	}
}
