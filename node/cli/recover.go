package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

// recovering is one run of recover.
type recovering struct {
	a       *app
	fix     api.RecoverRequest
	compare bool
	only    []string
	shown   map[string]int // by kind and what became of it
}

func (a *app) recover() *cobra.Command {
	r := &recovering{a: a, shown: map[string]int{}}
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Print what is unfinished and why, and mend it",
		Long: `Prints what the node finds unfinished or not as it should be, each with why and with its cure. --fix does what is
safe: it acknowledges and verifies packs, settles deletions that were cut, tries failed files again, makes a backup.
What moves objects away or deletes them, garbage all of it, is done with --yes only, and stands in the audit log.

--compare also holds the sources' tables, the manifest and the store against each other: it reads all rows and all
catalogs, no content of files, and changes nothing. With -o json, --fix and --compare print one object a line.

Exit code 1 when something is left that is repairable or at risk; notes alone leave 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case r.fix.Yes && !r.fix.Fix:
				return usage("--yes goes with --fix")
			case len(r.only) > 0 && !r.compare:
				return usage("--only goes with --compare")
			}
			return r.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&r.fix.Fix, "fix", false, "do what is safe")
	cmd.Flags().BoolVar(&r.fix.Yes, "yes", false, "with --fix: also move garbage to quarantine, and delete what has been there long enough")
	cmd.Flags().BoolVar(&r.compare, "compare", false, "also compare the sources, the manifest and the store")
	cmd.Flags().StringSliceVar(&r.only, "only", nil, "with --compare: only store, rows, catalogs, or some of them")
	return cmd
}

func (r *recovering) run(ctx context.Context) error {
	c, err := r.a.client()
	if err != nil {
		return err
	}
	defer c.close()
	if !r.fix.Fix && !r.compare {
		return r.list(ctx, c)
	}
	left, err := r.mend(ctx, c)
	if err != nil {
		return err
	}
	var differences int64
	if r.compare {
		if differences, err = r.differences(ctx, c); err != nil {
			return err
		}
	}
	switch {
	case left > 0 && differences > 0:
		return fmt.Errorf("%w: %s left, %s repairable or at risk", errFailed, count(left, "finding"), count(differences, "difference"))
	case left > 0:
		return leftOver(left)
	case differences > 0:
		return fmt.Errorf("%w: %s repairable or at risk", errFailed, count(differences, "difference"))
	}
	return nil
}

func leftOver(n int64) error { return fmt.Errorf("%w: %s left", errFailed, count(n, "finding")) }

// list prints what is unfinished, which any node tells anybody.
func (r *recovering) list(ctx context.Context, c *client) error {
	u, err := call[api.Unfinished](ctx, c, http.MethodGet, api.PathUnfinished, nil)
	if err != nil {
		return err
	}
	left := int64(0)
	err = r.a.print(u, func(w io.Writer) error {
		for _, f := range u.Findings {
			if err := r.finding(w, api.RecoverEvent{Finding: &f}); err != nil {
				return err
			}
		}
		return r.rest(w, int64(len(u.Findings)), "nothing is unfinished")
	})
	for _, f := range u.Findings {
		if f.Severity != api.SeverityNote {
			left++
		}
	}
	if err == nil && left > 0 {
		err = leftOver(left)
	}
	return err
}

// mend asks the node to mend, or only to tell, and returns how much is left.
func (r *recovering) mend(ctx context.Context, c *client) (left int64, err error) {
	var last api.RecoverEvent
	err = stream(ctx, c, api.PathRecover, r.fix, func(e api.RecoverEvent) error {
		last = e
		switch {
		case e.Finding == nil && !e.Done:
			return nil
		case r.a.output == outputJSON:
			return r.a.line(e)
		case e.Finding == nil:
			return nil
		}
		return r.finding(r.a.stdout, e)
	})
	if err != nil || r.a.output == outputJSON {
		return last.Left, err
	}
	if err := r.rest(r.a.stdout, last.Found, "nothing is unfinished"); err != nil {
		return 0, err
	}
	if last.Found > 0 && r.fix.Fix {
		_, err = fmt.Fprintf(r.a.stdout, "%s: %s fixed, %s left\n", count(last.Found, "finding"), formatCount(last.Fixed), formatCount(last.Left))
	}
	return last.Left, err
}

// differences compares, and returns how many differences want a cure.
func (r *recovering) differences(ctx context.Context, c *client) (int64, error) {
	p := r.a.progress("compare")
	var last api.CompareEvent
	err := stream(ctx, c, api.PathCompare, api.CompareRequest{Only: r.only}, func(e api.CompareEvent) error {
		last = e
		p.update(e.Bytes, 0, e.Rows+e.Records)
		switch {
		case r.a.output == outputJSON && (e.Difference != nil || e.Done):
			return r.a.line(e)
		case r.a.output == outputJSON || e.Difference == nil:
			return nil
		}
		p.clear()
		return r.difference(r.a.stdout, *e.Difference)
	})
	p.done()
	bad := last.Repairable + last.AtRisk
	if err != nil || r.a.output == outputJSON {
		return bad, err
	}
	if err := r.rest(r.a.stdout, bad+last.Notes, "no differences"); err != nil {
		return bad, err
	}
	_, err = fmt.Fprintf(r.a.stdout, "compared %s, %s, %s, %s\n%s at risk, %s repairable, %s; %s, %s from the store\n",
		count(last.Packs, "pack"), count(last.Objects, "object"), count(last.Rows, "row"), count(last.Records, "record"),
		formatCount(last.AtRisk), formatCount(last.Repairable), count(last.Notes, "note"), count(last.Requests, "request"), formatBytes(last.Bytes))
	return bad, err
}

// line prints one JSON object on a line of its own.
func (a *app) line(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// clear takes the bar off the terminal, so that results can be printed there.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// mostOfAKind is how many findings or differences of one kind people are shown.
// JSON has all of them.
const mostOfAKind = 20

// counted reports whether one more of this kind is to be shown.
func (r *recovering) counted(kind string) bool {
	r.shown[kind]++
	return r.shown[kind] <= mostOfAKind
}

// rest says what was not shown, and none when there was nothing at all.
func (r *recovering) rest(w io.Writer, all int64, none string) error {
	var more int
	for _, n := range r.shown {
		more += max(n-mostOfAKind, 0)
	}
	clear(r.shown)
	switch {
	case all == 0:
		_, err := fmt.Fprintln(w, none)
		return err
	case more > 0:
		_, err := fmt.Fprintf(w, "and %s more of the kinds above; -o json has all\n", formatCount(int64(more)))
		return err
	}
	return nil
}

func (r *recovering) finding(w io.Writer, e api.RecoverEvent) error {
	f := e.Finding
	if !r.counted(f.Kind + " " + e.Outcome) {
		return nil
	}
	why := printable(f.Why)
	if !f.Since.IsZero() {
		why = "since " + f.Since.UTC().Truncate(time.Second).Format(time.RFC3339) + ": " + why
	}
	lines := []string{why}
	if e.Outcome != "" && e.Outcome != api.OutcomeLeft {
		lines = append(lines, strings.TrimSuffix(printable(e.Outcome)+": "+printable(e.Text), ": "))
	}
	if e.Outcome != api.OutcomeFixed {
		lines = append(lines, "cure: "+printable(f.Cure))
	}
	return item(w, f.Severity, f.Kind, f.Subject, lines...)
}

func (r *recovering) difference(w io.Writer, d api.Difference) error {
	if !r.counted(d.Kind) {
		return nil
	}
	return item(w, d.Severity, d.Kind, d.Subject, printable(d.Found), "cure: "+printable(d.Cure))
}

// pageWidth is how wide text for people is, in characters.
const pageWidth = 80

// item writes one entry: a line that says what it is, and indented lines below.
func item(w io.Writer, severity, kind, subject string, lines ...string) error {
	head := fmt.Sprintf("%-10s  %s  ", strings.ToUpper(printable(severity)), printable(kind))
	subject = shortened(subject)
	if utf8.RuneCountInString(head+subject) <= pageWidth {
		head, subject = head+subject, ""
	}
	var b strings.Builder
	b.WriteString(strings.TrimRight(head, " ") + "\n")
	for _, line := range append([]string{subject}, lines...) {
		if line != "" {
			wrap(&b, line, "    ")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes text in lines of pageWidth, each after indent. A word that is longer
// has a line of its own.
func wrap(b *strings.Builder, text, indent string) {
	used := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case used == 0:
			b.WriteString(indent)
			used = len(indent)
		case used+1+n > pageWidth:
			b.WriteString("\n" + indent + "  ")
			used = len(indent) + 2
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += n
	}
	b.WriteString("\n")
}
