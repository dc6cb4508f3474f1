package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
)

func (a *app) importDir() *cobra.Command {
	var prefix, manifest string
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Register every file below DIR, to be archived",
		Long: `Registers every regular file below DIR in the node's embedded source; its name is its path below DIR.
The node reads DIR itself, so DIR is a folder of the node's machine. Links and special files are passed over and
counted; names that cannot be archived are listed, and the rest goes on. A file that changed since its last import
is archived again. A name that a file elsewhere has already is left alone and makes the exit code 1, and so does a
folder or file that cannot be read, or one that the manifest lists and DIR does not have.

A path keeps the name of its first import: importing it again with another --prefix does not rename it, and counts it
as before.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := desformat.CheckName(prefix + "x"); err != nil {
				return usage(fmt.Sprintf("--prefix %s: no name can begin like this: %v", printable(prefix), err))
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			req := api.ImportRequest{Prefix: prefix}
			if req.Dir, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			if manifest != "" {
				if req.Files, err = a.readManifest(manifest); err != nil {
					return err
				}
			}
			total, err := runImport(cmd.Context(), c, req, a.progress("import"))
			if err != nil {
				return err
			}
			if err := a.print(total, func(w io.Writer) error { return writeImport(w, total, prefix != "") }); err != nil {
				return err
			}
			return leftOut(total)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "text that goes before each new name, such as docs/")
	cmd.Flags().StringVar(&manifest, "manifest", "", "file with the paths to import, relative to DIR, one a line; - reads stdin")
	return cmd
}

// leftOut returns an error when the import did not take all that it should
// have. Names that can never be archived are no such case.
func leftOut(e api.ImportEvent) error {
	var errs []error
	if n := len(e.Taken); n > 0 {
		errs = append(errs, fmt.Errorf("%w: %s taken by files elsewhere; give these another name with --prefix", errFailed, count(int64(n), "name")))
	}
	unread := int64(0)
	for _, r := range e.Refused {
		if !strings.HasPrefix(r.Reason, desformat.ErrInvalidName.Error()) {
			unread++
		}
	}
	if unread > 0 {
		errs = append(errs, fmt.Errorf("%w: %s of the above should have been imported and could not", errFailed, formatCount(unread)))
	}
	return errors.Join(errs...)
}

// readManifest reads one path a line; empty lines are passed over.
func (a *app) readManifest(path string) ([]string, error) {
	r := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		defer f.Close()
		r = f
	}
	var files []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := strings.TrimSuffix(lines.Text(), "\r"); line != "" {
			files = append(files, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(files) == 0 {
		return nil, usage("the manifest lists no file")
	}
	return files, nil
}

// runImport imports and returns the last event with all lists gathered.
func runImport(ctx context.Context, c *client, req api.ImportRequest, p *progress) (api.ImportEvent, error) {
	var total api.ImportEvent
	err := stream(ctx, c, api.PathImport, req, func(e api.ImportEvent) error {
		if e.Done && e.Files == 0 {
			total.End = e.End
			return nil // it has no figures
		}
		e.Taken = append(total.Taken, e.Taken...)
		e.Refused = append(total.Refused, e.Refused...)
		total = e
		p.update(e.Bytes, 0, e.Files)
		return nil
	})
	p.done()
	return total, err
}

// writeImport writes the summary; with a prefix it says which files do not get it.
func writeImport(w io.Writer, e api.ImportEvent, prefixed bool) error {
	_, err := fmt.Fprintf(w, "%s, %s: %s new, %s changed, %s as before\n", count(e.Files, "file"), formatBytes(e.Bytes),
		formatCount(e.New), formatCount(e.Changed), formatCount(e.Unchanged))
	if known := e.Unchanged + e.Changed; prefixed && known > 0 {
		_, noted := fmt.Fprintf(w, "%s registered before: each keeps the name of its first import, with that import's prefix or none\n", count(known, "file"))
		err = errors.Join(err, noted)
	}
	return errors.Join(err, writeLeftOut(w, e))
}

// writeLeftOut lists what an import did not register, and why.
func writeLeftOut(w io.Writer, e api.ImportEvent) error {
	var b strings.Builder
	if s := e.Skipped; s.Links+s.Special > 0 {
		fmt.Fprintf(&b, "skipped %s and %s\n", count(s.Links, "symbolic link"), count(s.Special, "special file"))
	}
	for _, r := range e.Refused {
		fmt.Fprintf(&b, "refused %s: %s\n", printable(r.Name), printable(r.Reason))
	}
	for _, name := range e.Taken {
		fmt.Fprintf(&b, "taken %s: a file elsewhere has this name\n", printable(name))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
