package bench

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/node/source"
)

// Files are Count files, numbered from 0, that exist as a rule only.
type Files struct {
	Count int64
	Sizes Sizes
}

// folder holds all made-up files. No disk has it.
const folder = "/desnode-bench/"

// perFolder is how many files share a folder in their name.
const perFolder = 1000

// File describes file i as a source's table would list it. Times are whole
// seconds, which every type of column can keep.
func (f Files) File(i int64) source.File {
	name := Name(i)
	return source.File{
		Name:    name,
		Path:    folder + name,
		Size:    f.Sizes.Of(i),
		ModTime: modTime(i),
		FileID:  fileID(i),
	}
}

// Name returns the name of file i.
func Name(i int64) string { return fmt.Sprintf("bench/%06d/%012d.bin", i/perFolder, i) }

// index returns the number of the file at path.
func (f Files) index(path string) (int64, error) {
	name, ours := strings.CutPrefix(path, folder)
	_, base, _ := strings.Cut(strings.TrimPrefix(name, "bench/"), "/")
	i, err := strconv.ParseInt(strings.TrimSuffix(base, ".bin"), 10, 64)
	if !ours || err != nil || i < 0 || i >= f.Count || name != Name(i) {
		return 0, fmt.Errorf("%w: %s", source.ErrNoFile, path)
	}
	return i, nil
}

// modTime spreads the files' times over a hundred days, long past.
func modTime(i int64) time.Time {
	const span = 100 * 24 * 3600
	return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i%span) * time.Second)
}

// fileID is what a device and an inode would be.
func fileID(i int64) string { return fmt.Sprintf("0:%d", i+1) }
