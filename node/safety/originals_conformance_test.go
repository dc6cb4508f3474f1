package safety

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/source"
)

// The originals in memory are held against real files below a folder: whatever
// is asked of both, in whatever order, is answered alike.
func TestOriginalsConform(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { // where no time is waited for
				twins := newTwins(t, dir, seed)
				twins.look("a") // below a root that is empty
				for range 300 {
					twins.step()
				}
				for _, want := range []string{
					"done", source.ErrNoFile.Error(), source.ErrChanged.Error(), source.ErrInUse.Error(), source.ErrOutside.Error(),
					"root empty=true", "true",
				} {
					if !twins.met[want] { // else it compares too little
						t.Errorf("in 300 steps nothing was answered %q", want)
					}
				}
			})
		})
	}
}

// twins are originals in memory and in a folder, to which the same happens.
type twins struct {
	t      *testing.T
	rand   *rand.Rand
	dir    string
	memory *originals
	folder *source.Folders
	writes int
	met    map[string]bool // answers, without what they say beside
}

func newTwins(t *testing.T, dir string, seed uint64) *twins {
	began := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	ticks := 0
	return &twins{
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), dir: dir, met: map[string]bool{},
		memory: newOriginals(theRoot, func() time.Time { ticks++; return began.Add(time.Duration(ticks) * time.Second) }),
		folder: source.NewFolders(func() []string { return []string{dir} }),
	}
}

// step does one thing to a file of both, and compares.
func (w *twins) step() {
	name := []string{"a", "b"}[w.rand.IntN(2)]
	switch w.rand.IntN(11) {
	case 0, 1:
		w.write(name)
	case 2:
		w.customerRemoves(name)
	case 3:
		w.same("hide "+name, func(o source.Originals, at func(string) string) any { return o.Hide(w.t.Context(), at(name)) })
	case 4:
		w.same("put back "+name, func(o source.Originals, at func(string) string) any {
			to, err := o.PutBack(w.t.Context(), at(name))
			return answer{strings.TrimPrefix(to, at("")), err}
		})
	case 5:
		w.remove(name, name)
	case 6:
		w.remove(name, "b")
	case 7:
		w.whileWritten(name)
	case 8:
		w.replacedWhileOpen(name)
	case 9:
		w.places(name)
	case 10:
		w.outside()
	}
	w.look("a")
	w.look("b")
}

// answer is what a call returns beside its error.
type answer struct {
	value string
	err   error
}

// same asks both and compares the answers; at spells a name as a path.
func (w *twins) same(what string, ask func(o source.Originals, at func(string) string) any) {
	w.t.Helper()
	memory := plainly(ask(w.memory, func(name string) string { return theRoot + "/" + name }))
	folder := plainly(ask(w.folder, func(name string) string { return w.dir + "/" + name }))
	met, _, _ := strings.Cut(folder, ": ")
	w.met[met] = true
	if memory != folder {
		w.t.Fatalf("%s: in memory %s, in the folder %s", what, memory, folder)
	}
}

// plainly says what an answer means to its caller.
func plainly(a any) string {
	switch a := a.(type) {
	case error:
		return class(a)
	case answer:
		if a.err == nil {
			return "done: " + a.value
		}
		return class(a.err)
	case bool:
		return fmt.Sprint(a)
	}
	return "done"
}

func class(err error) string {
	if root, ok := errors.AsType[*source.RootError](err); ok {
		return fmt.Sprintf("root empty=%t", root.EmptyID != "")
	}
	for _, known := range []error{source.ErrNoFile, source.ErrOutside, source.ErrChanged, source.ErrInUse, source.ErrNotRegular} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "another error: " + err.Error()
}

// write puts a new file at the name, as an editor does.
func (w *twins) write(name string) {
	w.writes++
	content := fmt.Appendf(nil, "content %d of %s", w.writes, name)
	modified := time.Date(2023, 1, 1, 0, 0, w.writes, 0, time.UTC)
	w.memory.write(theRoot+"/"+name, content, modified)
	at, beside := filepath.Join(w.dir, name), filepath.Join(w.dir, "new")
	w.must(os.WriteFile(beside, content, 0o600), os.Chtimes(beside, modified, modified), os.Rename(beside, at))
}

func (w *twins) customerRemoves(name string) {
	w.memory.remove(theRoot + "/" + name)
	if err := os.Remove(filepath.Join(w.dir, name)); !errors.Is(err, os.ErrNotExist) {
		w.must(err)
	}
}

func (w *twins) must(errs ...error) {
	w.t.Helper()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// remove removes a quarantined file as it was judged, or as another one was.
func (w *twins) remove(name, judged string) {
	w.same("remove "+name, func(o source.Originals, at func(string) string) any {
		var info source.Info
		if f, err := o.OpenHidden(w.t.Context(), at(judged)); err == nil {
			info = f.Info()
			w.must(f.Close())
		}
		return o.Remove(w.t.Context(), at(name), info)
	})
}

// whileWritten hides and removes a file that a process has open for writing.
func (w *twins) whileWritten(name string) {
	file, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return // there is none
	}
	w.memory.files[theRoot+"/"+name].writer = true
	w.same("hide what is written, "+name, func(o source.Originals, at func(string) string) any {
		return o.Hide(w.t.Context(), at(name))
	})
	w.memory.files[theRoot+"/"+name].writer = false
	w.must(file.Close())
}

// replacedWhileOpen reads a file in whose place another has come.
func (w *twins) replacedWhileOpen(name string) {
	open := map[source.Originals]source.Original{}
	w.same("open "+name, func(o source.Originals, at func(string) string) any {
		f, err := o.Open(w.t.Context(), at(name))
		if err == nil {
			open[o] = f
		}
		return err
	})
	if len(open) < 2 {
		return
	}
	w.write(name)
	w.same("read the replaced "+name, func(o source.Originals, _ func(string) string) any {
		_, err := io.ReadAll(open[o])
		w.must(open[o].Close())
		return err
	})
}

// look compares what stands at a name and what its quarantine name holds.
func (w *twins) look(name string) {
	for what, open := range map[string]func(source.Originals, context.Context, string) (source.Original, error){
		"open": source.Originals.Open, "open hidden": source.Originals.OpenHidden,
	} {
		w.same(what+" "+name, func(o source.Originals, at func(string) string) any {
			f, err := open(o, w.t.Context(), at(name))
			if err != nil {
				return err
			}
			content, err := io.ReadAll(f)
			info := f.Info()
			w.must(f.Close())
			return answer{fmt.Sprintf("%q, %d bytes of %v, %d links", content, info.Size, info.ModTime, info.Links), err}
		})
	}
}

// places compares how files and roots are named.
func (w *twins) places(name string) {
	w.same("file id of "+name, func(o source.Originals, at func(string) string) any {
		id, err := o.FileID(w.t.Context(), at(name))
		if err != nil {
			return err
		}
		f, err := o.Open(w.t.Context(), at(name))
		w.must(err)
		w.must(f.Close())
		return answer{fmt.Sprint(id == f.Info().FileID, id == ""), nil}
	})
	w.same("root of "+name, func(o source.Originals, at func(string) string) any {
		id, err := o.RootID(w.t.Context(), at(name))
		other, errOther := o.RootID(w.t.Context(), at("no such file"))
		return answer{fmt.Sprint(id == other, id == ""), errors.Join(err, errOther)}
	})
	w.same("same as "+name, func(o source.Originals, at func(string) string) any {
		list, err := o.Same(w.t.Context(), at(name))
		for i := range list {
			list[i] = strings.TrimPrefix(list[i], at(""))
		}
		return answer{fmt.Sprint(slices.Sorted(slices.Values(list))), err}
	})
}

// outside asks for paths that lead out, and under a context that has ended.
func (w *twins) outside() {
	gone, cancel := context.WithCancel(w.t.Context())
	cancel()
	for what, path := range map[string]string{"nothing": "", "above": "../x", "beside": "/etc/hosts", "NUL": "a\x00", "relative": "a"} {
		w.same("open "+what, func(o source.Originals, _ func(string) string) any {
			f, err := o.Open(w.t.Context(), path)
			if err == nil {
				w.must(f.Close())
			}
			return err
		})
		w.same("hide "+what, func(o source.Originals, _ func(string) string) any {
			if path == "a" {
				return nil // done by step
			}
			return o.Hide(w.t.Context(), path)
		})
	}
	w.same("hide for nobody", func(o source.Originals, at func(string) string) any {
		return errors.Is(o.Hide(gone, at("a")), context.Canceled)
	})
}
