package safety

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/datavision/desnode/node/source"
)

// originals are source.Originals in memory: flat folders below one root, held
// against source.Folders by originals_conformance_test.go. Each step is durable
// when it returns, as the contract says.
type originals struct {
	root string

	mu    sync.Mutex // guards what follows
	files map[string]*inode
	last  int
	now   func() time.Time
}

// inode is a file; its content is never changed in place.
type inode struct {
	content         []byte
	modified, moved time.Time // mtime and ctime
	number          int
	writer          bool // a process has it open for writing
}

const hiddenPrefix = ".hidden-"

func newOriginals(root string, now func() time.Time) *originals {
	return &originals{root: root, files: map[string]*inode{}, now: now}
}

// write makes a new file at path, in place of what is there, as an editor does
// that writes beside and renames.
func (o *originals) write(at string, content []byte, modified time.Time) *inode {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	n := &inode{content: content, modified: modified, moved: o.now(), number: o.last}
	o.files[at] = n
	return n
}

// remove deletes the file at path, as its customer does.
func (o *originals) remove(at string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, at)
}

// content returns what stands at path, and what its quarantine name holds.
func (o *originals) content(at string) (open, hidden []byte, isOpen, isHidden bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := o.files[at]; n != nil {
		open, isOpen = n.content, true
	}
	if n := o.files[hiddenName(at)]; n != nil {
		hidden, isHidden = n.content, true
	}
	return open, hidden, isOpen, isHidden
}

// paths returns all names below the root.
func (o *originals) paths() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.files))
}

func hiddenName(at string) string { return path.Join(path.Dir(at), hiddenPrefix+path.Base(at)) }

func (n *inode) id() string { return "1:" + strconv.Itoa(n.number) }

func (n *inode) info() source.Info {
	return source.Info{Size: int64(len(n.content)), ModTime: n.modified.UTC(), ChangeTime: n.moved.UTC(), FileID: n.id(), Links: 1}
}

// find checks a path; mu is held.
func (o *originals) find(ctx context.Context, at string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	switch {
	case at == "" || strings.IndexByte(at, 0) >= 0 || slices.Contains(strings.Split(at, "/"), ".."):
		return "", fmt.Errorf("%q: %w", at, source.ErrOutside)
	case !path.IsAbs(at):
		return path.Join(o.root, at), nil
	case !strings.HasPrefix(at, o.root+"/"):
		return "", fmt.Errorf("%q: %w", at, source.ErrOutside)
	}
	return path.Clean(at), nil
}

// look returns the file at a checked path; mu is held.
func (o *originals) look(at string) (*inode, error) {
	if n := o.files[at]; n != nil {
		return n, nil
	}
	if len(o.files) == 0 {
		return nil, &source.RootError{Root: o.root, Why: "the folder is empty", EmptyID: "1:0"}
	}
	return nil, fmt.Errorf("%s: %w", at, source.ErrNoFile)
}

func (o *originals) open(ctx context.Context, at string, name func(string) string) (source.Original, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, err := o.find(ctx, at)
	if err != nil {
		return nil, err
	}
	n, err := o.look(name(at))
	if err != nil {
		return nil, err
	}
	return &opened{Reader: bytes.NewReader(n.content), of: o, at: name(at), inode: n, seen: n.info()}, nil
}

func (o *originals) Open(ctx context.Context, at string) (source.Original, error) {
	return o.open(ctx, at, func(at string) string { return at })
}

func (o *originals) OpenHidden(ctx context.Context, at string) (source.Original, error) {
	return o.open(ctx, at, hiddenName)
}

// opened is an open file. Its end is judged against what its path leads to.
type opened struct {
	*bytes.Reader
	of    *originals
	at    string
	inode *inode
	seen  source.Info
}

func (f *opened) Info() source.Info { return f.seen }

func (f *opened) Close() error { return nil }

func (f *opened) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != io.EOF {
		return n, err
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if f.of.files[f.at] != f.inode || f.inode.info() != f.seen {
		return 0, fmt.Errorf("%s: %w", f.at, source.ErrChanged)
	}
	return 0, io.EOF
}

// WriteTo would pass by Read.
func (f *opened) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}

func (o *originals) Same(ctx context.Context, other string) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, err := o.find(ctx, strings.TrimPrefix(other, "file:"))
	if err != nil {
		return nil, err
	}
	return []string{at, strings.TrimPrefix(at, o.root+"/")}, nil
}

func (o *originals) FileID(ctx context.Context, at string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, err := o.find(ctx, at)
	if err != nil {
		return "", err
	}
	n, err := o.look(at)
	if err != nil {
		return "", err
	}
	return n.id(), nil
}

func (o *originals) RootID(ctx context.Context, at string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.find(ctx, at)
	if err != nil {
		return "", err
	}
	return "1:0", nil
}

func (o *originals) Hide(ctx context.Context, at string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, err := o.find(ctx, at)
	if err != nil || o.files[hiddenName(at)] != nil {
		return err
	}
	n, err := o.look(at)
	switch {
	case err != nil:
		return err
	case n.writer:
		return fmt.Errorf("%s: %w", at, source.ErrInUse)
	}
	o.rename(at, hiddenName(at))
	return nil
}

// rename moves a file, whose ctime that changes; mu is held.
func (o *originals) rename(from, to string) {
	n := *o.files[from]
	n.moved = o.now()
	delete(o.files, from)
	o.files[to] = &n
}

func (o *originals) PutBack(ctx context.Context, at string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	full, err := o.find(ctx, at)
	if err != nil {
		return at, err
	}
	if o.files[hiddenName(full)] == nil {
		_, err := o.look(full)
		return at, err
	}
	to := full
	for n := 1; o.files[to] != nil; n++ {
		to = full + ".desnode-kept-" + strconv.Itoa(n)
		at = path.Join(path.Dir(at), path.Base(to))
	}
	o.rename(hiddenName(full), to)
	return at, nil
}

func (o *originals) Remove(ctx context.Context, at string, judged source.Info) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, err := o.find(ctx, at)
	if err != nil {
		return err
	}
	n := o.files[hiddenName(at)]
	switch {
	case n == nil && len(o.files) == 0:
		_, err := o.look(at)
		return err
	case n == nil:
		return nil
	case n.writer:
		return fmt.Errorf("%s: %w", at, source.ErrInUse)
	case n.info() != judged:
		return fmt.Errorf("%s: %w", at, source.ErrChanged)
	}
	delete(o.files, hiddenName(at))
	return nil
}
