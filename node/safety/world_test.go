package safety

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

const (
	theSource = "files"
	theRoot   = "/srv"
)

var theCluster = desformat.ClusterID{1, 2, 3} //nolint:gochecknoglobals // a constant

// world is all that outlives a node: rows, originals, objects, the manifest's
// log and the disk; and the ledger of what nobody may lose.
type world struct {
	judge *judge
	gate  *gate

	rows    *rows
	files   *originals
	store   *storetest.Fake
	uploads *uploads
	journal *raftmeta.Journal
	disk    *disk
	spool   *spool

	keep    bool // originals are not deleted
	events  map[string]func()
	taking  sync.Mutex        // guards events while a round runs
	ledger  map[string]*entry // by name
	serial  atomic.Int64      // of pack ids
	ticks   atomic.Int64      // of the clock
	node    *node             // the life there is; nil: none
	meta    *raftmeta.Local   // of the last life
	catalog catalogs
	strict  bool // at each effect every file is read as well

	id         raftmeta.NodeID
	generation uint64   // 0: the first
	newLife    *newLife // nil: the cluster is in its first life
	backups    bool     // each round makes one
	backedUp   int
}

// newLife says from what a new life of the cluster begins.
type newLife struct {
	base   string         // a backup's key; "": none
	rows   bool           // the rows' columns are written back
	before *raftmeta.View // what the life before knew
}

// entry is a file in the ledger: what the customer has written, oldest first.
type entry struct {
	name, path string
	id         string // of its row
	versions   [][]byte
}

func (e *entry) now() []byte { return e.versions[len(e.versions)-1] }

// judge takes the failures of one run, and says of which.
type judge struct {
	testing.TB
	about  fmt.Stringer
	mu     sync.Mutex
	failed []string // guarded by mu
	ends   []func() // guarded by mu
}

func (j *judge) Helper() {}

func (j *judge) Errorf(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed = append(j.failed, fmt.Sprintf(format, args...))
}

func (j *judge) Error(args ...any) { j.Errorf("%s", fmt.Sprint(args...)) }

func (j *judge) Cleanup(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ends = append(j.ends, f)
}

// end runs what waited for the end of the run and returns its failures.
func (j *judge) end() []string {
	for _, f := range j.ends {
		f()
	}
	return j.failed
}

// newWorld makes an empty world whose effects meet a schedule.
func newWorld(tb testing.TB, known map[string]bool, plan schedule) *world {
	w := &world{
		judge: &judge{TB: tb, about: plan}, gate: newGate(known, plan),
		rows: newRows(theSource), uploads: &uploads{}, journal: &raftmeta.Journal{}, disk: newDisk(), spool: newSpool(),
		events: map[string]func(){}, ledger: map[string]*entry{}, catalog: catalogs{}, id: theNode,
	}
	w.files = newOriginals(theRoot, w.now)
	w.store = storetest.NewFake(w.judge)
	w.gate.strange = func(name string) { w.judge.Errorf("effect %s is not listed", name) }
	w.gate.boundary = w.boundary
	return w
}

// now is the time: virtual, and later at each look, as of a real clock.
func (w *world) now() time.Time {
	return time.Now().Add(time.Duration(w.ticks.Add(1)) * time.Microsecond)
}

// due takes what is to happen at an effect. A row's file may be opened while
// another one's is read.
func (w *world) due(name string) func() {
	w.taking.Lock()
	defer w.taking.Unlock()
	happen := w.events[name]
	delete(w.events, name)
	return happen
}

// boundary is called after each effect.
func (w *world) boundary(e effect, wrote bool) {
	if happen := w.due(e.name); happen != nil {
		happen()
	}
	if wrote {
		w.check("after " + e.String())
	}
}

// add gives the customer a file, and its row.
func (w *world) add(name, content string) {
	e := &entry{name: name, path: theRoot + "/" + name, versions: [][]byte{[]byte(content)}}
	modified := w.now().Add(-48 * time.Hour)
	n := w.files.write(e.path, e.now(), modified)
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	w.rows.add(source.File{Name: name, Path: e.path, Size: int64(len(content)), ModTime: modified, FileID: n.id()}, true)
	e.id = fmt.Sprint(w.rows.last)
	w.ledger[name] = e
}

// change has the customer replace a file: its row is ACTIVE again.
func (w *world) change(name, content string) {
	e := w.ledger[name]
	modified := w.now()
	w.files.write(e.path, []byte(content), modified)
	e.versions = append(e.versions, []byte(content))
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	err := w.rows.change(w.rows.byID[idOf(e.id)], func(r *row) {
		r.State, r.Size, r.ModTime, r.FileID = source.Active, int64(len(content)), modified.UTC(), ""
	})
	if err != nil {
		w.judge.Errorf("the customer changes %s: %v", name, err)
	}
}

// begin ends this life of the cluster, node, disk and manifest, and has another
// one begin.
func (w *world) begin(l newLife) {
	w.stop()
	l.before = w.view()
	w.newLife, w.id = &l, w.id+"-again"
	w.journal, w.disk, w.spool = &raftmeta.Journal{}, newDisk(), newSpool()
}

// rebuilding reports whether the manifest is not whole yet.
func (w *world) rebuilding() bool {
	v := w.view()
	return w.newLife != nil && (v.Generation() == w.newLife.before.Generation() || !v.RebuildDone(v.Generation()))
}

// withdraw has the source system delete a file and its row: nobody misses it.
func (w *world) withdraw(name string) {
	e := w.ledger[name]
	delete(w.ledger, name)
	w.files.remove(e.path)
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	delete(w.rows.byID, idOf(e.id))
}

// newPackID gives each build an id that no other has.
func (w *world) newPackID() (id desformat.PackID) {
	n := w.serial.Add(1)
	sum := sha256.Sum256([]byte(fmt.Sprint("pack ", n)))
	copy(id[:], sum[:])
	return id
}

// row returns the row of a file in the ledger.
func (w *world) row(e *entry) source.Row {
	r, err := w.rows.ByID(context.Background(), e.id)
	if err != nil {
		w.judge.Errorf("row of %s: %v", e.name, err)
	}
	return r
}

// live runs the node until done, and fails after so many rounds.
func (w *world) live(rounds int, done func() bool) {
	if !w.until(rounds, done) && !w.judge.lost() {
		w.judge.Errorf("not finished after %d rounds: %s", rounds, w.describe())
	}
}

// until runs the node for some rounds, or until a node lives and done. What
// dies is started again; between two rounds a minute passes.
func (w *world) until(n int, done func() bool) bool {
	for range n {
		if w.node == nil {
			w.start()
		}
		if w.node != nil {
			w.node.round()
		}
		w.rest()
		if w.judge.lost() {
			return false
		}
		if w.node != nil && done() {
			return true
		}
	}
	return false
}

// lost reports whether the run has failed already.
func (j *judge) lost() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.failed) > 0
}

// rest buries a dead node, lets a minute pass, and the leases run out that
// nobody holds any more.
func (w *world) rest() {
	w.pass(time.Minute)
	if w.node == nil {
		return
	}
	if w.node.dead.Load() {
		w.stop()
		return
	}
	var tokens []desformat.Token
	for _, l := range w.node.meta.View().Leases() {
		tokens = append(tokens, l.Token)
	}
	if err := w.node.meta.Expire(tokens...); err != nil {
		w.judge.Errorf("expire leases: %v", err)
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) { time.Sleep(d) }

// stop ends the node, alive or dead.
func (w *world) stop() {
	if w.node != nil {
		w.node.end()
		w.node = nil
	}
}

// view is the manifest as of now: whatever a node has committed, a Local has
// applied before its command returns.
func (w *world) view() *raftmeta.View { return w.meta.View() }

// describe says what the world looks like, for a failure.
func (w *world) describe() string {
	var text []string
	for _, name := range w.names() {
		r := w.row(w.ledger[name])
		text = append(text, fmt.Sprintf("%s is %s v%d in pack %s, claim %q, error %q %q, attempts %d",
			name, r.State, r.Version, r.Pack, r.Claim, r.ErrorCode, r.ErrorText, r.Attempts))
	}
	v := w.view()
	for p := range v.Packs() {
		text = append(text, fmt.Sprintf("pack %s acknowledged %v, dead %v, copies %+v", p.ID, p.Acknowledged, p.Dead, p.Copies))
	}
	text = append(text, fmt.Sprintf("uploads %v, leases %v, objects %q, files %q", v.Uploads(), v.Leases(), w.store.Keys(), w.files.paths()))
	var problem error
	if w.node != nil {
		problem = errors.Join(w.node.last, w.node.keeper.Problem(), w.node.packer.Problem(), w.node.marker.Problem())
	}
	return fmt.Sprintf("%q, problem %v", text, problem)
}

// names returns the names of the ledger, sorted.
func (w *world) names() []string {
	var names []string
	for name := range w.ledger {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
