package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// file is one line of the ledger: what the archive must give back for ever.
type file struct {
	name string // below the source folder, also the name in the archive
	size int64
	sum  [sha256.Size]byte

	confirmed bool // an import that saw it has ended well
	gone      bool // its original was missing once, and rightly
}

// ledger is every file of a run, known before the node can see any of it.
type ledger struct {
	seed  uint64
	files []*file
	made  int // the first so many exist on disk, or did
}

var folders = []string{"a", "b/deep/er", "with space", "ze%2Fro", "Łódź", "q?x#y", "日本", "x.y.z"}

// newLedger plans n files: sizes log-uniform from 0 to 200 KiB, one in 500 of
// some MiB, names of every awkward kind that DESIGN.md §10 allows.
func newLedger(seed uint64, n int) *ledger {
	l := &ledger{seed: seed, files: make([]*file, n)}
	rnd := rand.New(rand.NewPCG(seed, 1)) // #nosec G404 -- repeatable on purpose
	for i := range l.files {
		f := &file{name: fmt.Sprintf("%s/%05d-%x.bin", folders[rnd.IntN(len(folders))], i, rnd.Uint32())}
		switch {
		case i%500 == 250:
			f.size = 1<<20 + rnd.Int64N(4<<20) // past the size that is verified in one piece
		case rnd.IntN(40) == 0:
			f.size = 0
		default:
			f.size = int64(math.Exp(rnd.Float64()*math.Log(200<<10))) - 1
		}
		f.sum = sha256.Sum256(l.content(i, f.size))
		l.files[i] = f
	}
	return l
}

// content is the bytes of file i.
func (l *ledger) content(i int, size int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], l.seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(i)) // #nosec G115 -- an index
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// addWave writes the next n files below dir.
func (l *ledger) addWave(dir string, n int) error {
	for ; n > 0 && l.made < len(l.files); n-- {
		f := l.files[l.made]
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, l.content(l.made, f.size), 0o600); err != nil {
			return err
		}
		l.made++
	}
	return nil
}

// confirm notes that an import saw every file that exists.
func (l *ledger) confirm(made int) {
	for _, f := range l.files[:made] {
		f.confirmed = true
	}
}

// sample picks up to n of the files made so far.
func (l *ledger) sample(rnd *rand.Rand, n int) []*file {
	out := slices.Clone(l.files[:l.made])
	rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(n, len(out))]
}

// quarantinePath is where the node hides an original before it removes it.
func quarantinePath(path string) string {
	sum := sha256.Sum256([]byte(filepath.Base(path)))
	return filepath.Join(filepath.Dir(path), quarantinePrefix+hex.EncodeToString(sum[:8]))
}

const quarantinePrefix = ".desnode-quarantine-"

// whole reports whether path holds exactly the file's content.
func (f *file) whole(path string) (bool, error) {
	b, err := os.ReadFile(path) // #nosec G304 -- a file of this run
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(b)
	return bytes.Equal(sum[:], f.sum[:]), nil
}
