package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Same returns the paths under which rows of this source could reach the file
// that other names; absolute forms first. A relative other is one of this
// source's own; rows of other sources are asked for by their absolute paths.
//
// Folders are compared by device and inode, so that the same folder is seen
// behind a bind mount, a link or a root inside a root. A link in the middle of
// a root is not: rows that reach a file through one have its inode (FileID).
// When a folder can't be looked at, the answer is an error, never "none"; but
// below a root that does not exist there is no file to share.
func (f *Folders) Same(ctx context.Context, other string) ([]string, error) {
	if !filepath.IsAbs(other) {
		p, err := f.find(other)
		if err != nil {
			return nil, err
		}
		other = p.abs()
	}
	other = filepath.Clean(other)
	spellings := []string{other}
	dir, err := filepath.EvalSymlinks(filepath.Dir(other))
	if err != nil {
		return nil, fmt.Errorf("who else reaches %s: %w", other, err)
	}
	if straight := filepath.Join(dir, filepath.Base(other)); straight != other {
		spellings = append(spellings, straight)
	}
	roots := f.roots()
	var absolute, relative []string
	for _, root := range roots {
		root = filepath.Clean(root)
		info, err := os.Stat(root)
		if errors.Is(err, fs.ErrNotExist) && !slices.ContainsFunc(spellings, place{root: root}.holds) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("who else reaches %s: %w", other, err)
		}
		for _, spelling := range spellings {
			rels, err := below(ctx, info, spelling)
			if err != nil {
				return nil, fmt.Errorf("who else reaches %s: %w", other, err)
			}
			for _, rel := range rels {
				absolute = append(absolute, filepath.Join(root, rel))
				if len(roots) == 1 {
					relative = append(relative, rel)
				}
			}
		}
	}
	return unique(append(absolute, relative...)), nil
}

// below returns path relative to each of its parent folders that is root.
func below(ctx context.Context, root os.FileInfo, path string) (rels []string, err error) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		info, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		if os.SameFile(info, root) {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return nil, err
			}
			rels = append(rels, rel)
		}
		if dir == filepath.Dir(dir) {
			return rels, nil
		}
	}
}

// holds reports whether path is spelt as one below the root.
func (p place) holds(path string) bool {
	rel, err := filepath.Rel(p.root, path)
	return err == nil && filepath.IsLocal(rel) && rel != "."
}

// unique drops repetitions and keeps the order.
func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
