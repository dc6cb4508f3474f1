package sourcetest

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// registerListed: what a list says of a file stands in its row, and follows
// the file's content.
func registerListed(t *testing.T, tb *table) {
	first, second := sha256.Sum256([]byte("1")), sha256.Sum256([]byte("2"))
	listed := file("listed")
	listed.SHA256, listed.ContentType = &first, "text/x-one"
	if _, ok := registers(t, tb, listed); !ok {
		return
	}
	want := func(when string, sum *[sha256.Size]byte, contentType string) {
		t.Helper()
		r := tb.named(t, "listed")
		if r.ContentType != contentType || (r.SHA256 == nil) != (sum == nil) || sum != nil && *r.SHA256 != *sum {
			t.Errorf("%s: checksum %x, content type %q; want %x, %q", when, r.SHA256, r.ContentType, sum, contentType)
		}
	}
	want("new", &first, "text/x-one")
	registers(t, tb, file("listed"))
	want("registered without them", &first, "text/x-one")
	listed.SHA256, listed.ContentType = &second, "text/x-two"
	registers(t, tb, listed)
	want("registered with others", &second, "text/x-two")
	changed := file("listed")
	changed.ModTime = modified.Add(time.Hour)
	registers(t, tb, changed)
	want("changed", nil, "text/x-two")
	changed.SHA256, changed.ModTime = &first, modified.Add(2*time.Hour)
	registers(t, tb, changed)
	want("changed, with a checksum", &first, "text/x-two")

	// In a full group, which goes in unseen.
	var group []source.File
	for _, name := range numbered(50) {
		f := file(name)
		f.SHA256 = &second
		group = append(group, f)
	}
	registers(t, tb, group...)
	if r := tb.named(t, "file0049"); r.SHA256 == nil || *r.SHA256 != second || r.ContentType != "" {
		t.Errorf("in a group: %x, %q", r.SHA256, r.ContentType)
	}
}

// registerOtherName: a known row keeps its name, and that is told.
func registerOtherName(t *testing.T, tb *table) {
	if _, ok := registers(t, tb, file("first")); !ok {
		return
	}
	again := file("first")
	again.Name = "prefix/first"
	for _, c := range []struct {
		when string
		size int64
		want source.Registered
	}{
		{"unchanged", again.Size, source.RegisteredUnchanged},
		{"changed", again.Size + 1, source.RegisteredChanged},
	} {
		again.Size = c.size
		got, _ := registers(t, tb, again)
		if !got[0].OtherName() || got[0].Outcome() != c.want {
			t.Errorf("%s: %v, want %v under another name", c.when, got[0], c.want)
		}
	}
	if r := tb.named(t, "first"); r.Size != again.Size {
		t.Errorf("the row is now %+v", r)
	}
	again.Name = "first"
	if got, _ := registers(t, tb, again); got[0] != source.RegisteredUnchanged {
		t.Errorf("under its own name: %v", got[0])
	}
}

func pending(t *testing.T, tb *table) {
	marked, failed, err := tb.Pending(t.Context())
	if err != nil || marked != (source.Tally{}) || failed != (source.Tally{}) {
		t.Errorf("pending of nothing: %+v, %+v, %v", marked, failed, err)
	}
	tb.add(t, "active")
	tb.packed(t, packOne, "packed")
	tb.marked(t, "marked", "too")
	tried := tb.marked(t, "tried")[0]
	if _, err := tb.Attempt(t.Context(), tried, source.CodeChanged, "", 5, markedAt); err != nil {
		t.Fatal(err)
	}
	lost := tb.marked(t, "lost")[0]
	if gone, err := tb.Attempt(t.Context(), lost, source.CodeNoFile, "", 1, markedAt); err != nil || !gone {
		t.Fatalf("the last attempt: %v, %v", gone, err)
	}
	marked, failed, err = tb.Pending(t.Context())
	if want := (source.Tally{Rows: 3, Bytes: 300}); err != nil || marked != want {
		t.Errorf("marked: %+v, %v, want %+v", marked, err, want)
	}
	if want := (source.Tally{Rows: 1, Bytes: 100}); failed != want {
		t.Errorf("failed: %+v, want %+v", failed, want)
	}
}
