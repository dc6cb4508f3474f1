package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
)

// verifyResult is what verify prints as JSON.
type verifyResult struct {
	OK      bool              `json:"ok"`
	Packs   []api.VerifyEvent `json:"packs"`
	Damaged int               `json:"damaged"`
}

func (a *app) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [PACK...]",
		Short: "Read packs back from the store and check every record",
		Long:  "Reads the named packs, or all, back from the store whole and checks every byte against the checksums. Exit code 1 when one is damaged.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.VerifyRequest
			for _, arg := range args {
				id, err := desformat.ParsePackID(arg)
				if err != nil {
					return &usageError{err}
				}
				req.Packs = append(req.Packs, id)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			result := verifyResult{OK: true, Packs: []api.VerifyEvent{}}
			p := a.progress("verify")
			var bytes, records int64
			err = stream(cmd.Context(), c, api.PathVerify, req, func(e api.VerifyEvent) error {
				if e.Pack.IsZero() {
					return nil
				}
				result.Packs = append(result.Packs, e)
				if !e.OK {
					result.OK = false
					result.Damaged++
				}
				bytes, records = bytes+e.Bytes, records+e.Records
				p.update(bytes, 0, records)
				return nil
			})
			p.done()
			if err != nil {
				return err
			}
			if len(result.Packs) > 0 || len(req.Packs) == 0 {
				if err := a.print(result, func(w io.Writer) error { return writeVerify(w, result) }); err != nil {
					return err
				}
			}
			for _, id := range req.Packs {
				if !slices.ContainsFunc(result.Packs, func(e api.VerifyEvent) bool { return e.Pack == id }) {
					return fmt.Errorf("%w: the manifest has no pack %s", errNotFound, id)
				}
			}
			if !result.OK {
				return fmt.Errorf("%w: %s damaged", errFailed, count(int64(result.Damaged), "pack"))
			}
			return nil
		},
	}
}

func writeVerify(w io.Writer, r verifyResult) error {
	if len(r.Packs) == 0 {
		_, err := io.WriteString(w, "no packs\n")
		return err
	}
	t := newTable(w)
	t.row("PACK", "RECORDS", "BYTES", "RESULT")
	for _, e := range r.Packs {
		verdict := "ok"
		if !e.OK {
			verdict = "DAMAGED: " + printable(e.Damage)
		}
		t.row(e.Pack, formatCount(e.Records), formatBytes(e.Bytes), verdict)
	}
	return t.flush()
}

func (a *app) failed() *cobra.Command {
	var source string
	var limit int
	cmd := &cobra.Command{
		Use:   "failed",
		Short: "List the files that could not be archived, and why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usage("--limit must be at least 1")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			all := api.FailedPage{Rows: []api.FailedRow{}}
			for {
				q := url.Values{"limit": {strconv.Itoa(min(limit-len(all.Rows), 1000))}}
				if source != "" {
					q.Set("source", source)
				}
				if all.Next != "" {
					q.Set("after", all.Next)
				}
				page, err := call[api.FailedPage](cmd.Context(), c, http.MethodGet, api.PathFailed+"?"+q.Encode(), nil)
				if err != nil {
					return err
				}
				all.Rows, all.Next = append(all.Rows, page.Rows...), page.Next
				if all.Next == "" || len(all.Rows) >= limit {
					break
				}
			}
			return a.print(all, func(w io.Writer) error { return writeFailed(w, all) })
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "only this source's files")
	cmd.Flags().IntVar(&limit, "limit", 1000, "list at most so many")
	return cmd
}

func writeFailed(w io.Writer, page api.FailedPage) error {
	if len(page.Rows) == 0 {
		_, err := io.WriteString(w, "none failed\n")
		return err
	}
	t := newTable(w)
	t.row("SOURCE", "STATE", "ATTEMPTS", "LAST", "CODE", "NAME", "WHAT HAPPENED")
	for _, r := range page.Rows {
		t.row(printable(r.Source), printable(r.State), r.Attempts, formatTime(r.LastAttempt), printable(r.Code), printable(r.Name), printable(r.Text))
	}
	if page.Next != "" {
		t.row("there are more: raise --limit")
	}
	return t.flush()
}

func (a *app) retry() *cobra.Command {
	return &cobra.Command{
		Use:   "retry [NAME...]",
		Short: "Try failed files again: those named, or all",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			r, err := call[api.RetryResponse](cmd.Context(), c, http.MethodPost, api.PathRetry, api.RetryRequest{Names: args})
			if err != nil {
				return err
			}
			if err := a.print(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s to be tried again\n", count(r.Retried, "file"))
				return err
			}); err != nil {
				return err
			}
			if r.Retried == 0 && len(args) > 0 {
				return fmt.Errorf("%w: no failed file has such a name", errNotFound)
			}
			return nil
		},
	}
}
