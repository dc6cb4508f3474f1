package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// registerGroup is how many rows one INSERT makes. Measured: statements of
// one row take twice the time; larger groups gain nothing.
const registerGroup = 50

// Register adds or refreshes rows, keyed by path. Most of an import is new, so
// groups are inserted unseen, and only a group that did not go in whole is
// looked at row by row. A known row keeps its name.
func (s *SQLite) Register(ctx context.Context, files []File) ([]Registered, error) {
	if err := checkBatch(len(files)); err != nil {
		return nil, s.wrap("register", err)
	}
	results := make([]Registered, len(files)) // RegisteredNew
	err := s.update(ctx, "register", func(tx *sql.Tx) error {
		r := registering{tx: tx, stmts: &s.stmts}
		done := 0
		for group := range slices.Chunk(files, registerGroup) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.group(group, results[done:done+len(group)]); err != nil {
				return err
			}
			done += len(group)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// registering is one call of Register.
type registering struct {
	tx    *sql.Tx
	stmts *statements
	args  []any
}

func (r *registering) insert(stmt *sql.Stmt, files []File) (int64, error) {
	r.args = r.args[:0]
	for i := range files {
		f := &files[i]
		r.args = append(r.args, f.Name, f.Path, f.Size, nanos(f.ModTime), nullText(f.FileID), checksum(f), nullText(f.ContentType))
	}
	result, err := r.tx.Stmt(stmt).Exec(r.args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (r *registering) group(files []File, results []Registered) error {
	var last int64 // the highest id there ever was: a row above it is new
	if err := r.tx.Stmt(r.stmts.regLast).QueryRow().Scan(&last); err != nil {
		return err
	}
	if len(files) == registerGroup {
		n, err := r.insert(r.stmts.regInsertMany, files)
		if err != nil {
			return err
		}
		if n == int64(len(files)) {
			return nil
		}
	}
	for i := range files {
		var err error
		if results[i], err = r.one(&files[i], last); err != nil {
			return fmt.Errorf("%s: %w", files[i].Path, err)
		}
	}
	return nil
}

func (r *registering) one(f *File, last int64) (Registered, error) {
	var k known
	err := r.tx.Stmt(r.stmts.regFind).QueryRow(f.Path).Scan(&k.id, &k.name, &k.size, &k.modified, &k.fileID, &k.state)
	if errors.Is(err, sql.ErrNoRows) {
		n, err := r.insert(r.stmts.regInsert, []File{*f})
		if err != nil || n == 1 {
			return RegisteredNew, err
		}
		return RegisteredTaken, nil
	}
	if err != nil {
		return 0, err
	}
	if k.id > last { // by this very call
		return RegisteredNew, r.refresh(f, k)
	}
	done := RegisteredUnchanged
	// Where desnode has deleted the original, a file is a new one, whatever its
	// size and time: the packer compares its content.
	if k.size != f.Size || k.modified != nanos(f.ModTime) || k.state == DeletedSource {
		done, err = RegisteredChanged, r.change(f, k)
	} else {
		err = r.refresh(f, k)
	}
	if k.name != f.Name {
		done |= RegisteredOtherName
	}
	return done, err
}

// known is a row that has the path of a file being registered.
type known struct {
	id, size, modified int64
	name, fileID       string
	state              State
}

// change makes a row ACTIVE again. What was said of the old content, its
// checksum, is gone.
func (r *registering) change(f *File, k known) error {
	if _, err := changed(r.tx.Stmt(r.stmts.regChanged), []any{k.id, f.Size, nanos(f.ModTime), checksum(f), nullText(f.ContentType)}); err != nil {
		return err
	}
	// Which file a changed row reaches nobody knows, says the schema. Here it is
	// known.
	_, err := changed(r.tx.Stmt(r.stmts.regFileID), []any{k.id, nullText(f.FileID)})
	return err
}

// refresh notes what may be new of an unchanged file.
func (r *registering) refresh(f *File, k known) error {
	// The same file under a new inode: restored, or written back. The inode is
	// kept up to date because deletion looks for rows that share one.
	if f.FileID != "" && f.FileID != k.fileID {
		if _, err := changed(r.tx.Stmt(r.stmts.regFileID), []any{k.id, f.FileID}); err != nil {
			return err
		}
	}
	if f.SHA256 == nil && f.ContentType == "" {
		return nil
	}
	_, err := changed(r.tx.Stmt(r.stmts.regListed), []any{k.id, checksum(f), nullText(f.ContentType)})
	return err
}

// checksum is the value of that column.
func checksum(f *File) any {
	if f.SHA256 == nil {
		return nil
	}
	return f.SHA256[:]
}
