package source

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// ByName returns the row that is served as name.
func (s *SQLite) ByName(ctx context.Context, name string) (Row, error) {
	return s.one(ctx, "look up the name", s.stmts.byName, name)
}

// ByID returns the row with that id.
func (s *SQLite) ByID(ctx context.Context, id string) (Row, error) {
	n, ok := idNumber(id)
	if !ok {
		return Row{}, s.wrap("look up the id", fmt.Errorf("%q: %w", id, ErrNotFound))
	}
	return s.one(ctx, "look up the id", s.stmts.byID, n)
}

func (s *SQLite) one(ctx context.Context, what string, stmt *sql.Stmt, arg any) (Row, error) {
	rows, err := s.queryRows(ctx, what, stmt, arg)
	if err != nil {
		return Row{}, err
	}
	if len(rows) == 0 {
		return Row{}, s.wrap(what, fmt.Errorf("%q: %w", fmt.Sprint(arg), ErrNotFound))
	}
	return rows[0], nil
}

// Rows lists rows by rising id.
func (s *SQLite) Rows(ctx context.Context, after string, limit int) ([]Row, error) {
	const op = "list the rows"
	id, err := afterNumber(after)
	if err != nil {
		return nil, s.wrap(op, err)
	}
	return s.queryRows(ctx, op, s.stmts.list, id, min(limit, MaxBatch))
}

// ByIDs returns the rows with these ids, by rising id.
func (s *SQLite) ByIDs(ctx context.Context, ids []string) ([]Row, error) {
	const op = "look up ids"
	if err := checkBatch(len(ids)); err != nil {
		return nil, s.wrap(op, err)
	}
	numbers := make([]int64, 0, len(ids))
	for _, id := range ids {
		if n, ok := idNumber(id); ok {
			numbers = append(numbers, n)
		}
	}
	list, err := json.Marshal(numbers)
	if err != nil {
		return nil, s.wrap(op, err)
	}
	return s.queryRows(ctx, op, s.stmts.byIDs, string(list))
}
