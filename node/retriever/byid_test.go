package retriever

import (
	"context"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

func readID(ctx context.Context, r *Retriever, from, id string) (string, error) {
	f, err := r.OpenID(ctx, from, id, Query{})
	if err != nil {
		return "", err
	}
	defer f.Close()
	return contentOf(ctx, &f)
}

func TestByID(t *testing.T) {
	type setting struct {
		w     *world
		other *fakeRows // of a second source, "others"
	}
	unpacked := row("unpacked", source.Active)
	for _, c := range []struct {
		name     string
		prepare  func(s setting)
		from, id string
		content  string
		err      error
	}{
		{name: "packed", id: idOf("a"), content: "A"},
		{name: "packed, source named", from: "files", id: idOf("a"), content: "A"},
		{name: "not packed yet", id: unpacked.ID, content: "U"},
		{name: "unknown", id: "17", err: ErrNotFound},
		{name: "unknown source", from: "nowhere", id: idOf("a"), err: ErrUnknownSource},
		{name: "known to another source only", from: "others", id: idOf("a"), err: ErrNotFound},
		{
			name: "known to two sources", id: idOf("a"), err: ErrAmbiguous,
			prepare: func(s setting) { s.other.set(row("a", source.Packed)) },
		},
		{
			name: "known to two sources, one named", from: "files", id: idOf("a"), content: "A",
			prepare: func(s setting) { s.other.set(row("a", source.Packed)) },
		},
		{
			name: "source down", id: idOf("a"), err: ErrUnavailable,
			prepare: func(s setting) { s.w.rows.fail(errInjected) },
		},
		{ // it may have the id as well
			name: "another source down", id: idOf("a"), err: ErrUnavailable,
			prepare: func(s setting) { s.other.fail(errInjected) },
		},
		{
			name: "another source down, one named", from: "files", id: idOf("a"), content: "A",
			prepare: func(s setting) { s.other.fail(errInjected) },
		},
		{
			name: "packed, without a quorum", id: idOf("a"), content: "A",
			prepare: func(s setting) { s.w.manifest.confirming(withoutQuorum) },
		},
		{
			name: "unknown, without a quorum", id: "17", err: ErrUnconfirmed,
			prepare: func(s setting) { s.w.manifest.confirming(withoutQuorum) },
		},
		{
			name: "store down", id: idOf("a"), err: ErrUnavailable,
			prepare: func(s setting) { s.w.store.SetHook(failing) },
		},
		{ // the name is another id's by now; this id's own file was never packed
			name: "name used by another id, not packed", id: "another", content: "another's",
			prepare: func(s setting) {
				duplicate := row("a", source.Failed)
				duplicate.ID, duplicate.Path = "another", "/another"
				s.w.rows.set(duplicate)
				s.w.files.content["/another"] = []byte("another's")
			},
		},
		{ // its bytes are not those of the record under its name
			name: "name used by another id, deleted", id: "another", err: ErrUnavailable,
			prepare: func(s setting) {
				lost := row("a", source.DeletedSource)
				lost.ID = "another"
				s.w.rows.set(lost)
			},
		},
		{
			name: "record of another source's row with that id", from: "others", id: idOf("a"), err: ErrUnavailable,
			prepare: func(s setting) {
				theirs := row("a", source.DeletedSource)
				theirs.Source = "others"
				s.other.set(theirs)
			},
		},
		{
			name: "removed", id: idOf("removed"), err: ErrGone,
			prepare: func(s setting) { s.w.rows.set(row("removed", source.DeletedSource)) },
		},
		{
			name: "removed, without a quorum", id: idOf("removed"), err: ErrUnconfirmed,
			prepare: func(s setting) {
				s.w.rows.set(row("removed", source.DeletedSource))
				s.w.manifest.confirming(withoutQuorum)
			},
		},
		{ // a row whose own name no archive takes
			name: "invalid name", id: "bad", content: "bad's",
			prepare: func(s setting) {
				bad := source.Row{ID: "bad", Name: "a//b", Path: "/bad", State: source.Failed}
				s.w.rows.set(bad)
				s.w.files.content["/bad"] = []byte("bad's")
			},
		},
		{ // the served name is des_name, not the source's own
			name: "generated name", id: idOf("a"), content: "A",
			prepare: func(s setting) {
				named := row("a", source.Packed)
				named.Name = "what the user typed"
				s.w.rows.set(named)
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.manifest.set(w.pack(
				version{name: "a", seq: 1, content: "A"},
				version{name: "removed", seq: 1, kind: desformat.TypeTombstone},
			))
			w.rows.set(row("a", source.Packed), unpacked)
			w.files.content["/unpacked"] = []byte("U")
			other := &fakeRows{}
			w.sources = append(w.sources, Source{Name: "others", Rows: other, Files: w.files})
			if c.prepare != nil {
				c.prepare(setting{w, other})
			}
			got, err := readID(t.Context(), w.retriever(), c.from, c.id)
			if c.err != nil {
				wantOnly(t, err, c.err)
				return
			}
			if err != nil || got != c.content {
				t.Errorf("%q, %v, want %q", got, err, c.content)
			}
		})
	}
}

// A cancelled reader gets its cancellation, not a statement about the file.
func TestACancelledReaderLearnsNothingAboutTheFile(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "a", seq: 1, content: "A"})
	w.rows.set(row("a", source.Packed))
	r := w.retriever()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	w.rows.before(func(ctx context.Context) error { return ctx.Err() })
	for _, list := range []fakeView{{}, {p}} {
		w.manifest.set(list...)
		_, err := readID(cancelled, r, "", idOf("a"))
		wantOnly(t, err, context.Canceled)
	}
	w.manifest.set()
	_, err := read(cancelled, r, "a")
	wantOnly(t, err, context.Canceled)
}

func TestLocate(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "removed", seq: 1, kind: desformat.TypeTombstone})
	w.manifest.set(p)
	w.rows.set(row("a", source.Packed), row("unpacked", source.Marked))
	r := w.retriever()

	place, err := r.Locate(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	hash := desformat.HashName("a")
	if place.Hash != hash || place.Shard != hash.Shard(10) || place.Pack.ID != p.ID || place.Record.Header.Name != "a" || place.Row == nil || place.Row.State != source.Packed {
		t.Errorf("packed: %+v", place)
	}
	place, err = r.Locate(t.Context(), "unpacked")
	if err != nil || place.Record != nil || place.Pack != nil || place.Row == nil || place.Row.State != source.Marked {
		t.Errorf("not packed: %+v, %v", place, err)
	}
	for name, want := range map[string]error{"removed": ErrGone, "never": ErrNotFound, "a//b": desformat.ErrInvalidName} {
		_, err := r.Locate(t.Context(), name)
		wantOnly(t, err, want)
	}
	w.rows.fail(errInjected)
	if place, err = r.Locate(t.Context(), "a"); err != nil || place.Row != nil || place.Record == nil {
		t.Errorf("packed, source down: %+v, %v", place, err)
	}
	_, err = r.Locate(t.Context(), "never")
	wantOnly(t, err, ErrUnavailable)
}
