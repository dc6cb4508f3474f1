package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/desformat"
)

func (a *app) pack() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pack",
		Short: "Look into a pack file: ls, cat, inspect, verify",
		Long: `Works on one pack as a file, without a node. A file that is cut, damaged or no pack at all is reported as such, exit
code 1. ls, cat and inspect print what can be read and then hold the whole file against its SHA-256; verify says where it is
damaged.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usage("say what to do: ls, cat, inspect or verify") },
	}
	cmd.AddCommand(a.packLs(), a.packCat(), a.packInspect(), a.packVerify())
	return cmd
}

// packFile is an open pack.
type packFile struct {
	*desformat.Reader
	fetcher desformat.Fetcher
	size    int64
}

// withPack opens the file at path as a pack and calls use. Errors name path.
func withPack(ctx context.Context, path string, use func(packFile) error) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not make it wait
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return usage(path + " is not a regular file")
	}
	fetcher := desformat.FetchReaderAt(f)
	r, err := desformat.OpenPack(ctx, fetcher, fi.Size())
	if err == nil {
		err = use(packFile{r, fetcher, fi.Size()})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// withWholePack is withPack for what reads a part of the file only: in the end
// the whole of it is held against the SHA-256 in its footer, so that no damage
// ends well.
func withWholePack(ctx context.Context, path string, use func(packFile) error) error {
	return withPack(ctx, path, func(p packFile) error {
		if err := use(p); err != nil {
			return err
		}
		f := p.Footer()
		end := f.Index.Offset + f.Index.Length + int64(len(f.Replaces)*len(desformat.PackID{})) // where the footer begins
		r, err := p.fetcher.Fetch(ctx, 0, end)
		if err != nil {
			return err
		}
		h := sha256.New()
		n, err := io.Copy(h, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
		if n != end || [sha256.Size]byte(h.Sum(nil)) != f.SHA256 {
			return fmt.Errorf("%w: the file has not the SHA-256 that its footer names; 'desnode pack verify' says where it is damaged", desformat.ErrCorrupt)
		}
		return nil
	})
}

// packRecord is one line of pack ls as JSON.
type packRecord struct {
	Ordinal  uint32          `json:"ordinal"`
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	Source   string          `json:"source"`
	ID       string          `json:"id"`
	Version  uint32          `json:"version"`
	Seq      desformat.Token `json:"seq"`
	Size     int64           `json:"size"` // bytes
	SHA256   string          `json:"sha256"`
	Modified time.Time       `json:"modified"`
	Offset   int64           `json:"offset"`
	Length   int64           `json:"length"` // bytes
}

func recordOf(e desformat.Entry) packRecord {
	return packRecord{
		Ordinal: e.Ordinal, Type: typeName(e.Type), Name: e.Name, Source: e.Source, ID: e.ID, Version: e.Version, Seq: e.Seq,
		Size: e.Size, SHA256: hex.EncodeToString(e.SHA256[:]), Modified: e.ModTime.UTC(), Offset: e.Offset, Length: e.Length,
	}
}

func typeName(t desformat.RecordType) string {
	switch t {
	case desformat.TypeFile:
		return "file"
	case desformat.TypeTombstone:
		return "tombstone"
	case desformat.TypeVoid:
		return "void"
	}
	return strconv.Itoa(int(t))
}

func (a *app) packLs() *cobra.Command {
	return &cobra.Command{
		Use:   "ls FILE",
		Short: "List a pack's records, in the order of their name hashes",
		Long: `Lists the records of a pack from its catalog. With -o json each record is one object on a line of its own.
What is printed has been checked; that the rest of the file is whole is checked at the end.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withWholePack(cmd.Context(), args[0], func(p packFile) error {
				enc := json.NewEncoder(a.stdout)
				enc.SetEscapeHTML(false)
				for e, err := range p.Catalog(cmd.Context()) {
					if err != nil {
						return err
					}
					if a.output == outputJSON {
						err = enc.Encode(recordOf(e))
					} else {
						_, err = fmt.Fprintf(a.stdout, "#%-8d %-9s %12d  %s  %x  %s %s  %s\n", e.Ordinal, typeName(e.Type), e.Size,
							formatTime(e.ModTime), e.SHA256, printable(e.Source), printable(e.ID), printable(e.Name))
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// addNameFlag adds the flag by which a record is named that "#7" would not
// reach: one whose name looks like this.
func addNameFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("name", false, "take the second argument as a name, even when it looks like #ORDINAL")
}

func (a *app) packCat() *cobra.Command {
	var byName *bool
	cmd := &cobra.Command{
		Use:   "cat FILE NAME|#ORDINAL",
		Short: "Write the content of one record to stdout",
		Long: `Writes the content of one record to stdout, verified as it goes: damage found on the way ends the command with exit
code 1. #ORDINAL takes the record of that number; quote it, a shell takes # for a comment. A file whose name is #7 is
reached with --name.
That the rest of the file is whole is checked at the end.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.output == outputJSON {
				return usage("pack cat has no -o json: the content itself goes to stdout")
			}
			return withWholePack(cmd.Context(), args[0], func(p packFile) error {
				loc, err := p.find(cmd.Context(), args[1], *byName)
				if err != nil {
					return err
				}
				r, err := desformat.OpenRecord(cmd.Context(), p.fetcher, loc)
				if err != nil {
					return err
				}
				defer r.Close()
				if t := r.Header().Type; t != desformat.TypeFile {
					return fmt.Errorf("%w: the record is a %s", errNotFound, typeName(t))
				}
				_, err = io.Copy(a.stdout, r)
				return err
			})
		},
	}
	byName = addNameFlag(cmd)
	return cmd
}

// find returns the place of the record that text names: its newest version by
// name, or, unless it must be a name, "#7".
func (p packFile) find(ctx context.Context, text string, byName bool) (desformat.Location, error) {
	if digits, ok := strings.CutPrefix(text, "#"); ok && !byName {
		if ordinal, err := strconv.ParseUint(digits, 10, 32); err == nil {
			return p.findOrdinal(ctx, uint32(ordinal))
		}
	}
	index, err := p.Index(ctx)
	if err != nil {
		return desformat.Location{}, err
	}
	var best desformat.Location
	var seq desformat.Token
	found := false
	for _, loc := range index.Lookup(desformat.HashName(text), nil) {
		h, err := desformat.ReadHeader(ctx, p.fetcher, loc)
		if err != nil {
			return desformat.Location{}, err
		}
		if h.Name == text && h.Type != desformat.TypeVoid && (!found || h.Seq.Compare(seq) > 0) {
			best, seq, found = loc, h.Seq, true
		}
	}
	if !found {
		return desformat.Location{}, fmt.Errorf("%w: the pack has no record named %s", errNotFound, printable(text))
	}
	return best, nil
}

func (p packFile) findOrdinal(ctx context.Context, ordinal uint32) (desformat.Location, error) {
	for e, err := range p.Catalog(ctx) {
		if err != nil {
			return desformat.Location{}, err
		}
		if e.Ordinal == ordinal {
			return e.Location, nil
		}
	}
	return desformat.Location{}, fmt.Errorf("%w: the pack has %s", errNotFound, count(int64(p.Footer().Records), "record"))
}

// packSection is the place of a pack's catalog or index as JSON.
type packSection struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"` // bytes
	CRC    string `json:"crc32c"` // hex
}

// packInfo is what pack inspect prints as JSON.
type packInfo struct {
	Pack         desformat.PackID    `json:"pack"`
	Cluster      desformat.ClusterID `json:"cluster"`
	Token        desformat.Token     `json:"token"`
	MinSeq       desformat.Token     `json:"min_seq"`
	MaxSeq       desformat.Token     `json:"max_seq"`
	Range        desformat.Range     `json:"range"`
	Records      uint32              `json:"records"`
	PayloadBytes int64               `json:"payload_bytes"`
	Size         int64               `json:"size"` // bytes
	Created      time.Time           `json:"created"`
	Replaces     []desformat.PackID  `json:"replaces"`
	Catalog      packSection         `json:"catalog"`
	Index        packSection         `json:"index"`
	SHA256       string              `json:"sha256"` // of all bytes before the footer
}

func (a *app) packInspect() *cobra.Command {
	var byName *bool
	cmd := &cobra.Command{
		Use:   "inspect FILE [NAME|#ORDINAL]",
		Short: "Print what a pack's footer says, or one record's header",
		Long: `Prints what a pack's footer says; with a record, its header. What is printed has been checked; that the rest of the file
is whole is checked at the end.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withWholePack(cmd.Context(), args[0], func(p packFile) error {
				if len(args) == 1 {
					info := infoOfPack(p.Footer())
					return a.print(info, info.write)
				}
				loc, err := p.find(cmd.Context(), args[1], *byName)
				if err != nil {
					return err
				}
				h, err := desformat.ReadHeader(cmd.Context(), p.fetcher, loc)
				if err != nil {
					return err
				}
				r := recordOf(desformat.Entry{Record: h.Record, Location: loc})
				return a.print(r, func(w io.Writer) error { return writeRecord(w, r, h) })
			})
		},
	}
	byName = addNameFlag(cmd)
	return cmd
}

func sectionOf(s desformat.Section) packSection {
	return packSection{Offset: s.Offset, Length: s.Length, CRC: fmt.Sprintf("%08x", s.CRC)}
}

func infoOfPack(f desformat.Footer) packInfo {
	return packInfo{
		Pack: f.Pack, Cluster: f.Cluster, Token: f.Token, MinSeq: f.MinSeq, MaxSeq: f.MaxSeq, Range: f.Range, Records: f.Records,
		PayloadBytes: f.PayloadBytes, Size: f.Size, Created: f.Created.UTC(), Replaces: append([]desformat.PackID{}, f.Replaces...),
		Catalog: sectionOf(f.Catalog), Index: sectionOf(f.Index), SHA256: hex.EncodeToString(f.SHA256[:]),
	}
}

func (i packInfo) write(w io.Writer) error {
	t := newTable(w)
	t.row("pack", i.Pack)
	t.row("cluster", i.Cluster)
	t.row("range", i.Range)
	t.row("token", i.Token)
	t.row("seq", i.MinSeq.String()+" to "+i.MaxSeq.String())
	t.row("created", formatTime(i.Created))
	t.row("records", i.Records)
	t.row("payload", fmt.Sprintf("%d (%s)", i.PayloadBytes, formatBytes(i.PayloadBytes)))
	t.row("size", fmt.Sprintf("%d (%s)", i.Size, formatBytes(i.Size)))
	t.row("catalog", fmt.Sprintf("%d bytes at offset %d, CRC32C %s", i.Catalog.Length, i.Catalog.Offset, i.Catalog.CRC))
	t.row("index", fmt.Sprintf("%d bytes at offset %d, CRC32C %s", i.Index.Length, i.Index.Offset, i.Index.CRC))
	t.row("sha256", i.SHA256)
	for _, r := range i.Replaces {
		t.row("replaces", r)
	}
	return t.flush()
}

func writeRecord(w io.Writer, r packRecord, h *desformat.Header) error {
	t := newTable(w)
	t.row("record", fmt.Sprintf("#%d, %s, %d bytes at offset %d", r.Ordinal, r.Type, r.Length, r.Offset))
	t.row("name", printable(r.Name))
	t.row("hash", h.Hash())
	t.row("source", printable(r.Source)+" "+printable(r.ID))
	t.row("version", r.Version)
	t.row("seq", r.Seq)
	t.row("size", fmt.Sprintf("%d (%s)", r.Size, formatBytes(r.Size)))
	t.row("sha256", r.SHA256)
	t.row("modified", formatTime(r.Modified))
	if h.Meta.ContentType != "" {
		t.row("type", printable(h.Meta.ContentType))
	}
	if len(h.Meta.Custom) > 0 {
		t.row("metadata", printable(string(h.Meta.Custom)))
	}
	return t.flush()
}

// packVerdict is the result of verifying one file.
type packVerdict struct {
	File    string `json:"file"`
	OK      bool   `json:"ok"`
	Records int64  `json:"records"`
	Bytes   int64  `json:"bytes"`
	Damage  string `json:"damage,omitempty"`
}

func (a *app) packVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE...",
		Short: "Read packs whole and check every byte",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			verdicts := []packVerdict{}
			var errs []error
			for _, path := range args {
				v := packVerdict{File: path}
				err := withPack(cmd.Context(), path, func(p packFile) error {
					v.Bytes = p.size
					return p.Verify(cmd.Context(), func(desformat.Entry) error { v.Records++; return nil })
				})
				if cmd.Context().Err() != nil {
					return context.Cause(cmd.Context())
				}
				if v.OK = err == nil; !v.OK {
					v.Damage = err.Error()
					errs = append(errs, err)
				}
				verdicts = append(verdicts, v)
			}
			return errors.Join(append([]error{a.print(verdicts, func(w io.Writer) error { return writeVerdicts(w, verdicts) })}, errs...)...)
		},
	}
}

func writeVerdicts(w io.Writer, verdicts []packVerdict) error {
	for _, v := range verdicts {
		if v.OK {
			if _, err := fmt.Fprintf(w, "%s: ok, %s, %s\n", printable(v.File), count(v.Records, "record"), formatBytes(v.Bytes)); err != nil {
				return err
			}
		}
	}
	return nil
}
