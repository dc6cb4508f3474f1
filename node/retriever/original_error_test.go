package retriever

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/datavision/desnode/node/source"
)

func TestOriginalErrorTellsTheCauseAndNoPlace(t *testing.T) {
	row := source.Row{ID: "7", Source: "docs", Path: "a/b"}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"missing", source.ErrNoFile, "there is no such file"},
		{"changed", source.ErrChanged, "it is being written"},
		{"a folder", source.ErrNotRegular, "it is not a regular file"},
		{"outside", source.ErrOutside, "it lies outside the source's roots"},
		{"denied", &os.PathError{Op: "open", Path: "/secret/a/b", Err: syscall.EACCES}, "permission denied"},
		{"bad sector", &os.PathError{Op: "read", Path: "/secret/a/b", Err: syscall.EIO}, "reading it failed"},
		{"root", &source.RootError{Root: "/secret", Why: "open /secret: no such file"}, "its root is out of reach"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := error(&OriginalError{Row: row, Err: errors.Join(errors.New("/secret/a/b"), c.err)})
			var e *OriginalError
			if !errors.As(err, &e) || !errors.Is(err, ErrUnavailable) || !errors.Is(err, c.err) {
				t.Errorf("%v has lost its kind", err)
			}
			got := e.Public()
			want := `the original of row "7" of source "docs", at "a/b", can't be read: ` + c.want
			if !strings.HasPrefix(got, want) || strings.Contains(got, "secret") {
				t.Errorf("told: %s", got)
			}
			if !strings.Contains(err.Error(), "/secret") {
				t.Errorf("the log is told too little: %v", err)
			}
		})
	}
}

// Of the whole way: a row whose file has gone says so, by name and by id.
func TestUnreadableOriginalNamesItsCause(t *testing.T) {
	w, path := realSource(t, "a", "original")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".neighbour", nil, 0o600); err != nil { // an empty root might be a missing disk
		t.Fatal(err)
	}
	_, err := w.retriever().Open(t.Context(), "a", Query{})
	var e *OriginalError
	if !errors.As(err, &e) || e.Row.Path != path || !strings.HasSuffix(e.Public(), "there is no such file") {
		t.Errorf("open: %v", err)
	}
	if err := os.Remove(path + ".neighbour"); err != nil {
		t.Fatal(err)
	}
	if _, err = w.retriever().Open(t.Context(), "a", Query{}); !errors.As(err, &e) || !strings.HasSuffix(e.Public(), "its root is out of reach") {
		t.Errorf("open below an empty root: %v", err)
	}
}
