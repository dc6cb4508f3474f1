package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// importProgress is the least time between two events of an import.
const importProgress = 200 * time.Millisecond

// Import registers every regular file below req.Dir in the embedded source, or
// the listed ones, as eligible at once, and makes Dir one of the source's
// roots. Names that §10 refuses, names that another path has, links and special
// files, and files that are not as listed are reported and left alone; nothing
// else is. Repeating an import registers what is new and re-activates what has
// changed. Rows are durable when it returns.
func (n *Node) Import(ctx context.Context, req api.ImportRequest, send func(api.ImportEvent) error) error {
	src, err := n.embedded()
	if err != nil {
		return err
	}
	if req.Forget {
		if err := n.forgetRoot(ctx, src.Name, req); err != nil {
			return err
		}
		return send(api.ImportEvent{})
	}
	dir, err := n.importable(req.Dir)
	if err != nil {
		return err
	}
	if err := n.addRoot(ctx, src.Name, dir); err != nil {
		return err
	}
	im := importer{rows: src.Rows, send: send, now: n.now, prefix: req.Prefix}
	if len(req.Files) > 0 {
		err = im.addListed(ctx, dir, req)
	} else {
		found := func(f source.File) error { return im.add(ctx, f, 0) }
		err = source.Walk(ctx, dir, found, im.skip)
	}
	if err == nil {
		err = im.flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", dir, err)
	}
	return im.report()
}

// embedded returns the one source that files can be registered in.
func (n *Node) embedded() (source.Source, error) {
	var found []source.Source
	for _, s := range n.sources {
		if !n.cfg.Sources[s.Name].Postgres() {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return source.Source{}, fmt.Errorf("%w: import needs exactly one embedded (sqlite) source, this node has %d", api.ErrInvalidRequest, len(found))
	}
	return found[0], nil
}

// importable returns the real path of a folder that may become a root: it must
// neither hold the node's own files nor lie inside them.
func (n *Node) importable(dir string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%w: the folder %q must be an absolute path", api.ErrInvalidRequest, dir)
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", api.ErrInvalidRequest, err)
	}
	if fi, err := os.Stat(resolved); err != nil || !fi.IsDir() {
		return "", fmt.Errorf("%w: %s is not a folder", api.ErrInvalidRequest, dir)
	}
	if own, overlaps := n.overlapsOwn(resolved); overlaps {
		return "", fmt.Errorf("%w: %s and the node's own %s overlap; archive a folder apart from it", api.ErrInvalidRequest, dir, own)
	}
	return resolved, nil
}

// rootsKey is the setting that lists the folders that imports made roots of a
// source.
func rootsKey(sourceName string) string { return "roots/" + sourceName }

// addRoot makes dir a root of the source, for every node.
func (n *Node) addRoot(ctx context.Context, sourceName, dir string) error {
	for {
		roots, modIndex, err := listSetting(n.meta.View(), rootsKey(sourceName))
		if err != nil {
			return err
		}
		if slices.ContainsFunc(roots, func(r string) bool { return config.Within(dir, r) }) {
			return nil
		}
		roots = slices.DeleteFunc(roots, func(r string) bool { return config.Within(r, dir) })
		err = n.setList(ctx, rootsKey(sourceName), append(roots, dir), modIndex)
		if !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
	}
}

// forgetRoot makes a folder that imports made a root no root any more. It may
// be gone by now, so it is not looked at.
func (n *Node) forgetRoot(ctx context.Context, sourceName string, req api.ImportRequest) error {
	dir := filepath.Clean(req.Dir)
	if slices.Contains(n.cfg.Sources[sourceName].Roots, dir) {
		return fmt.Errorf("%w: %s stands in the configuration, under sources.%s.roots: take it out there", api.ErrInvalidRequest, dir, sourceName)
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved // as it was when it was imported
	}
	for {
		roots, modIndex, err := listSetting(n.meta.View(), rootsKey(sourceName))
		if err != nil {
			return err
		}
		i := slices.Index(roots, dir)
		if i < 0 {
			return fmt.Errorf("%w: %s is no imported folder; those are %q", api.ErrInvalidRequest, dir, roots)
		}
		err = n.setList(ctx, rootsKey(sourceName), slices.Delete(roots, i, i+1), modIndex)
		if !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
	}
}

// importer collects files into batches and counts what becomes of them.
type importer struct {
	rows   source.OperatorRows
	send   func(api.ImportEvent) error
	now    func() time.Time
	prefix string

	batch    []source.File
	lines    []int           // of the list, for each file of the batch; 0: there is no list
	event    api.ImportEvent // totals, and the lists since the last event
	reported time.Time
}

// add registers one file, that of a line when there is a list.
func (im *importer) add(ctx context.Context, f source.File, line int) error {
	im.event.Files++
	im.event.Bytes += f.Size
	f.Name = im.prefix + f.Name
	if err := desformat.CheckName(f.Name); err != nil {
		im.refuse(line, f.Name, err.Error())
		return nil
	}
	im.batch, im.lines = append(im.batch, f), append(im.lines, line)
	if len(im.batch) < source.MaxBatch {
		return nil
	}
	return im.flush(ctx)
}

func (im *importer) refuse(line int, name, reason string) {
	im.event.Refused = append(im.event.Refused, api.Refusal{Line: line, Name: printable(name), Reason: reason})
}

func (im *importer) skip(path, reason string) {
	switch reason {
	case source.SkippedLink:
		im.event.Skipped.Links++
	case source.SkippedSpecial:
		im.event.Skipped.Special++
	default: // what can't be read must not go unseen
		im.refuse(0, path, reason)
	}
}

func (im *importer) flush(ctx context.Context) error {
	if len(im.batch) == 0 {
		return nil
	}
	results, err := im.rows.Register(ctx, im.batch)
	if err != nil {
		return err
	}
	for i, r := range results {
		switch r.Outcome() {
		case source.RegisteredNew:
			im.event.New++
		case source.RegisteredUnchanged:
			im.event.Unchanged++
		case source.RegisteredChanged:
			im.event.Changed++
		case source.RegisteredTaken:
			if line := im.lines[i]; line > 0 {
				im.refuse(line, im.batch[i].Name, "a file elsewhere has this name")
			} else {
				im.event.Taken = append(im.event.Taken, im.batch[i].Name)
			}
		}
		if r.OtherName() {
			im.event.OtherName++
		}
	}
	im.batch, im.lines = im.batch[:0], im.lines[:0]
	if im.now().Sub(im.reported) < importProgress {
		return nil
	}
	return im.report()
}

func (im *importer) report() error {
	im.reported = im.now()
	err := im.send(im.event)
	im.event.Taken, im.event.Refused = nil, nil
	return err
}

// printable returns name as it is, or quoted when it is not valid UTF-8 or
// holds what a terminal should not see.
func printable(name string) string {
	if q := strconv.Quote(name); !utf8.ValidString(name) || q != `"`+name+`"` {
		return q
	}
	return name
}
