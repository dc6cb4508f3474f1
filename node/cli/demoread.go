package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/datavision/desnode/desformat"
)

// demoFile is one file that must come back.
type demoFile struct {
	name string // in the archive: the path below the folder
	size int64
}

// listFiles lists the regular files below dir whose names can be archived.
func listFiles(dir string) ([]demoFile, error) {
	var files []demoFile
	err := walkFiles(dir, func(name string, d fs.DirEntry) error {
		fi, err := d.Info()
		if err != nil {
			return err
		}
		files = append(files, demoFile{name, fi.Size()})
		return nil
	})
	return files, err
}

// hasFile reports whether listFiles would find any.
func hasFile(dir string) (found bool, err error) {
	err = walkFiles(dir, func(string, fs.DirEntry) error {
		found = true
		return fs.SkipAll
	})
	return found, err
}

// walkFiles calls each for the regular files below dir whose names can be
// archived.
func walkFiles(dir string, each func(name string, d fs.DirEntry) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return nil // the import passes over such folders too
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); desformat.CheckName(name) != nil {
			return nil // the import reports it
		}
		return each(name, d)
	})
}

// comparison is what reading files back found.
type comparison struct {
	identical int64
	bytes     int64
	wrong     []wrongFile
}

// wrongFile is a file that did not come back as it was.
type wrongFile struct {
	Name string `json:"name"`
	What string `json:"what"`
}

// compareAll reads every file over HTTP on several connections and compares it
// with the original below dir.
func compareAll(ctx context.Context, c *client, dir string, files []demoFile, p *progress) (comparison, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return comparison{}, err
	}
	defer root.Close()
	total := totalSize(files)
	var next atomic.Int64
	var readers sync.WaitGroup
	var mu sync.Mutex // guards result and p
	var result comparison
	for range demoReaders {
		readers.Go(func() {
			buf := new(compareBuffers)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(files)) {
					return
				}
				err := buf.compare(ctx, c, root, files[i])
				mu.Lock()
				if err == nil {
					result.identical++
					result.bytes += files[i].size
				} else if ctx.Err() == nil {
					result.wrong = append(result.wrong, wrongFile{files[i].name, err.Error()})
				}
				p.update(result.bytes, total, result.identical)
				mu.Unlock()
			}
		})
	}
	readers.Wait()
	p.done()
	return result, context.Cause(ctx)
}

var errDiffers = errors.New("its bytes differ")

// compareBuffers is what one connection reads into.
type compareBuffers struct{ ours, theirs [128 << 10]byte }

// compare returns nil when the node serves the file from a pack, byte for byte
// as the original is.
func (b *compareBuffers) compare(ctx context.Context, c *client, root *os.Root, f demoFile) error {
	resp, err := c.do(ctx, http.MethodGet, filesPath+escapeName(f.name), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.Header.Get("X-Des-Pack") == "" {
		return errors.New("it was not served from a pack")
	}
	original, err := root.Open(filepath.FromSlash(f.name))
	if err != nil {
		return err
	}
	defer original.Close()
	for offset := int64(0); ; {
		n, errOurs := io.ReadFull(original, b.ours[:])
		m, errTheirs := io.ReadFull(resp.Body, b.theirs[:])
		if !bytes.Equal(b.ours[:n], b.theirs[:m]) {
			return fmt.Errorf("%w near byte %d", errDiffers, offset)
		}
		offset += int64(n)
		ended := isEnd(errOurs)
		if ended && isEnd(errTheirs) {
			return nil
		}
		if err := errors.Join(errOurs, errTheirs); err != nil {
			return fmt.Errorf("after %d bytes: %w", offset, err)
		}
	}
}

func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF } //nolint:errorlint // io.ReadFull returns these two bare
