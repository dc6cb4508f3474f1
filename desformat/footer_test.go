package desformat

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// ReadFooter says of every object whether it ends as a whole pack of its size.
func TestReadFooter(t *testing.T) {
	cfg := testConfig()
	cfg.Replaces = []PackID{{1}, {2}}
	pack, _, want := build(t, cfg, sortItems([]item{fileItem("a", "first"), fileItem("b", strings.Repeat("second", 100))}))
	read := func(b []byte) (Footer, error) {
		return ReadFooter(t.Context(), FetchReaderAt(bytes.NewReader(b)), int64(len(b)))
	}
	if got, err := read(pack); err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("ReadFooter = %+v, %v; want %+v", got, err, want)
	}
	known := func(err error) bool {
		return errors.Is(err, ErrNotPack) || errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt)
	}
	for n := range pack {
		if got, err := read(pack[:n]); !known(err) || errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d of %d bytes: %+v, %v", n, len(pack), got, err)
		}
		if got, err := read(append(bytes.Clone(pack), pack[:n+1]...)); !known(err) {
			t.Fatalf("with %d bytes behind it: %+v, %v", n+1, got, err)
		}
	}
	if _, err := read(append([]byte("x"), pack...)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with a byte before it: %v, want ErrCorrupt", err)
	}
	list := int(want.Index.Offset + want.Index.Length)
	for i := list; i < len(pack); i++ {
		for bit := range 8 {
			b := bytes.Clone(pack)
			b[i] ^= 1 << bit
			if got, err := read(b); !known(err) {
				t.Fatalf("bit %d of byte %d flipped: %+v, %v", bit, i, got, err)
			}
		}
	}
	// What stands before the footer is not its business.
	b := bytes.Clone(pack)
	b[list-1] ^= 1
	if _, err := read(b); err != nil {
		t.Errorf("a flipped byte of the index: %v", err)
	}
}
