package rig

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// File is one file of the ledger. Its bytes follow from seed and number.
type File struct {
	Name string
	Size int64
	Sum  [sha256.Size]byte
	key  [32]byte
}

// Content makes the bytes of the file.
func (f *File) Content() []byte {
	b := make([]byte, f.Size)
	_, _ = rand.NewChaCha8(f.key).Read(b) // never fails
	return b
}

// NewFiles plans count files below a folder of their own; size says how long
// the i-th is.
func NewFiles(seed uint64, folder string, count int, size func(i int, rnd *rand.Rand) int64) []*File {
	rnd := rand.New(rand.NewPCG(seed, uint64(len(folder))))
	out := make([]*File, count)
	for i := range out {
		f := &File{Name: fmt.Sprintf("%s/%02x/%05d.bin", folder, i%97, i), Size: size(i, rnd)}
		binary.LittleEndian.PutUint64(f.key[:], seed)
		binary.LittleEndian.PutUint64(f.key[8:], uint64(i))
		copy(f.key[16:], folder)
		f.Sum = sha256.Sum256(f.Content())
		out[i] = f
	}
	return out
}

// Small is a size of 1 to 64 KiB.
func Small(_ int, rnd *rand.Rand) int64 { return 1<<10 + rnd.Int64N(63<<10) }

// Always is one size.
func Always(size int64) func(int, *rand.Rand) int64 {
	return func(int, *rand.Rand) int64 { return size }
}

// Write makes the files below dir.
func Write(dir string, files []*File) error {
	for _, f := range files {
		path := f.Path(dir)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Content(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Path is where Write puts the file below dir.
func (f *File) Path(dir string) string { return filepath.Join(dir, filepath.FromSlash(f.Name)) }

// Originals counts the files that are still at their paths below dir.
func Originals(dir string, files []*File) (left int, err error) {
	for _, f := range files {
		switch _, statErr := os.Lstat(f.Path(dir)); {
		case statErr == nil:
			left++
		case !errors.Is(statErr, fs.ErrNotExist):
			err = errors.Join(err, statErr)
		}
	}
	return left, err
}

// Answer is what one read came to.
type Answer struct {
	Status int
	Code   string // of the problem, when it is one
	Right  bool   // 200 with the bytes of the file
	pack   string // X-Des-Pack
	err    error
}

// String is short enough for a report.
func (a Answer) String() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.Status == http.StatusOK && !a.Right:
		return "200 with other bytes"
	}
	return fmt.Sprintf("%d %s", a.Status, a.Code)
}

// Wrong reports whether bytes came that are not the file's.
func (a Answer) Wrong() bool { return a.err == nil && a.Status == http.StatusOK && !a.Right }

// Read reads a file by name through a node and compares it.
func (n *Node) Read(ctx context.Context, f *File) (a Answer) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Base+"/files/"+escape(f.Name), nil)
	if err != nil {
		return Answer{err: err}
	}
	resp, err := n.Client.Do(req)
	if err != nil {
		return Answer{err: err}
	}
	defer resp.Body.Close()
	a = Answer{Status: resp.StatusCode, pack: resp.Header.Get("X-Des-Pack")}
	if a.Status != http.StatusOK {
		var p problem
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p) // without a code it shows as such
		a.Code = p.Code
		return a
	}
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		a.err = err
		return a
	}
	a.Right = [sha256.Size]byte(h.Sum(nil)) == f.Sum
	return a
}

// ReadWithin is how long one read may take before it counts as unanswered.
const ReadWithin = 30 * time.Second

// ReadAll reads files through a node, some at once, and hands each answer on.
// each is called by one goroutine at a time.
func (n *Node) ReadAll(ctx context.Context, files []*File, each func(f *File, a Answer)) error {
	const readers = 8
	var mu sync.Mutex // one each at a time
	var wg sync.WaitGroup
	next := make(chan *File)
	for range readers {
		wg.Go(func() {
			for f := range next {
				one, cancel := context.WithTimeout(ctx, ReadWithin)
				a := n.Read(one, f)
				cancel()
				mu.Lock()
				each(f, a)
				mu.Unlock()
			}
		})
	}
	defer wg.Wait()
	defer close(next)
	for _, f := range files {
		select {
		case next <- f:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
