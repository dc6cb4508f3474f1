package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
)

// verifyResult is what verify prints as JSON.
type verifyResult struct {
	OK      bool              `json:"ok"`
	Packs   []api.VerifyEvent `json:"packs"`
	Damaged int               `json:"damaged"`
	Unread  int               `json:"unread"` // the store did not give them; nothing is known of damage
}

func (a *app) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [PACK...]",
		Short: "Read packs back from the store and check every record",
		Long:  "Reads the named packs, or all, back from the store whole and checks every byte against the checksums. Exit code 1 when one is damaged, 4 when one could not be read.",
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
				result.OK = result.OK && e.OK
				switch {
				case e.OK:
				case e.Damage == "" && e.Unread != "":
					result.Unread++
				default:
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
			switch {
			case result.Damaged > 0:
				return fmt.Errorf("%w: %s damaged", errFailed, count(int64(result.Damaged), "pack"))
			case result.Unread > 0:
				return fmt.Errorf("%w: %s could not be read, which says nothing of damage", errUnavailable, count(int64(result.Unread), "pack"))
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
		switch {
		case e.OK:
		case e.Damage == "" && e.Unread != "":
			verdict = "not read: " + printable(e.Unread)
		default:
			verdict = "DAMAGED: " + printable(e.Damage)
		}
		t.row(e.Pack, formatCount(e.Records), formatBytes(e.Bytes), verdict)
	}
	return t.flush()
}
