package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

const filesPath = "/files/"

// errDamaged: what arrived is not what the node announced.
var errDamaged = errors.New("the bytes received are not those the node announced")

// fileInfo is what a node says about one file in the headers of its answer.
type fileInfo struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	Type     string    `json:"type"`
	Modified time.Time `json:"modified,omitzero"`
	SHA256   string    `json:"sha256,omitempty"` // hex; empty while the file is not packed
	Pack     string    `json:"pack,omitempty"`   // empty while the file is not packed
	Shard    string    `json:"shard,omitempty"`
	Node     string    `json:"node,omitempty"`
	SavedTo  string    `json:"saved_to,omitempty"`
}

func infoOf(name string, resp *http.Response) fileInfo {
	h := resp.Header
	f := fileInfo{
		Name: name, Size: resp.ContentLength, Type: h.Get("Content-Type"),
		Pack: h.Get("X-Des-Pack"), Shard: h.Get("X-Des-Shard"), Node: h.Get("X-Des-Node"),
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
	t.row("shard", printable(f.Shard))
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
the one that the node announced. On stdout a wrong SHA-256 is found at the end: the exit code says so.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && a.output == outputJSON {
				return usage("-o json needs -f: the content itself goes to stdout")
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
			if file == "" {
				return receive(cmd.Context(), a.stdout, resp)
			}
			info := infoOf(args[0], resp)
			if info.SavedTo, err = save(cmd.Context(), file, resp); err != nil || a.output != outputJSON {
				return err
			}
			return a.print(info, info.write)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to write the content; replaced when it exists")
	return cmd
}

// receive copies the answer's body to w and holds it against the announced
// length and SHA-256.
func receive(ctx context.Context, w io.Writer, resp *http.Response) error {
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, hash), resp.Body)
	switch sum, ok := digestOf(resp.Header); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the node broke off after %d of %d bytes: %w", n, resp.ContentLength, err)
	case err != nil:
		return err
	case resp.ContentLength >= 0 && n != resp.ContentLength, ok && string(sum) != string(hash.Sum(nil)):
		return errDamaged
	}
	return nil
}

// save writes the body beside path and renames it when it is whole. It returns
// the absolute path.
func save(ctx context.Context, path string, resp *http.Response) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".desnode-get-*")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	w := bufio.NewWriterSize(tmp, 1<<20)
	err = receive(ctx, w, resp)
	if err = errors.Join(err, w.Flush(), tmp.Chmod(0o644), tmp.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(tmp.Name(), path)
}

func (a *app) stat() *cobra.Command {
	return &cobra.Command{
		Use:   "stat NAME",
		Short: "Print what a node says about a file without reading it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
		Short: "Print where a file is: its shard, its pack and the place inside",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			l, err := call[api.Located](cmd.Context(), c, http.MethodGet, api.PathLocate+escapeName(args[0]), nil)
			if err != nil {
				return err
			}
			return a.print(l, func(w io.Writer) error { return writeLocated(w, l) })
		},
	}
}

func writeLocated(w io.Writer, l api.Located) error {
	t := newTable(w)
	t.row("name", printable(l.Name))
	t.row("hash", printable(l.Hash))
	t.row("shard", l.Shard)
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
