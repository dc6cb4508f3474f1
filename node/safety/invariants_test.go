package safety

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// catalogs are the records of packs, read once: packs never change.
type catalogs map[desformat.PackID][]desformat.Entry

// records returns a pack's records as its object in the store lists them.
func (w *world) records(p *raftmeta.Pack) []desformat.Entry {
	if list, known := w.catalog[p.ID]; known {
		return list
	}
	content := w.store.Bytes(p.Copies[0].Key)
	var list []desformat.Entry
	for e, err := range desformat.ReadCatalog(context.Background(), desformat.FetchReaderAt(bytes.NewReader(content)), p.Catalog) {
		if err != nil {
			w.judge.Errorf("pack %s: catalog: %v", p.ID, err)
			return nil
		}
		list = append(list, e)
	}
	w.catalog[p.ID] = list
	return list
}

// check holds what must be true at every moment, the one between two effects
// included: each file's content stands at its path, or under its quarantine
// name beside it, or it is proven to be in a pack. And whoever asks gets it.
func (w *world) check(when string) {
	for _, e := range w.ledger {
		open, hidden, isOpen, isHidden := w.files.content(e.path)
		there := isOpen && bytes.Equal(open, e.now()) || isHidden && bytes.Equal(hidden, e.now())
		if !there && !w.proven(e) {
			w.judge.Errorf("%s: %s is gone, and no verified pack holds it", when, e.name)
		}
		if w.strict && w.node != nil && !w.node.dead.Load() {
			w.wantRead(when, e)
		}
	}
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	for _, text := range w.rows.illegal {
		w.judge.Errorf("%s: illegal transition: %s", when, text)
	}
	w.rows.illegal = nil
	for _, r := range w.rows.byID {
		if !slices.Contains(states(), r.State) {
			w.judge.Errorf("%s: row %s is %q", when, r.ID, r.State)
		}
	}
}

func states() []source.State {
	return []source.State{source.Active, source.Marked, source.Packed, source.DeletedSource, source.Failed}
}

// proven reports whether a live, acknowledged, verified and undamaged pack holds
// the file's content, and its object in the store does so too.
func (w *world) proven(e *entry) bool {
	v := w.view()
	if w.rebuilding() {
		v = w.newLife.before // what was true then is in the store still
	}
	for p := range v.Packs() {
		c := p.Copies[0]
		known := p.Acknowledged && !c.VerifiedAt.IsZero()
		known = known || p.Token.Generation < v.Generation() // a new life does both again
		if !p.ReplacedBy.IsZero() || !known || c.Damage != "" {
			continue
		}
		if w.holds(p, e) {
			return true
		}
	}
	return false
}

// holds reports whether the pack's object holds the newest content of the file
// in a record that is not dead.
func (w *world) holds(p *raftmeta.Pack, e *entry) bool {
	object := w.store.Bytes(p.Copies[0].Key)
	for _, rec := range w.records(p) {
		if rec.Name != e.name || rec.SHA256 != sha256.Sum256(e.now()) || p.IsDead(rec.Ordinal) {
			continue
		}
		if int64(len(object)) == p.Size && bytes.Contains(object, e.now()) {
			return true
		}
	}
	return false
}

// wantRead reads a file as a client does. A file that was changed is served in
// its last archived version until it is packed again.
func (w *world) wantRead(when string, e *entry) {
	got, err := w.node.read(e.name)
	if err != nil && w.rebuilding() {
		return // a miss is no answer yet
	}
	if err != nil {
		if _, _, isOpen, isHidden := w.files.content(e.path); !isOpen && isHidden && w.row(e).State != source.Packed {
			return // changed while its original was hidden: it is put back
		}
		w.judge.Errorf("%s: read %s: %v", when, e.name, err)
		return
	}
	if bytes.Equal(got, e.now()) {
		return
	}
	r := w.row(e)
	packed := (r.State == source.Packed || r.State == source.DeletedSource) && r.Size == int64(len(e.now()))
	if packed || !slices.ContainsFunc(e.versions, func(old []byte) bool { return bytes.Equal(got, old) }) {
		w.judge.Errorf("%s: read %s: got %q, want %q", when, e.name, got, e.now())
	}
}

func readAll(ctx context.Context, f *retriever.File) ([]byte, error) {
	body, err := f.Open(ctx, 0, f.Size())
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(body)
	if errClose := body.Close(); err == nil {
		err = errClose
	}
	return b, err
}

// restored reports whether all files are archived, as far as the rows of a new
// life can tell: an original of which the look at it failed is not known to be
// deleted.
func (w *world) restored() bool {
	for _, e := range w.ledger {
		if r := w.row(e); r.State != source.Packed && r.State != source.DeletedSource {
			return false
		}
	}
	return w.upkept()
}

// archived reports whether all files are archived, and their originals deleted
// unless the world keeps them.
func (w *world) archived() bool {
	want := source.DeletedSource
	if w.keep {
		want = source.Packed
	}
	for _, e := range w.ledger {
		r := w.row(e)
		if r.ErrorCode != "" { // an operator's part: try again what went wrong
			_, _ = w.rows.Retry(context.Background(), source.Selection{}, w.now())
			return false
		}
		if r.State != want {
			return false
		}
	}
	return w.upkept()
}

// upkept reports whether all packs are acknowledged and verified, and nobody is
// at work.
func (w *world) upkept() bool {
	v := w.view()
	for p := range v.Packs() {
		if !p.Acknowledged || p.Copies[0].VerifiedAt.IsZero() {
			return false
		}
	}
	return len(v.Leases()) == 0
}

// wantEnd holds what must be true when the node has finished: each file
// readable and identical, in exactly one live pack version, nothing hidden, no
// row FAILED.
func (w *world) wantEnd() {
	if w.judge.lost() {
		return
	}
	w.check("at the end")
	v := w.view()
	for _, e := range w.ledger {
		if got, err := w.node.read(e.name); err != nil || !bytes.Equal(got, e.now()) {
			w.judge.Errorf("at the end: %s is read as %q, %v; want %q", e.name, got, err, e.now())
		}
		if n := w.liveRecords(v, e); n != 1 {
			w.judge.Errorf("at the end: %s is in %d live records of its newest version, want 1; %s", e.name, n, w.describe())
		}
		if r := w.row(e); r.State == source.Failed {
			w.judge.Errorf("at the end: row of %s is FAILED: %s %s", e.name, r.ErrorCode, r.ErrorText)
		}
	}
	for _, path := range w.files.paths() {
		if strings.Contains(path, hiddenPrefix) {
			w.judge.Errorf("at the end: %s is left behind", path)
		}
	}
}

// liveRecords counts the live records that hold the file's newest version.
func (w *world) liveRecords(v *raftmeta.View, e *entry) (n int) {
	for p := range v.Packs() {
		for _, rec := range w.records(p) {
			if p.ReplacedBy.IsZero() && rec.Name == e.name && rec.SHA256 == sha256.Sum256(e.now()) && !p.IsDead(rec.Ordinal) {
				n++
			}
		}
	}
	return n
}

// kept returns the keys of the few objects beside the packs.
func (w *world) kept() []string {
	keys := append(w.objects("generations/"), w.objects("cluster.json")...)
	list, err := backup.List(w.view())
	if err != nil {
		w.judge.Errorf("list of backups: %v", err)
	}
	for _, b := range list {
		keys = append(keys, b.Key)
	}
	if w.newLife != nil && w.newLife.base != "" {
		keys = append(keys, w.newLife.base) // listed by the first backup of the new life
	}
	return keys
}

// wantTidy holds what must be true when garbage was collected: the store holds
// the live packs and nothing else, and nothing is announced or in quarantine.
func (w *world) wantTidy() {
	v := w.view()
	known := map[string]bool{}
	for p := range v.Packs() {
		known[p.Copies[0].Key] = true
	}
	for _, kept := range w.kept() {
		known[kept] = true
	}
	for _, key := range w.store.Keys() {
		if !known[key] {
			w.judge.Errorf("at the end: object %s is unknown", key)
		}
		delete(known, key)
	}
	for key := range known {
		w.judge.Errorf("at the end: pack %s has no object", key)
	}
	if u := v.Uploads(); len(u) > 0 {
		w.judge.Errorf("at the end: announced still: %v", u)
	}
}
