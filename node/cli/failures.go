package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/source"
)

func (a *app) failed() *cobra.Command {
	var q api.FailedQuery
	cmd := &cobra.Command{
		Use:   "failed",
		Short: "List the files that could not be archived, by code and one by one",
		Long: `Sums up by code the files that could not be archived, or whose original was not deleted, and lists them.
'desnode retry' tries them again, 'desnode retry --code C' those of one code.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 1 {
				return usage("--limit must be at least 1")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			all, err := listFailed(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			if len(all.Rows) == 0 {
				if err := knownCode(q.Code); err != nil {
					return err
				}
			}
			return a.print(all, func(w io.Writer) error { return writeFailed(w, all) })
		},
	}
	cmd.Flags().StringVar(&q.Source, "source", "", "only this source's files")
	cmd.Flags().StringVar(&q.Code, "code", "", "only files with this failure code, such as no-file")
	cmd.Flags().IntVar(&q.Limit, "limit", 1000, "list at most so many")
	return cmd
}

// listFailed reads pages until the limit, and returns them as one.
func listFailed(ctx context.Context, c *client, q api.FailedQuery) (api.FailedPage, error) {
	all := api.FailedPage{Rows: []api.FailedRow{}}
	for {
		params := url.Values{"limit": {strconv.Itoa(min(q.Limit-len(all.Rows), api.MaxFailed))}}
		for key, value := range map[string]string{"source": q.Source, "code": q.Code, "after": all.Next} {
			if value != "" {
				params.Set(key, value)
			}
		}
		page, err := call[api.FailedPage](ctx, c, http.MethodGet, api.PathFailed+"?"+params.Encode(), nil)
		if err != nil {
			return all, err
		}
		if all.Next == "" {
			all.Codes = page.Codes
		}
		all.Rows, all.Next = append(all.Rows, page.Rows...), page.Next
		if all.Next == "" || len(all.Rows) >= q.Limit {
			return all, nil
		}
	}
}

func writeFailed(w io.Writer, page api.FailedPage) error {
	if len(page.Rows) == 0 {
		_, err := io.WriteString(w, "none failed\n")
		return err
	}
	if err := writeCodes(w, page.Codes); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	t := newTable(w)
	t.row("SOURCE", "STATE", "ATTEMPTS", "LAST", "CODE", "NAME", "WHAT HAPPENED")
	for _, r := range page.Rows {
		t.row(printable(r.Source), printable(r.State), r.Attempts, formatTime(r.LastAttempt), printable(r.Code), shortened(r.Name), shortened(r.Text))
	}
	if err := t.flush(); err != nil || page.Next == "" {
		return err
	}
	_, err := io.WriteString(w, "there are more: raise --limit\n")
	return err
}

// knownCode refuses a code that no file can have. It is asked when none has it,
// since a newer node may know more.
func knownCode(code string) error {
	if code == "" || slices.Contains(source.Codes(), code) {
		return nil
	}
	return usage(fmt.Sprintf("--code: no file has %q; the codes are %s", code, strings.Join(source.Codes(), ", ")))
}

// writeCodes writes the sums by code.
func writeCodes(w io.Writer, codes []api.FailureCode) error {
	t := newTable(w)
	t.row("SOURCE", "CODE", "FILES", "BYTES", "OLDEST", "NEWEST")
	for _, c := range codes {
		t.row(printable(c.Source), printable(c.Code), formatCount(c.Rows), formatBytes(c.Bytes), formatTime(c.Oldest), formatTime(c.Newest))
	}
	return t.flush()
}

func (a *app) retry() *cobra.Command {
	var req api.RetryRequest
	cmd := &cobra.Command{
		Use:   "retry [NAME...]",
		Short: "Try failed files again: those named, those of one code, or all",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			req.Names = args
			r, err := call[api.RetryResponse](cmd.Context(), c, http.MethodPost, api.PathRetry, req)
			if err != nil {
				return err
			}
			if err := a.print(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s to be tried again\n", count(r.Retried, "file"))
				return err
			}); err != nil {
				return err
			}
			if r.Retried == 0 {
				if err := knownCode(req.Code); err != nil {
					return err
				}
			}
			if r.Retried == 0 && len(args) > 0 {
				return fmt.Errorf("%w: no failed file has such a name", errNotFound)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&req.Code, "code", "", "only files with this failure code, such as no-file")
	cmd.Flags().StringVar(&req.Source, "source", "", "only this source's files")
	return cmd
}
