package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ledger is every file of a run with all its versions, what each holds, and
// since when it may be served. Names, sizes and bytes follow from the seed. A
// version stands in the ledger's file, on the disk, before any node can see it.
type ledger struct {
	seed uint64
	base time.Time // modification time of every first version

	mu      sync.Mutex // guards what follows, and the files' fields
	out     *os.File
	files   []*file
	byName  map[string]*file
	visible []*file // whose rows are known to be committed, in that order
}

// file is one name. Its fields but n and name are guarded by the ledger.
type file struct {
	n        int
	name     string // below the folder of the originals, and in the archive
	id       int64  // of the row; 0: not listed yet
	seen     time.Time
	versions []*version
}

// version is what a file holds from one change to the next.
type version struct {
	number   int // from 1
	size     int64
	modified time.Time
	sum      [sha256.Size]byte
	key      [32]byte

	placing  time.Time // right before it was put at its path; zero: not yet
	placed   time.Time // right after that
	listed   time.Time // its row is known to be committed; zero: not yet
	archived time.Time // its row was seen to name a pack; zero: not yet
	pack     string    // that pack, in hex
}

// Sizes are log-normal around 16 KiB, cut at 2 MiB.
const (
	medianSize = 16 << 10
	sigmaSize  = 1.4
	maxSize    = 2 << 20
)

var folders = []string{"a", "b/deep/er", "with space", "ze%2Fro", "Łódź", "q?x#y", "日本", "x.y.z"}

// newLedger begins a ledger whose file is at path.
func newLedger(path string, seed uint64, now time.Time) (*ledger, error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600) // #nosec G304 -- a file of this run
	if err != nil {
		return nil, err
	}
	l := &ledger{seed: seed, base: now.Add(-100 * 24 * time.Hour).UTC().Truncate(time.Second), out: out, byName: map[string]*file{}}
	return l, l.write(struct {
		Seed uint64    `json:"seed"`
		Base time.Time `json:"base"`
	}{seed, l.base})
}

// close ends the file.
func (l *ledger) close() error { return l.out.Close() }

// line is one version in the ledger's file.
type line struct {
	Name     string    `json:"name"`
	Version  int       `json:"version"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	SHA256   string    `json:"sha256"`
}

// write appends lines and waits until the disk has them.
func (l *ledger) write(lines ...any) error {
	var b []byte
	for _, one := range lines {
		text, err := json.Marshal(one)
		if err != nil {
			return err
		}
		b = append(append(b, text...), '\n')
	}
	if _, err := l.out.Write(b); err != nil {
		return err
	}
	return l.out.Sync()
}

// add plans the next count files.
func (l *ledger) add(count int) ([]*file, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wave := make([]*file, count)
	for i := range wave {
		n := len(l.files) + i
		rnd := rand.New(rand.NewPCG(l.seed, uint64(n)<<16)) // #nosec G115 G404 -- an index; repeatable on purpose
		f := &file{n: n, name: fmt.Sprintf("%s/%02d/%06d-%x.bin", folders[rnd.IntN(len(folders))], n%20, n, rnd.Uint32())}
		l.grow(f)
		wave[i] = f
	}
	if err := l.note(wave); err != nil {
		return nil, err
	}
	l.files = append(l.files, wave...)
	for _, f := range wave {
		l.byName[f.name] = f
	}
	return wave, nil
}

// change plans a further version of each of some files, and returns the files
// that may have one: the row of the last version must be known, or two changes
// would be under way at once.
func (l *ledger) change(files []*file) ([]*file, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var wave []*file
	for _, f := range files {
		if !f.last().listed.IsZero() {
			l.grow(f)
			wave = append(wave, f)
		}
	}
	return wave, l.note(wave)
}

// note writes the last versions of files to the ledger's file.
func (l *ledger) note(files []*file) error {
	lines := make([]any, len(files))
	for i, f := range files {
		v := f.last()
		lines[i] = line{f.name, v.number, v.size, v.modified, hex.EncodeToString(v.sum[:])}
	}
	return l.write(lines...)
}

// grow gives a file its next version, other in content than all before.
func (l *ledger) grow(f *file) {
	number := len(f.versions) + 1
	v := &version{number: number, modified: l.base.Add(time.Duration(number-1) * time.Hour)}
	for try := uint64(0); ; try++ {
		binary.LittleEndian.PutUint64(v.key[:], l.seed)
		binary.LittleEndian.PutUint64(v.key[8:], uint64(f.n))     // #nosec G115 -- an index
		binary.LittleEndian.PutUint64(v.key[16:], uint64(number)) // #nosec G115 -- likewise
		binary.LittleEndian.PutUint64(v.key[24:], try)
		rnd := rand.New(rand.NewChaCha8(v.key)) // #nosec G404 -- repeatable on purpose
		v.size = min(max(int64(medianSize*math.Exp(sigmaSize*rnd.NormFloat64())), 1), maxSize)
		v.key[31] ^= 1 // the content is another stream
		if v.sum = sha256.Sum256(v.content()); f.holding(v.sum) == nil {
			break // one byte may well come twice
		}
	}
	f.versions = append(f.versions, v)
}

// content makes the bytes of a version.
func (v *version) content() []byte {
	b := make([]byte, v.size)
	_, _ = rand.NewChaCha8(v.key).Read(b) // never fails
	return b
}

func (f *file) last() *version { return f.versions[len(f.versions)-1] }

// holding returns the version with that content, or nil.
func (f *file) holding(sum [sha256.Size]byte) *version {
	for _, v := range f.versions {
		if v.sum == sum {
			return v
		}
	}
	return nil
}

// path is where the original is.
func (f *file) path(dir string) string { return filepath.Join(dir, filepath.FromSlash(f.name)) }

// place puts the last version of a file at its path, whole or not at all.
// incoming is a folder of the same file system that no node looks into.
func (l *ledger) place(f *file, dir, incoming string) error {
	l.mu.Lock()
	v := f.last()
	l.mu.Unlock()
	temp := filepath.Join(incoming, fmt.Sprint(f.n))
	if err := os.WriteFile(temp, v.content(), 0o600); err != nil {
		return err
	}
	if err := os.Chtimes(temp, v.modified, v.modified); err != nil {
		return err
	}
	path := f.path(dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- as a customer's folder
		return err
	}
	l.mu.Lock()
	if v.placing.IsZero() {
		v.placing = time.Now()
	}
	l.mu.Unlock()
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v.placed = time.Now()
	return nil
}

// list notes that the row of a file's last version is committed, under an id.
// It reports whether that was news.
func (l *ledger) list(f *file, id int64, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.seen.IsZero() {
		f.id, f.seen = id, at
		l.visible = append(l.visible, f)
	}
	v := f.last()
	news := v.listed.IsZero()
	if news {
		v.listed = at
	}
	return news
}

// current returns the last version of a file. It is a copy.
func (l *ledger) current(f *file) version {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *f.last()
}

// unplaced returns the files whose last version is not at its path yet.
func (l *ledger) unplaced(files []*file) []*file {
	return l.those(files, func(v *version) bool { return v.placed.IsZero() })
}

// unlisted returns the files whose last version no row is known to list.
func (l *ledger) unlisted(files []*file) []*file {
	return l.those(files, func(v *version) bool { return v.listed.IsZero() })
}

func (l *ledger) those(files []*file, which func(*version) bool) (out []*file) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range files {
		if which(f.last()) {
			out = append(out, f)
		}
	}
	return out
}

// archive notes that a row was seen to say that a version is in a pack. It
// reports whether that was news.
func (l *ledger) archive(f *file, sum [sha256.Size]byte, pack string, at time.Time) (news bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := f.holding(sum)
	switch {
	case v == nil:
		return false, fmt.Errorf("%s: no version of it has the SHA-256 %x", f.name, sum)
	case v.placing.IsZero():
		return false, fmt.Errorf("%s: version %d is archived before it was there", f.name, v.number)
	case v.archived.IsZero():
		v.archived, v.pack = at, pack
		return true, nil
	}
	return false, nil
}

// state is what the ledger knows of a file at one moment. It is a copy.
type state struct {
	id       int64
	seen     time.Time // since when its row is known to be committed; zero: not yet
	versions []version
}

// state returns what is known of a file now.
func (l *ledger) state(f *file) state {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := state{id: f.id, seen: f.seen}
	for _, v := range f.versions {
		s.versions = append(s.versions, *v)
	}
	return s
}

// holding returns the version with that content, or nil.
func (s state) holding(sum [sha256.Size]byte) *version {
	for i := range s.versions {
		if s.versions[i].sum == sum {
			return &s.versions[i]
		}
	}
	return nil
}

// placed returns the files that were put at their paths, each with the number
// of the last version that was.
func (l *ledger) placed() map[*file]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[*file]int, len(l.files))
	for _, f := range l.files {
		for _, v := range f.versions {
			if !v.placed.IsZero() {
				out[f] = v.number
			}
		}
	}
	return out
}

// archivedBefore reports whether a version was known by then to be in a pack.
func (s state) archivedBefore(moment time.Time) bool {
	for i := range s.versions {
		if at := s.versions[i].archived; !at.IsZero() && at.Before(moment) {
			return true
		}
	}
	return false
}

// sample returns up to count visible files; recent says how many of the last
// ones to choose among, 0: all.
func (l *ledger) sample(rnd *rand.Rand, count, recent int) []*file {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := 0
	if recent > 0 {
		from = max(0, len(l.visible)-recent)
	}
	among := l.visible[from:]
	if len(among) == 0 {
		return nil
	}
	out := make([]*file, 0, count)
	taken := map[int]bool{}
	for range count {
		if i := rnd.IntN(len(among)); !taken[i] {
			taken[i] = true
			out = append(out, among[i])
		}
	}
	return out
}

// all returns every file so far.
func (l *ledger) all() []*file {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*file(nil), l.files...)
}

// named returns the file of a name, or nil.
func (l *ledger) named(name string) *file {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byName[name]
}

// right is what the ledger says to served content.
type right uint8

const (
	rightNow   right = iota // a version that may be served at that time
	rightOnce               // a version that a newer one has replaced in the archive
	rightNever              // no version that was there by then
)

// staleAfter is how long after a version was seen to be archived the one
// before may still be served, by a node that nothing has been done to for as
// long: a node learns of a pack from its leader, and the ledger from the row.
const staleAfter = 10 * time.Second

// judge says whether a version may be served to a read from one moment to
// another: from the moment when it was put at its path until a newer one is in
// a pack. unconfirmed: the answer said that a newer one may exist.
func (s state) judge(match func(*version) bool, from, to time.Time, unconfirmed bool) right {
	found := rightNever
	for i := range s.versions {
		v := &s.versions[i]
		if v.placing.IsZero() || v.placing.After(to) || !match(v) {
			continue
		}
		replaced := false
		for _, w := range s.versions[i+1:] {
			replaced = replaced || !w.archived.IsZero() && w.archived.Add(staleAfter).Before(from)
		}
		if !replaced || unconfirmed {
			return rightNow
		}
		found = rightOnce
	}
	return found
}

// quarantinePath is where a node hides an original before it removes it.
func quarantinePath(path string) string {
	sum := sha256.Sum256([]byte(filepath.Base(path)))
	return filepath.Join(filepath.Dir(path), quarantinePrefix+hex.EncodeToString(sum[:8]))
}

const quarantinePrefix = ".desnode-quarantine-"
