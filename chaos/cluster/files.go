package main

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

// file is one file of the ledger. Its bytes follow from seed and number.
type file struct {
	name string
	size int64
	sum  [sha256.Size]byte
	key  [32]byte
}

// content makes the bytes of the file.
func (f *file) content() []byte {
	b := make([]byte, f.size)
	_, _ = rand.NewChaCha8(f.key).Read(b) // never fails
	return b
}

// newFiles plans count files below a folder of their own; size says how long
// the i-th is.
func newFiles(seed uint64, folder string, count int, size func(i int, rnd *rand.Rand) int64) []*file {
	rnd := rand.New(rand.NewPCG(seed, uint64(len(folder))))
	out := make([]*file, count)
	for i := range out {
		f := &file{name: fmt.Sprintf("%s/%02x/%05d.bin", folder, i%97, i), size: size(i, rnd)}
		binary.LittleEndian.PutUint64(f.key[:], seed)
		binary.LittleEndian.PutUint64(f.key[8:], uint64(i))
		copy(f.key[16:], folder)
		f.sum = sha256.Sum256(f.content())
		out[i] = f
	}
	return out
}

// small is a size of 1 to 64 KiB.
func small(_ int, rnd *rand.Rand) int64 { return 1<<10 + rnd.Int64N(63<<10) }

// always is one size.
func always(size int64) func(int, *rand.Rand) int64 {
	return func(int, *rand.Rand) int64 { return size }
}

// write makes the files below dir.
func write(dir string, files []*file) error {
	for _, f := range files {
		path := f.path(dir)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.content(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) path(dir string) string { return filepath.Join(dir, filepath.FromSlash(f.name)) }

// originals counts the files that are still at their paths below dir.
func originals(dir string, files []*file) (left int, err error) {
	for _, f := range files {
		switch _, statErr := os.Lstat(f.path(dir)); {
		case statErr == nil:
			left++
		case !errors.Is(statErr, fs.ErrNotExist):
			err = errors.Join(err, statErr)
		}
	}
	return left, err
}

// answer is what one read came to.
type answer struct {
	status int
	code   string // of the problem, when it is one
	right  bool   // 200 with the bytes of the file
	pack   string // X-Des-Pack
	err    error
}

// String is short enough for a report.
func (a answer) String() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.status == http.StatusOK && !a.right:
		return "200 with other bytes"
	}
	return fmt.Sprintf("%d %s", a.status, a.code)
}

// wrong reports whether bytes came that are not the file's.
func (a answer) wrong() bool { return a.err == nil && a.status == http.StatusOK && !a.right }

// read reads a file by name through a node and compares it.
func (n *node) read(ctx context.Context, f *file) (a answer) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+"/files/"+escape(f.name), nil)
	if err != nil {
		return answer{err: err}
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, pack: resp.Header.Get("X-Des-Pack")}
	if a.status != http.StatusOK {
		var p problem
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p) // without a code it shows as such
		a.code = p.Code
		return a
	}
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		a.err = err
		return a
	}
	a.right = [sha256.Size]byte(h.Sum(nil)) == f.sum
	return a
}

// readWithin is how long one read may take before it counts as unanswered.
const readWithin = 30 * time.Second

// readAll reads files through a node, some at once, and hands each answer on.
// each is called by one goroutine at a time.
func (n *node) readAll(ctx context.Context, files []*file, each func(f *file, a answer)) error {
	const readers = 8
	var mu sync.Mutex // one each at a time
	var wg sync.WaitGroup
	next := make(chan *file)
	for range readers {
		wg.Go(func() {
			for f := range next {
				one, cancel := context.WithTimeout(ctx, readWithin)
				a := n.read(one, f)
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
