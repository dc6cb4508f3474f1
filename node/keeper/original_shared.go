package keeper

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/datavision/desnode/node/source"
)

// errHalfDone says that another row's original had this file's inode and its
// deletion is not over: until it is, its row seems to reach this file.
var errHalfDone = errors.New("the inode's former file is still being deleted")

// shared says why the file is reached by more than this row; "" if it is not.
func (o *original) shared(ctx context.Context, info source.Info) (string, error) {
	if info.Links != 1 {
		return fmt.Sprintf("the file has %d hard links", info.Links), nil
	}
	own, err := o.src.Files.Same(ctx, o.c.row.Path)
	if err != nil {
		return "", fmt.Errorf("look for rows that share the file: %w", err)
	}
	own = append(own, o.c.row.Path)
	rows := 0
	for _, s := range o.d.k.sources {
		paths := own
		if s.Name != o.src.Name {
			if paths, err = elsewhere(ctx, s.Files, own); err != nil {
				return "", fmt.Errorf("source %s: look for rows that share the file: %w", s.Name, err)
			}
		}
		n, err := o.sharing(ctx, s, info.FileID, paths)
		if err != nil {
			return "", fmt.Errorf("source %s: look for rows that share the file: %w", s.Name, err)
		}
		rows += n
	}
	if rows == 0 {
		o.rec.FileID = info.FileID
		return "", nil
	}
	if o.d.k.audit.removing(info.FileID, o.rec) {
		return "", errors.Join(errHalfDone, o.unclaim(ctx, "", ""))
	}
	return fmt.Sprintf("%d other row(s) reach the same file", rows), nil
}

// elsewhere returns how rows of another source could spell one of paths. Only
// places mean the same to both; to originals that name none, absolute paths do.
func elsewhere(ctx context.Context, files source.Originals, paths []string) ([]string, error) {
	means := filepath.IsAbs
	if slices.ContainsFunc(paths, source.IsPlace) {
		means = source.IsPlace
	}
	var out []string
	known := false
	for _, p := range paths {
		if !means(p) {
			continue
		}
		known = true
		same, err := files.Same(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, same...)
	}
	if !known {
		return nil, fmt.Errorf("no absolute path is known for %q", paths)
	}
	return out, nil
}

// maxIdentify bounds the looks at a source whose rows come in meanwhile.
const maxIdentify = 3

// sharing counts the rows of s that reach the file. Rows that the source system
// has added say nothing of their files until they were followed.
func (o *original) sharing(ctx context.Context, s source.Source, fileID string, paths []string) (int, error) {
	for looks := 0; ; looks++ {
		n, err := s.Rows.Sharing(ctx, o.c.row, fileID, paths)
		if !errors.Is(err, source.ErrUnidentified) || looks == maxIdentify {
			return n, err
		}
		if err := o.d.k.identify(ctx, s); err != nil {
			return 0, err
		}
	}
}

// identify follows the paths of the rows that have no file id, and writes down
// which files they lead to. A path that can't be followed ends it: what its row
// reaches is not known, and so of no file that nobody else reaches it.
func (k *Keeper) identify(ctx context.Context, s source.Source) error {
	for after := ""; ; {
		rows, err := s.Rows.Unidentified(ctx, after, source.MaxBatch)
		if err != nil || len(rows) == 0 {
			return err
		}
		ids := make([]string, len(rows))
		for i, r := range rows {
			ids[i], err = s.Files.FileID(ctx, r.Path)
			if errors.Is(err, source.ErrNoFile) || errors.Is(err, source.ErrOutside) {
				ids[i], err = source.NoFileID, nil
			}
			if err == nil {
				err = k.mayIdentify(ids[i])
			}
			if err != nil {
				return fmt.Errorf("find out which file row %s reaches: %w", r.ID, err)
			}
		}
		if err := s.Rows.Identify(ctx, rows, ids); err != nil {
			return err
		}
		after = rows[len(rows)-1].ID
	}
}
