package safety

import (
	"context"
	"io"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// gatedRows are rows whose calls pass the gate. Those of the operator do not:
// they are no part of the write path, and are called on what is within.
type gatedRows struct {
	source.Table
	life *life
}

func (t gatedRows) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	return ask(t.life, "source.Eligible", func() ([]source.Row, error) { return t.Table.Eligible(ctx, before, after, limit) })
}

func (t gatedRows) Mark(ctx context.Context, rows []source.Row, m source.Marking) ([]bool, error) {
	return ask(t.life, "source.Mark", func() ([]bool, error) { return t.Table.Mark(ctx, rows, m) })
}

func (t gatedRows) Refuse(ctx context.Context, row source.Row, code, text string, at time.Time) error {
	return t.life.do("source.Refuse", func() error { return t.Table.Refuse(ctx, row, code, text, at) })
}

func (t gatedRows) Backlog(ctx context.Context, bits uint8, due source.Due) ([]source.Bucket, error) {
	return ask(t.life, "source.Backlog", func() ([]source.Bucket, error) { return t.Table.Backlog(ctx, bits, due) })
}

func (t gatedRows) Marked(ctx context.Context, r desformat.Range, after source.After, due source.Due, limit int) ([]source.Row, error) {
	return ask(t.life, "source.Marked", func() ([]source.Row, error) { return t.Table.Marked(ctx, r, after, due, limit) })
}

func (t gatedRows) Attempt(ctx context.Context, row source.Row, code, text string, limit int, at time.Time) (bool, error) {
	return ask(t.life, "source.Attempt", func() (bool, error) { return t.Table.Attempt(ctx, row, code, text, limit, at) })
}

func (t gatedRows) Acknowledge(ctx context.Context, acks []source.Ack, limit int, at time.Time) ([]source.AckResult, error) {
	return ask(t.life, "source.Acknowledge", func() ([]source.AckResult, error) { return t.Table.Acknowledge(ctx, acks, limit, at) })
}

func (t gatedRows) Deletable(ctx context.Context, pack desformat.PackID, before time.Time, after string, limit int) ([]source.Row, error) {
	return ask(t.life, "source.Deletable", func() ([]source.Row, error) { return t.Table.Deletable(ctx, pack, before, after, limit) })
}

func (t gatedRows) Claim(ctx context.Context, row source.Row, claim string) (bool, error) {
	return ask(t.life, "source.Claim", func() (bool, error) { return t.Table.Claim(ctx, row, claim) })
}

func (t gatedRows) Unclaim(ctx context.Context, row source.Row, claim, code, text string, at time.Time) error {
	return t.life.do("source.Unclaim", func() error { return t.Table.Unclaim(ctx, row, claim, code, text, at) })
}

func (t gatedRows) Deleted(ctx context.Context, row source.Row, claim string, at time.Time) (bool, error) {
	return ask(t.life, "source.Deleted", func() (bool, error) { return t.Table.Deleted(ctx, row, claim, at) })
}

func (t gatedRows) Sharing(ctx context.Context, row source.Row, fileID string, paths []string) (int, error) {
	return ask(t.life, "source.Sharing", func() (int, error) { return t.Table.Sharing(ctx, row, fileID, paths) })
}

func (t gatedRows) Unidentified(ctx context.Context, after string, limit int) ([]source.Row, error) {
	return ask(t.life, "source.Unidentified", func() ([]source.Row, error) { return t.Table.Unidentified(ctx, after, limit) })
}

func (t gatedRows) Identify(ctx context.Context, rows []source.Row, ids []string) error {
	return t.life.do("source.Identify", func() error { return t.Table.Identify(ctx, rows, ids) })
}

func (t gatedRows) ForgetMissing(ctx context.Context) error {
	return t.life.do("source.ForgetMissing", func() error { return t.Table.ForgetMissing(ctx) })
}

func (t gatedRows) ForgetFiles(ctx context.Context) error {
	return t.life.do("source.ForgetFiles", func() error { return t.Table.ForgetFiles(ctx) })
}

func (t gatedRows) ByName(ctx context.Context, name string) (source.Row, error) {
	return ask(t.life, "source.ByName", func() (source.Row, error) { return t.Table.ByName(ctx, name) })
}

func (t gatedRows) ByID(ctx context.Context, id string) (source.Row, error) {
	return ask(t.life, "source.ByID", func() (source.Row, error) { return t.Table.ByID(ctx, id) })
}

func (t gatedRows) Rows(ctx context.Context, after string, limit int) ([]source.Row, error) {
	return ask(t.life, "source.Rows", func() ([]source.Row, error) { return t.within().Rows(ctx, after, limit) })
}

func (t gatedRows) ByIDs(ctx context.Context, ids []string) ([]source.Row, error) {
	return ask(t.life, "source.ByIDs", func() ([]source.Row, error) { return t.within().ByIDs(ctx, ids) })
}

func (t gatedRows) Restore(ctx context.Context, rows []source.Restored) ([]source.RestoreResult, error) {
	return ask(t.life, "source.Restore", func() ([]source.RestoreResult, error) { return t.within().Restore(ctx, rows) })
}

func (t gatedRows) within() *rows { return t.Table.(*rows) } //nolint:forcetypeassert // nothing else is wrapped

// gatedFiles are originals whose calls pass the gate, reading included.
type gatedFiles struct {
	source.Originals
	life *life
}

func (f gatedFiles) Open(ctx context.Context, path string) (source.Original, error) {
	return f.opened("files.Open", func() (source.Original, error) { return f.Originals.Open(ctx, path) })
}

func (f gatedFiles) OpenHidden(ctx context.Context, path string) (source.Original, error) {
	return f.opened("files.OpenHidden", func() (source.Original, error) { return f.Originals.OpenHidden(ctx, path) })
}

func (f gatedFiles) opened(name string, open func() (source.Original, error)) (source.Original, error) {
	o, err := ask(f.life, name, open)
	if err != nil {
		return nil, err
	}
	return &gatedOriginal{Original: o, life: f.life}, nil
}

func (f gatedFiles) Same(ctx context.Context, other string) ([]string, error) {
	return ask(f.life, "files.Same", func() ([]string, error) { return f.Originals.Same(ctx, other) })
}

func (f gatedFiles) FileID(ctx context.Context, path string) (string, error) {
	return ask(f.life, "files.FileID", func() (string, error) { return f.Originals.FileID(ctx, path) })
}

func (f gatedFiles) RootID(ctx context.Context, path string) (string, error) {
	return ask(f.life, "files.RootID", func() (string, error) { return f.Originals.RootID(ctx, path) })
}

func (f gatedFiles) Hide(ctx context.Context, path string) error {
	return f.life.do("files.Hide", func() error { return f.Originals.Hide(ctx, path) })
}

func (f gatedFiles) PutBack(ctx context.Context, path string) (string, error) {
	return ask(f.life, "files.PutBack", func() (string, error) { return f.Originals.PutBack(ctx, path) })
}

func (f gatedFiles) Remove(ctx context.Context, path string, judged source.Info) error {
	return f.life.do("files.Remove", func() error { return f.Originals.Remove(ctx, path, judged) })
}

// gatedOriginal passes the gate once for all its reading: one part of a file
// fails like another.
type gatedOriginal struct {
	source.Original
	life  *life
	begun bool
}

func (o *gatedOriginal) Read(p []byte) (n int, err error) {
	if o.begun {
		return o.Original.Read(p)
	}
	o.begun = true
	errGate := o.life.do("files.Read", func() error {
		n, err = o.Original.Read(p)
		return nil
	})
	if errGate != nil {
		o.begun = false // and so is every further try
		return 0, errGate
	}
	return n, err
}

// WriteTo would pass by Read.
func (o *gatedOriginal) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{o})
}
