package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

func TestEveryPartOfAContentIsTheSameWhereverReadingBegins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := Files{Count: 1 << 40, Sizes: Sizes{Bytes: rapid.Int64Range(0, 3000).Draw(t, "size")}}
		i := rapid.Int64Range(0, files.Count-1).Draw(t, "i")
		whole, err := io.ReadAll(files.Content(i))
		if err != nil || int64(len(whole)) != files.Sizes.Bytes {
			t.Fatalf("%d bytes, %v; want %d", len(whole), err, files.Sizes.Bytes)
		}
		from := rapid.Int64Range(0, files.Sizes.Bytes+10).Draw(t, "from")
		c := files.Content(i)
		if at, err := c.Seek(from, io.SeekStart); at != from || err != nil {
			t.Fatal(at, err)
		}
		step := rapid.IntRange(1, 50).Draw(t, "step")
		var part bytes.Buffer
		if _, err := io.CopyBuffer(struct{ io.Writer }{&part}, struct{ io.Reader }{c}, make([]byte, step)); err != nil {
			t.Fatal(err)
		}
		if want := whole[min(from, int64(len(whole))):]; !bytes.Equal(part.Bytes(), want) {
			t.Fatalf("from %d in steps of %d: %d bytes that differ from the whole's", from, step, part.Len())
		}
	})
}

func TestContentsAreReadersAndDiffer(t *testing.T) {
	files := Files{Count: 2000, Sizes: Sizes{Bytes: 16}}
	seen := map[string]int64{}
	for i := range files.Count {
		b, err := io.ReadAll(files.Content(i))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(b)]; ok {
			t.Fatalf("files %d and %d are equal", i, other)
		}
		seen[string(b)] = i
	}
	files.Sizes.Bytes = 1003
	want, err := io.ReadAll(files.Content(7))
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(files.Content(7), want); err != nil {
		t.Error(err)
	}
}

func TestCompareFindsEveryDifference(t *testing.T) {
	files := Files{Count: 10, Sizes: Sizes{Bytes: 40_000}}
	right, err := io.ReadAll(files.Content(3))
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(right)
		b[at] ^= 1
		return b
	}
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"the same", bytes.NewReader(right), nil},
		{"the same, byte by byte", iotest.OneByteReader(bytes.NewReader(right)), nil},
		{"the first byte", bytes.NewReader(flipped(0)), ErrDiffers},
		{"a byte behind the buffer", bytes.NewReader(flipped(16 << 10)), ErrDiffers},
		{"the last byte", bytes.NewReader(flipped(len(right) - 1)), ErrDiffers},
		{"a byte short", bytes.NewReader(right[:len(right)-1]), ErrDiffers},
		{"a buffer short", bytes.NewReader(right[:32<<10]), ErrDiffers},
		{"nothing", strings.NewReader(""), ErrDiffers},
		{"a byte long", io.MultiReader(bytes.NewReader(right), strings.NewReader("x")), ErrDiffers},
		{"breaks off", io.MultiReader(bytes.NewReader(right[:99]), iotest.ErrReader(broken)), broken},
		{"another file", files.Content(4), ErrDiffers},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := files.Content(3).Compare(c.r); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	empty := Files{Count: 1}
	if err := empty.Content(0).Compare(strings.NewReader("")); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestFilesAreWhatOriginalsServe(t *testing.T) {
	for _, sizes := range []Sizes{{}, {Bytes: 1000}, {Bytes: 1000, LogNormal: true}} {
		t.Run(sizes.String(), func(t *testing.T) {
			files := Files{Count: 5000, Sizes: sizes}
			originals := NewOriginals(files)
			for _, i := range []int64{0, 1, 999, 1000, 4999} {
				f := files.File(i)
				if err := desformat.CheckName(f.Name); err != nil {
					t.Error(err)
				}
				o, err := originals.Open(t.Context(), f.Path)
				if err != nil {
					t.Fatal(err)
				}
				if got := o.Info(); got.Size != f.Size || !got.ModTime.Equal(f.ModTime) || got.FileID != f.FileID || got.Links != 1 {
					t.Errorf("listed as %+v, opened as %+v", f, got)
				}
				if id, err := originals.FileID(t.Context(), f.Path); id != f.FileID || err != nil {
					t.Errorf("identified as %q, %v; listed as %q", id, err, f.FileID)
				}
				if err := files.Content(i).Compare(o); err != nil {
					t.Error(err)
				}
				if same, err := originals.Same(t.Context(), f.Path); len(same) != 1 || same[0] != f.Path || err != nil {
					t.Errorf("reached by %v, %v", same, err)
				}
				if err := o.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOriginalsKnowNoOtherPathAndDeleteNothing(t *testing.T) {
	files := Files{Count: 10, Sizes: Sizes{Bytes: 5}}
	o := NewOriginals(files)
	own := files.File(3).Path
	for _, path := range []string{
		"", "/", folder, own + "x", "x" + own, strings.TrimPrefix(own, "/"), files.File(10).Path,
		folder + "bench/000000/+00000000003.bin", folder + "bench/000001/000000000003.bin", folder + "bench/000000/-00000000001.bin",
	} {
		if _, err := o.Open(t.Context(), path); !errors.Is(err, source.ErrNoFile) {
			t.Errorf("open %q: %v", path, err)
		}
		if _, err := o.FileID(t.Context(), path); !errors.Is(err, source.ErrNoFile) {
			t.Errorf("identify %q: %v", path, err)
		}
		if same, err := o.Same(t.Context(), path); len(same) != 0 || err != nil {
			t.Errorf("same as %q: %v, %v", path, same, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := o.Open(ended, own); !errors.Is(err, context.Canceled) {
		t.Errorf("open with an ended context: %v", err)
	}
	_, errOpen := o.OpenHidden(t.Context(), own)
	_, errBack := o.PutBack(t.Context(), own)
	for _, err := range []error{o.Hide(t.Context(), own), errOpen, errBack, o.Remove(t.Context(), own, source.Info{})} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a step of a deletion: %v", err)
		}
	}
}

func TestLogNormalSizesHaveTheirMedianAndTail(t *testing.T) {
	const n, median = 100_000, 16 << 10
	sizes := Sizes{Bytes: median, LogNormal: true}
	var below, sigma int
	for i := range int64(n) {
		size := sizes.Of(i)
		if size < 0 || size > median*tail {
			t.Fatalf("file %d has %d bytes", i, size)
		}
		if size < median {
			below++
		}
		if float64(size) < median*math.E {
			sigma++
		}
	}
	// Of a normal distribution 50 % lie below the middle and 84.13 % below one
	// sigma above it; a sample of this size strays by 0.2 %.
	if got := float64(below) / n; math.Abs(got-0.5) > 0.01 {
		t.Errorf("%.3f of the files are below the median", got)
	}
	if got := float64(sigma) / n; math.Abs(got-0.8413) > 0.01 {
		t.Errorf("%.3f of the files are below a sigma", got)
	}
}

func BenchmarkContent(b *testing.B) {
	files := Files{Count: math.MaxInt64, Sizes: Sizes{Bytes: 16 << 10}}
	b.SetBytes(files.Sizes.Bytes)
	buf := make([]byte, files.Sizes.Bytes)
	for i := int64(0); b.Loop(); i++ {
		if _, err := io.ReadFull(files.Content(i), buf); err != nil {
			b.Fatal(err)
		}
	}
}
