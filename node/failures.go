package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/source"
)

// Failed lists rows with an archive_error, source by source; the first page
// sums them up by code as well.
func (n *Node) Failed(ctx context.Context, q api.FailedQuery) (api.FailedPage, error) {
	page := api.FailedPage{Rows: []api.FailedRow{}}
	chosen, err := n.chosenSources(q.Source)
	if err != nil {
		return page, err
	}
	if q.After == "" {
		if page.Codes, err = failureCodes(ctx, chosen, q.Code); err != nil {
			return page, err
		}
	}
	from, after, _ := strings.Cut(q.After, ":") // as Next is written below; sources stand in the order of their names
	for _, s := range chosen {
		if s.Name < from || len(page.Rows) == q.Limit {
			continue
		}
		if s.Name != from {
			after = ""
		}
		rows, err := s.Rows.Failures(ctx, q.Code, after, q.Limit-len(page.Rows))
		if err != nil {
			return page, fmt.Errorf("source %s: %w", s.Name, err)
		}
		for _, r := range rows {
			page.Rows = append(page.Rows, failedRow(r))
		}
		if len(page.Rows) == q.Limit {
			page.Next = s.Name + ":" + rows[len(rows)-1].ID
		}
	}
	return page, nil
}

// chosenSources returns the source of that name, all of them for "".
func (n *Node) chosenSources(name string) ([]source.Source, error) {
	if name == "" {
		return n.sources, nil
	}
	for _, s := range n.sources {
		if s.Name == name {
			return []source.Source{s}, nil
		}
	}
	return nil, fmt.Errorf("%w: this node has no source %q", api.ErrInvalidRequest, name)
}

// failureCodes sums up the rows with an archive_error by source and code, of
// one code or ("") of all.
func failureCodes(ctx context.Context, sources []source.Source, code string) ([]api.FailureCode, error) {
	var codes []api.FailureCode
	for _, s := range sources {
		tallies, err := s.Rows.FailureTally(ctx)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		for _, c := range slices.Sorted(maps.Keys(tallies)) {
			if code == "" || c == code {
				codes = append(codes, api.FailureCode{Source: s.Name, Code: c, Tally: api.Tally(tallies[c])})
			}
		}
	}
	return codes, nil
}

func failedRow(r source.Row) api.FailedRow {
	return api.FailedRow{
		Source: r.Source, ID: r.ID, Name: cmp.Or(r.DesName, r.Name), Path: r.Path, State: string(r.State),
		Attempts: r.Attempts, LastAttempt: r.LastAttempt, Code: r.ErrorCode, Text: r.ErrorText,
	}
}

// Retry tries rows with an archive_error again: those that the request selects.
func (n *Node) Retry(ctx context.Context, req api.RetryRequest) (api.RetryResponse, error) {
	var res api.RetryResponse
	chosen, err := n.chosenSources(req.Source)
	if err != nil {
		return res, err
	}
	var errs []error
	for _, s := range chosen {
		retried, err := s.Rows.Retry(ctx, source.Selection{Names: req.Names, Code: req.Code}, n.now())
		res.Retried += retried
		errs = append(errs, err)
	}
	n.marker.Kick()
	n.packer.Kick()
	return res, errors.Join(errs...)
}
