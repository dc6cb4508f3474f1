package desformat

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

var errFault = errors.New("injected fault")

// faultyFile fails its n-th call, counted over all kinds, and all later ones
// when it stays broken. A failing write may have written a part.
type faultyFile struct {
	*os.File
	calls  int
	failAt int
	part   bool
	after  bool // the call is done and fails all the same
}

func (f *faultyFile) fault() bool { f.calls++; return f.calls == f.failAt }

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if !f.fault() {
		return f.File.WriteAt(b, off)
	}
	n := 0
	if f.after {
		n, _ = f.File.WriteAt(b, off)
	} else if f.part {
		n, _ = f.File.WriteAt(b[:len(b)/2], off)
	}
	return n, errFault
}

func (f *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	if f.fault() {
		return 0, errFault
	}
	return f.File.ReadAt(b, off)
}

func (f *faultyFile) Truncate(size int64) error {
	if f.fault() {
		return errFault
	}
	return f.File.Truncate(size)
}

// TestWriteFaultsAreSticky fails every single call on the file, before, in the
// middle of and after its work: the fault is reported, by every later call
// too, and no pack comes out that could be taken for a whole one.
func TestWriteFaultsAreSticky(t *testing.T) {
	run := func(f *faultyFile) (sealed bool, err error) {
		w, err := NewWriter(f, testConfig())
		if err != nil {
			return false, err
		}
		for i, content := range []string{"small", strings.Repeat("l", 500), strings.Repeat("undone", 60), "small again"} {
			it := fileItem("one name", content)
			if _, err = w.Append(it.Record, strings.NewReader(it.content)); err == nil && i == 2 {
				err = w.Undo()
			}
			if err != nil {
				break
			}
		}
		if err == nil {
			_, err = w.Seal()
			sealed = err == nil
		}
		if err != nil {
			_, errAppend := w.Append(fileItem("one name", "").Record, nil)
			_, errSeal := w.Seal()
			for _, again := range []error{errAppend, errSeal, w.Undo()} {
				if !errors.Is(again, errFault) {
					t.Errorf("after %v a later call returned %v", err, again)
				}
			}
		}
		return sealed, err
	}
	healthy := &faultyFile{File: testFile(t)}
	if sealed, err := run(healthy); !sealed {
		t.Fatal(err)
	}
	if healthy.calls < 12 {
		t.Fatalf("only %d calls: the test no longer reaches the file", healthy.calls)
	}
	for failAt := 1; failAt <= healthy.calls; failAt++ {
		for _, kind := range []string{"not done", "half done", "done"} {
			t.Run(fmt.Sprintf("call %d %s", failAt, kind), func(t *testing.T) {
				f := &faultyFile{File: testFile(t), failAt: failAt, part: kind == "half done", after: kind == "done"}
				if sealed, err := run(f); sealed || !errors.Is(err, errFault) {
					t.Fatalf("sealed %v, %v; want the fault", sealed, err)
				}
				info, err := f.Stat()
				if err != nil {
					t.Fatal(err)
				}
				_, err = OpenPack(t.Context(), FetchReaderAt(f.File), info.Size())
				lastWrite := failAt == healthy.calls && kind == "done"
				if err == nil && !lastWrite {
					t.Error("what is left opens as a pack")
				} else if err != nil && !errors.Is(err, ErrNotPack) {
					t.Errorf("what is left: %v, want ErrNotPack", err)
				}
			})
		}
	}
}

// TestSealNoticesWhatTheDiskLost: headers are read back when the catalog is
// made, so a file that no longer holds what was written is not sealed.
func TestSealNoticesWhatTheDiskLost(t *testing.T) {
	f := testFile(t)
	w, err := NewWriter(f, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	appendItem(t, w, fileItem("one name", strings.Repeat("l", 500)))
	appendItem(t, w, fileItem("one name", "x")) // hashes the one before it
	if _, err := f.WriteAt([]byte{0xff}, packHeaderLen+50); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Seal: %v, want ErrCorrupt", err)
	}
	if _, err := w.Seal(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Seal again: %v, want ErrCorrupt", err)
	}
}
