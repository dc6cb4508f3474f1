package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	if !filepath.IsAbs(strings.TrimPrefix(other, localScheme)) {
		p, err := f.find(other)
		if err != nil {
			return nil, err
		}
		other = p.abs()
	}
	found, _, err := f.reach(ctx, strings.TrimPrefix(other, localScheme))
	if err != nil {
		return nil, err
	}
	one := len(f.roots()) == 1
	var absolute, relative []string
	for _, p := range found {
		absolute = append(absolute, p.abs())
		if one {
			relative = append(relative, p.rel)
		}
	}
	return unique(append(absolute, relative...)), nil
}

// reach returns where below the roots the absolute path leads, and how it can
// be spelt: as it is, and without links in its folders.
func (f *Folders) reach(ctx context.Context, other string) (found []place, spellings []string, err error) {
	other = filepath.Clean(other)
	spellings = []string{other}
	dir, err := filepath.EvalSymlinks(filepath.Dir(other))
	if err != nil {
		return nil, nil, fmt.Errorf("who else reaches %s: %w", other, err)
	}
	if straight := filepath.Join(dir, filepath.Base(other)); straight != other {
		spellings = append(spellings, straight)
	}
	for _, root := range f.roots() {
		root = filepath.Clean(root)
		info, err := os.Stat(root)
		if errors.Is(err, fs.ErrNotExist) && !slices.ContainsFunc(spellings, place{root: root}.holds) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("who else reaches %s: %w", other, err)
		}
		for _, spelling := range spellings {
			rels, err := below(ctx, info, spelling)
			if err != nil {
				return nil, nil, fmt.Errorf("who else reaches %s: %w", other, err)
			}
			for _, rel := range rels {
				found = append(found, place{root: root, rel: rel})
			}
		}
	}
	return found, spellings, nil
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
