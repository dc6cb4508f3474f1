package desformat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Reader reads one sealed pack. It may be used from many goroutines.
type Reader struct {
	f      Fetcher
	footer Footer
	raw    []byte // the footer's bytes
}

// tailLen is what OpenPack fetches from the end: the footer and the usual list
// of replaced packs.
const tailLen = 4096

// OpenPack reads and checks the header and the footer of a pack of size bytes:
// two fetches, and one more when the list of replaced packs is long.
func OpenPack(ctx context.Context, f Fetcher, size int64) (*Reader, error) {
	if size <= 0 {
		return nil, fmt.Errorf("empty: %w", ErrNotPack)
	}
	head, err := fetchBytes(ctx, f, 0, min(size, packHeaderLen))
	if err != nil {
		return nil, err
	}
	if err := checkHead(head); err != nil {
		return nil, err
	}
	if size < packHeaderLen+footerLen {
		return nil, fmt.Errorf("begins as one, but is cut after %d bytes: %w", size, ErrNotPack)
	}
	footer, raw, err := readFooter(ctx, f, size)
	if err != nil {
		return nil, err
	}
	if string(encodePackHeader(footer)) != string(head) {
		return nil, inPack(corrupt(0, "header and footer belong to different packs"), footer.Pack)
	}
	return &Reader{f: f, footer: *footer, raw: raw}, nil
}

// ReadFooter reads and checks the footer alone of an object of size bytes: one
// fetch of at most 4 KiB from its end, and one more when the list of replaced
// packs is long. It says that the object ends as a whole pack of that size does,
// nothing about its records: OpenPack looks at the beginning as well, Verify at
// all of it. An object that does not end as a pack is ErrNotPack.
func ReadFooter(ctx context.Context, f Fetcher, size int64) (Footer, error) {
	if size < packHeaderLen+footerLen {
		return Footer{}, fmt.Errorf("%d bytes are too few for one: %w", size, ErrNotPack)
	}
	footer, _, err := readFooter(ctx, f, size)
	if err != nil {
		return Footer{}, err
	}
	return *footer, nil
}

// readFooter returns the footer and its bytes; size has room for both ends.
func readFooter(ctx context.Context, f Fetcher, size int64) (footer *Footer, raw []byte, err error) {
	n := min(size-packHeaderLen, tailLen)
	tail, err := fetchBytes(ctx, f, size-n, n)
	if err != nil {
		return nil, nil, err
	}
	raw = tail[n-footerLen:]
	footer, replaces, sum, err := parseFooter(raw, size)
	if err != nil {
		return nil, nil, err
	}
	list := tail[:n-footerLen]
	if replaces <= int64(len(list)) {
		list = list[int64(len(list))-replaces:]
	} else if list, err = fetchBytes(ctx, f, size-footerLen-replaces, replaces); err != nil {
		return nil, nil, err
	}
	if err := parseReplaces(list, sum, footer); err != nil {
		return nil, nil, inPack(err, footer.Pack)
	}
	return footer, raw, nil
}

// Footer returns what the pack's end says about all of it.
func (r *Reader) Footer() Footer { return r.footer }

// Index reads the index: one fetch.
func (r *Reader) Index(ctx context.Context) (*Index, error) {
	s := r.footer.Index
	b, err := fetchBytes(ctx, r.f, s.Offset, s.Length)
	if err != nil {
		return nil, err
	}
	x, err := ParseIndex(b, s)
	if err == nil {
		err = r.checkIndex(x)
	}
	if err != nil {
		return nil, inPack(err, r.footer.Pack)
	}
	return x, nil
}

// checkIndex holds the index against the footer.
func (r *Reader) checkIndex(x *Index) error {
	f := &r.footer
	if x.records != f.Records || x.geo.rangeBits != f.Range.bits || x.end != f.Catalog.Offset {
		return corrupt(f.Index.Offset, "the index is that of another pack")
	}
	return nil
}

// Catalog yields every record in the pack's order: one fetch, memory bounded
// by a block. An error ends it.
func (r *Reader) Catalog(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		n := uint32(0)
		for e, err := range ReadCatalog(ctx, r.f, r.footer.Catalog) {
			n++
			if !yield(e, inPack(err, r.footer.Pack)) || err != nil {
				return
			}
		}
		if n != r.footer.Records {
			err := corrupt(r.footer.Catalog.Offset, "catalog of %d records, not %d", n, r.footer.Records)
			yield(Entry{}, inPack(err, r.footer.Pack))
		}
	}
}

// errStop ends a walk over a catalog whose consumer has had enough.
var errStop = errors.New("stop")

// ReadCatalog is Reader.Catalog for a catalog whose place is known from the
// manifest.
func ReadCatalog(ctx context.Context, f Fetcher, s Section) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := readCatalog(ctx, f, s, func(h *Header, loc Location, _ []byte) error {
			if !yield(Entry{Record: h.Record, Location: loc}, nil) {
				return errStop
			}
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Entry{}, err)
		}
	}
}

func readCatalog(ctx context.Context, f Fetcher, s Section, visit func(*Header, Location, []byte) error) error {
	if s.Offset < packHeaderLen || s.Length < 0 || s.Offset > MaxPack || s.Length > MaxPack {
		return corrupt(s.Offset, "no catalog can stand there with %d bytes", s.Length)
	}
	var body io.ReadCloser = io.NopCloser(nil)
	if s.Length > 0 {
		var err error
		if body, err = f.Fetch(ctx, s.Offset, s.Length); err != nil {
			return fmt.Errorf("fetch catalog: %w", err)
		}
	}
	c, err := newCatalogReader(body, s)
	if err == nil {
		err = c.each(visit)
	}
	if errClose := body.Close(); err == nil && errClose != nil {
		err = fmt.Errorf("fetch catalog: %w", errClose)
	}
	return err
}
