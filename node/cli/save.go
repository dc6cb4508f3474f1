package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// errDamaged: what arrived is not what the node announced.
var errDamaged = errors.New("the bytes received are not those the node announced")

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

// target is where get writes a file's content.
type target struct {
	path   string    // absolute; of links, where they lead
	direct io.Writer // written as it is, such as stdout; nil: see open
	device bool      // a device or pipe: opened and written, never replaced
	mode   fs.FileMode
}

// target finds out what path is. A link stands for the file it leads to; a
// folder, or a link that leads nowhere, is refused.
func (a *app) target(path string) (target, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return target{}, err
	}
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil {
			return target{}, usage(path + " is a link that leads nowhere")
		}
		return target{path: path, mode: 0o644}, nil
	}
	switch {
	case err != nil:
		return target{}, err
	case fi.IsDir():
		return target{}, usage(path + " is a folder; name a file")
	case a.isStdout(fi): // also as /dev/stdout sent to a file, which must not be replaced below the shell's hands
		return target{path: path, direct: a.stdout}, nil
	case !fi.Mode().IsRegular():
		return target{path: path, device: true}, nil
	}
	path, err = filepath.EvalSymlinks(path)
	return target{path: path, mode: fi.Mode().Perm()}, err
}

func (a *app) isStdout(fi fs.FileInfo) bool {
	f, ok := a.stdout.(*os.File)
	if !ok {
		return false
	}
	out, err := f.Stat()
	return err == nil && os.SameFile(fi, out)
}

// save writes the answer's body to t.
func (t target) save(ctx context.Context, resp *http.Response) error {
	switch {
	case t.direct != nil:
		return receive(ctx, t.direct, resp)
	case t.device:
		f, err := os.OpenFile(t.path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(receive(ctx, f, resp), f.Close())
	}
	return t.replace(ctx, resp)
}

// replace writes the body beside the path and renames it when it is whole.
func (t target) replace(ctx context.Context, resp *http.Response) error {
	tmp, err := os.CreateTemp(filepath.Dir(t.path), ".desnode-get-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	w := bufio.NewWriterSize(tmp, 1<<20)
	err = receive(ctx, w, resp)
	if err = errors.Join(err, w.Flush(), tmp.Chmod(t.mode), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), t.path)
}
