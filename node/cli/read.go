package cli

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
)

const filesPath = "/files/"

// fileInfo is what a node says about one file in the headers of its answer.
type fileInfo struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	Type     string    `json:"type"`
	Modified time.Time `json:"modified,omitzero"`
	SHA256   string    `json:"sha256,omitempty"` // hex; empty while the file is not packed
	Pack     string    `json:"pack,omitempty"`   // empty while the file is not packed
	Shard    *uint32   `json:"shard,omitempty"`
	Node     string    `json:"node,omitempty"`
	SavedTo  string    `json:"saved_to,omitempty"`
}

func infoOf(name string, resp *http.Response) fileInfo {
	h := resp.Header
	f := fileInfo{
		Name: name, Size: resp.ContentLength, Type: h.Get("Content-Type"),
		Pack: h.Get("X-Des-Pack"), Node: h.Get("X-Des-Node"),
	}
	if n, err := strconv.ParseUint(h.Get("X-Des-Shard"), 10, 32); err == nil {
		shard := uint32(n)
		f.Shard = &shard
	}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		f.Modified = t
	}
	if sum, ok := digestOf(h); ok {
		f.SHA256 = hex.EncodeToString(sum)
	}
	return f
}

// digestOf reads the SHA-256 of a Repr-Digest header.
func digestOf(h http.Header) ([]byte, bool) {
	text, ok := strings.CutPrefix(h.Get("Repr-Digest"), "sha-256=:")
	if !ok {
		return nil, false
	}
	sum, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, ":"))
	return sum, err == nil && len(sum) == sha256.Size
}

// write prints f in lines of key and value.
func (f fileInfo) write(w io.Writer) error {
	t := newTable(w)
	t.row("name", printable(f.Name))
	t.row("size", fmt.Sprintf("%d (%s)", f.Size, formatBytes(f.Size)))
	t.row("type", printable(f.Type))
	t.row("modified", formatTime(f.Modified))
	if f.Pack == "" {
		t.row("pack", "none yet: served from its source")
	} else {
		t.row("pack", printable(f.Pack))
		t.row("sha256", f.SHA256)
	}
	if f.Shard != nil {
		t.row("shard", *f.Shard)
	}
	t.row("node", printable(f.Node))
	if f.SavedTo != "" {
		t.row("saved to", f.SavedTo)
	}
	return t.flush()
}

func (a *app) get() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Write a file's content to stdout, or to a file",
		Long: `Writes the file's content to stdout, or with -f to a file, which appears only once it is whole and its SHA-256 is
the one that the node announced. -f follows links. On stdout, and with -f on a device or pipe, which is written as it
is, a wrong SHA-256 is found at the end: the exit code says so.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && a.output == outputJSON {
				return usage("-o json needs -f: the content itself goes to stdout")
			}
			to := target{direct: a.stdout}
			if file != "" {
				var err error
				if to, err = a.target(file); err != nil {
					return err
				}
				if to.direct != nil && a.output == outputJSON {
					return usage("-o json needs another file with -f: the content itself goes to stdout")
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			resp, err := c.do(cmd.Context(), http.MethodGet, filesPath+escapeName(args[0]), nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if err := to.save(cmd.Context(), resp); err != nil || a.output != outputJSON {
				return err
			}
			info := infoOf(args[0], resp)
			info.SavedTo = to.path
			return a.print(info, info.write)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to write the content to, replaced when it exists; devices and pipes are written to")
	return cmd
}

func (a *app) stat() *cobra.Command {
	return &cobra.Command{
		Use:   "stat NAME",
		Short: "Print what a node says about a file without reading it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := desformat.CheckName(args[0]); err != nil {
				return err // an answer to HEAD has no body to say why
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			resp, err := c.do(cmd.Context(), http.MethodHead, filesPath+escapeName(args[0]), nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			info := infoOf(args[0], resp)
			return a.print(info, info.write)
		},
	}
}

func (a *app) locate() *cobra.Command {
	return &cobra.Command{
		Use:   "locate NAME",
		Short: "Print where a file is: its shard and who serves it, its pack and the place inside",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(cmd.Context(), a, http.MethodGet, api.PathLocate+escapeName(args[0]), nil, writeLocated)
		},
	}
}

// ownersText names the owner of the shard, and who is asked after it.
func ownersText(l api.Located) string {
	text := short(l.Owner)
	if len(l.Fallbacks) > 0 {
		text += ", then " + shorts(l.Fallbacks)
	}
	return text
}

func writeLocated(w io.Writer, l api.Located) error {
	t := newTable(w)
	t.row("name", printable(l.Name))
	t.row("hash", printable(l.Hash))
	t.row("shard", l.Shard)
	if l.Owner != "" {
		t.row("owner", ownersText(l))
	}
	if l.State != "" {
		t.row("state", printable(l.State))
	}
	t.row("source", printable(l.Source)+" "+printable(l.ID))
	t.row("size", fmt.Sprintf("%d (%s)", l.Size, formatBytes(l.Size)))
	t.row("modified", formatTime(l.ModTime))
	t.row("version", l.Version)
	if l.In != api.InPack {
		t.row("pack", "none yet: served from its source")
		return t.flush()
	}
	t.row("sha256", printable(l.SHA256))
	t.row("pack", l.Pack)
	t.row("key", printable(l.Key))
	t.row("record", fmt.Sprintf("#%d, %d bytes at offset %d", l.Ordinal, l.Length, l.Offset))
	t.row("seq", l.Seq)
	return t.flush()
}
