package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
)

func (a *app) importDir() *cobra.Command {
	var prefix, manifest, form string
	var forget bool
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Register every file below DIR, to be archived",
		Long: `Registers every regular file below DIR in the node's embedded source; its name is its path below DIR.
The node reads DIR itself, so DIR is a folder of the node's machine. Links and special files are passed over and
counted; names that cannot be archived are listed, and the rest goes on. A file that changed since its last import
is archived again. A name that a file elsewhere has already is left alone and makes the exit code 1, and so does a
folder or file that cannot be read, or one that the manifest lists and DIR does not have.

A path keeps the name of its first import: importing it again with another --prefix does not rename it, and says how
many files keep another name.

--manifest FILE registers the files that FILE lists and no others: one path a line, relative to DIR or absolute below
it; or CSV (.csv) whose first line names its columns, or JSON lines (.jsonl), with path and as far as known name, size,
modified (RFC 3339), sha256 (hex) and content_type. A line that makes no sense stops the import before it begins. A
file whose size or time is not as listed is left out and told with its line; its SHA-256 is compared when it is packed.
An import that was cut is repeated: what is registered already counts as before.

--forget DIR makes an imported folder no root any more, such as one whose disk is gone for good: its files are not read
again, those not archived yet fail as invalid-path, and what is archived stays.`,
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
			req := api.ImportRequest{Prefix: prefix, Forget: forget}
			if req.Dir, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			switch {
			case forget && (manifest != "" || prefix != ""):
				return usage("--forget goes with no other flag")
			case forget:
				return a.forget(cmd.Context(), c, req)
			case manifest == "" && form != "":
				return usage("--manifest-format is the form of a --manifest")
			case manifest != "":
				if req.Files, err = a.readManifest(manifest, form); err != nil {
					return err
				}
			}
			total, err := runImport(cmd.Context(), c, req, a.progress("import"))
			if err != nil {
				return err
			}
			if err := a.print(total, func(w io.Writer) error { return writeImport(w, total) }); err != nil {
				return err
			}
			return leftOut(total)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "text that goes before each new name, such as docs/")
	cmd.Flags().StringVar(&manifest, "manifest", "", "file that lists what to import; - reads stdin")
	cmd.Flags().StringVar(&form, "manifest-format", "", "form of the manifest: plain, csv or jsonl (default by its name)")
	cmd.Flags().BoolVar(&forget, "forget", false, "import nothing; make DIR, which may be gone, no root any more")
	return cmd
}

func (a *app) forget(ctx context.Context, c *client, req api.ImportRequest) error {
	e, err := runImport(ctx, c, req, a.progress("import"))
	if err != nil {
		return err
	}
	return a.print(e, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s is no root any more\n", printable(req.Dir))
		return err
	})
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

// runImport imports and returns the last event with all lists gathered. A list
// that is too long for one request takes several: the figures add up.
func runImport(ctx context.Context, c *client, req api.ImportRequest, p *progress) (api.ImportEvent, error) {
	defer p.done()
	chunks := [][]api.ImportFile{nil}
	if len(req.Files) > 0 {
		var err error
		if chunks, err = listedChunks(req.Files); err != nil {
			return api.ImportEvent{}, err
		}
	}
	var total api.ImportEvent
	for _, chunk := range chunks {
		req.Files = chunk
		before := total
		err := stream(ctx, c, api.PathImport, req, func(e api.ImportEvent) error {
			if e.Done && e.Files == 0 {
				total.End = e.End
				return nil // it has no figures
			}
			taken, refused := append(total.Taken, e.Taken...), append(total.Refused, e.Refused...)
			total = added(before, e)
			total.Taken, total.Refused = taken, refused
			p.update(total.Bytes, 0, total.Files)
			return nil
		})
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// added returns the sum of two events' figures.
func added(a, b api.ImportEvent) api.ImportEvent {
	return api.ImportEvent{
		Files: a.Files + b.Files, Bytes: a.Bytes + b.Bytes,
		New: a.New + b.New, Unchanged: a.Unchanged + b.Unchanged, Changed: a.Changed + b.Changed,
		OtherName: a.OtherName + b.OtherName,
		Skipped:   api.Skipped{Links: a.Skipped.Links + b.Skipped.Links, Special: a.Skipped.Special + b.Skipped.Special},
		End:       b.End,
	}
}

// writeImport writes the summary.
func writeImport(w io.Writer, e api.ImportEvent) error {
	_, err := fmt.Fprintf(w, "%s, %s: %s new, %s changed, %s as before\n", count(e.Files, "file"), formatBytes(e.Bytes),
		formatCount(e.New), formatCount(e.Changed), formatCount(e.Unchanged))
	if e.OtherName > 0 {
		_, noted := fmt.Fprintf(w, "%s registered before under another name, which stays: that of the first import\n", count(e.OtherName, "file"))
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
		line := ""
		if r.Line > 0 {
			line = fmt.Sprintf("line %d, ", r.Line)
		}
		fmt.Fprintf(&b, "refused %s%s: %s\n", line, printable(r.Name), printable(r.Reason))
	}
	for _, name := range e.Taken {
		fmt.Fprintf(&b, "taken %s: a file elsewhere has this name\n", printable(name))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
