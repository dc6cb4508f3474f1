package safety

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// A customer's table has a life of its own: files change, rows are duplicated
// and renamed, come back, and after a bad day the whole database is put back from
// a backup, while files, packs and manifest are those of today: rows stand in
// older states, others have vanished, and their ids are given to other files.
// Whatever the history, no content may be lost and none be served that is not
// the file's.

// history is one random life.
type history struct {
	*world
	random *rand.Rand
	said   []string               // what happened, for a failure
	backup *backupOfRows          // nil: none was made
	times  map[string][]time.Time // of each version of a file, by name
	serial int
}

// backupOfRows is a copy of the customer's table.
type backupOfRows struct {
	last int64
	byID map[int64]row
}

func (h *history) note(format string, args ...any) {
	h.said = append(h.said, fmt.Sprintf(format, args...))
}

// pick returns a file of the ledger.
func (h *history) pick() *entry {
	names := h.names()
	return h.ledger[names[h.random.IntN(len(names))]]
}

// steps are what may happen, and how often.
func (h *history) steps() map[string]int {
	return map[string]int{
		"work": 10, "crash": 4, "wait": 3, "add": 4, "change": 5, "edit in silence": 2, "put an older version back": 2, "duplicate": 1, "rename": 2,
		"bring a row back": 2, "back up": 2, "restore": 3, "import": 3, "retry": 1,
	}
}

func (h *history) step(what string) {
	switch what {
	case "work":
		h.rounds(1 + h.random.IntN(2))
		h.rest()
	case "crash":
		names := slices.Sorted(maps.Keys(effects()))
		at := names[h.random.IntN(len(names))]
		h.note("crash after %s", at)
		h.events[at] = func() {
			if h.node != nil {
				h.node.kill()
			}
		}
		h.rounds(1)
		h.rest()
	case "wait":
		h.pass(time.Duration(h.random.IntN(50)) * time.Hour)
	case "add":
		h.serial++
		name := fmt.Sprint("file-", h.serial)
		h.add(name, "first of "+name)
		h.times[name] = []time.Time{h.rowsByName(name)[0].ModTime}
		h.note("add %s as row %s", name, h.ledger[name].id)
	case "change":
		h.serial++
		h.replace(h.pick(), fmt.Sprint("content ", h.serial), h.now(), "change")
	case "edit in silence":
		h.editInSilence(h.pick())
	case "put an older version back":
		e := h.pick()
		i := h.random.IntN(len(e.versions))
		h.replace(e, string(e.versions[i]), h.times[e.name][i], fmt.Sprint("put back version ", i, " of"))
	case "duplicate":
		h.duplicate(h.pick())
	case "rename":
		h.rename(h.pick())
	case "bring a row back":
		h.bringBack(h.pick())
	case "back up":
		h.makeBackup()
	case "restore":
		h.restore()
	case "import":
		h.importAll()
	case "retry":
		_, _ = h.world.rows.Retry(context.Background(), source.Selection{}, h.now()) // refused for rows in mid-change
	}
}

// rowsByName returns the rows of the source's own name.
func (h *history) rowsByName(name string) (found []*row) {
	for _, r := range h.world.rows.byID {
		if r.Name == name {
			found = append(found, r)
		}
	}
	return found
}

// replace puts a file in place of another, and tells the rows that name it, as
// a source system does that watches its files.
func (h *history) replace(e *entry, content string, modified time.Time, what string) {
	h.note("%s %s: %q", what, e.name, content)
	n := h.files.write(e.path, []byte(content), modified)
	for _, other := range h.ledger {
		if other.path == e.path && !h.orphan(other) {
			other.versions = append(other.versions, []byte(content))
			h.times[other.name] = append(h.times[other.name], modified)
		}
	}
	h.tell(e.path, n.info())
}

// editInSilence changes bytes of a file and neither its size nor its time, as a
// tool does that preserves times.
func (h *history) editInSilence(e *entry) {
	content, _, there, _ := h.files.content(e.path)
	if !there {
		return
	}
	h.serial++
	edited := []byte(fmt.Sprintf("%0*d", len(content), h.serial))[:len(content)]
	h.note("edit %s in silence: %q", e.name, edited)
	modified := h.files.info(e.path).ModTime
	h.files.write(e.path, edited, modified)
	for _, other := range h.ledger {
		if other.path == e.path && !h.orphan(other) {
			other.versions = append(other.versions, edited)
			h.times[other.name] = append(h.times[other.name], modified)
		}
	}
}

// tell brings all rows of a path up to the file that stands there.
func (h *history) tell(path string, info source.Info) {
	for _, r := range h.world.rows.byID {
		if r.Path == path && (r.Size != info.Size || !r.ModTime.Equal(info.ModTime)) {
			h.update(r, func(r *row) {
				r.State, r.Size, r.ModTime, r.FileID = source.Active, info.Size, info.ModTime, info.FileID
			})
		}
	}
}

// update changes a row as its owner. What the schema refuses he does not do.
func (h *history) update(r *row, f func(*row)) {
	before := len(h.world.rows.illegal)
	if err := h.world.rows.change(r, f); err != nil {
		h.note("refused: %v", err)
	}
	h.world.rows.illegal = h.world.rows.illegal[:before]
}

// duplicate copies a row under another name: two rows reach one file.
func (h *history) duplicate(e *entry) {
	found := h.rowsByName(e.name)
	_, _, there, _ := h.files.content(e.path)
	if len(found) == 0 || !there {
		return
	}
	h.serial++
	name := fmt.Sprint("twin-", h.serial)
	r := found[0]
	h.world.rows.add(source.File{Name: name, Path: e.path, Size: r.Size, ModTime: r.ModTime}, true)
	h.ledger[name] = &entry{name: name, path: e.path, id: fmt.Sprint(h.world.rows.last), versions: slices.Clone(e.versions)}
	h.times[name] = slices.Clone(h.times[e.name])
	h.note("%s is %s as well, row %s", e.name, name, h.ledger[name].id)
}

// rename gives a row that was never marked another name.
func (h *history) rename(e *entry) {
	for _, r := range h.rowsByName(e.name) {
		h.serial++
		name := fmt.Sprint("renamed-", h.serial)
		if r.Version > 0 || r.DesName != "" {
			h.note("rename %s, which is frozen", e.name)
			h.update(r, func(r *row) { r.Name, r.DesName = name, name })
			if r.Name == name {
				h.judge.Errorf("%s was renamed after it was marked", e.name)
			}
			continue
		}
		if h.archivedOnce(e.name) {
			continue // the name lives in a pack: whose file it is now, nobody can say
		}
		h.note("rename %s to %s", e.name, name)
		h.update(r, func(r *row) { r.Name = name })
		if r.Name == name {
			delete(h.ledger, e.name)
			h.ledger[name], h.times[name] = e, h.times[e.name]
			e.name = name
			return // another row of the old name keeps it
		}
	}
}

// archivedOnce reports whether some pack has a record of the name, whatever its
// row says.
func (h *history) archivedOnce(name string) bool {
	for p := range h.view().Packs() {
		for _, rec := range h.records(p) {
			if rec.Name == name {
				return true
			}
		}
	}
	return false
}

// bringBack makes a row ACTIVE again without a change, as an operator does who
// means well. The schema allows it where the original was deleted.
func (h *history) bringBack(e *entry) {
	for _, r := range h.rowsByName(e.name) {
		h.note("bring back %s, %s", e.name, r.State)
		h.update(r, func(r *row) { r.State = source.Active })
	}
}

func (h *history) makeBackup() {
	h.note("back up the rows")
	h.backup = &backupOfRows{last: h.world.rows.last, byID: map[int64]row{}}
	for id, r := range h.world.rows.byID {
		h.backup.byID[id] = *r
	}
}

// restore puts all rows back, and the counter by which ids are given.
func (h *history) restore() {
	if h.backup == nil {
		return
	}
	h.note("restore the rows")
	h.world.rows.last = h.backup.last
	clear(h.world.rows.byID)
	for id, r := range h.backup.byID {
		h.world.rows.byID[id] = &r
	}
	// Names that are forgotten, and such as are back. What was archived under one
	// name is not lost under another.
	for _, r := range h.world.rows.byID {
		for _, e := range h.ledger {
			if content, _, there, _ := h.files.content(r.Path); there && h.ledger[r.Name] == nil && e.path == r.Path {
				h.ledger[r.Name] = &entry{name: r.Name, path: r.Path, id: r.ID, versions: append(slices.Clone(e.versions), content)}
				h.times[r.Name] = append(slices.Clone(h.times[e.name]), h.files.info(r.Path).ModTime)
				break
			}
		}
	}
	h.forgetOrphans()
}

// forgetOrphans drops names that nobody knows any more: their file has another
// name now, and goes on under that.
func (h *history) forgetOrphans() {
	for name, e := range h.ledger {
		if h.orphan(e) {
			delete(h.ledger, name)
		}
	}
}

// orphan reports whether the file has a row under another name only.
func (h *history) orphan(e *entry) bool {
	other := false
	for _, r := range h.world.rows.byID {
		if r.Name == e.name {
			return false
		}
		other = other || r.Path == e.path
	}
	return other
}

// importAll registers every file that stands at its path, as `desnode import`
// does; one whose row was lost gets another id.
func (h *history) importAll() {
	h.note("import")
	for _, name := range h.names() {
		e := h.ledger[name]
		content, _, there, _ := h.files.content(e.path)
		if !there {
			continue
		}
		info := h.files.info(e.path)
		_, err := h.world.rows.Register(context.Background(), []source.File{{
			Name: e.name, Path: e.path, Size: int64(len(content)), ModTime: info.ModTime, FileID: info.FileID,
		}})
		if err != nil {
			h.note("import %s: %v", name, err)
		}
		h.tell(e.path, info) // import looks for one row of a path; its twins are told as well
	}
	h.forgetOrphans()
	h.world.rows.illegal = nil
}

// info is what a look at a file that is there tells.
func (o *originals) info(at string) source.Info {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[at].info()
}

// settle lets the customer import what stands at its path, the operator retry
// what failed, and the node work, until nothing more comes of it.
func (h *history) settle() {
	h.events = map[string]func(){}
	for range 3 {
		h.importAll()
		_, _ = h.world.rows.Retry(context.Background(), source.Selection{}, h.now())
		for range 8 {
			h.rounds(1)
			h.rest()
			h.pass(2 * time.Hour)
		}
	}
	h.check("at the end")
	if h.node == nil {
		h.start()
	}
	for _, name := range h.names() {
		h.wantServed(h.ledger[name])
	}
}

// wantServed: the newest content is served; or it stands at its path, and its
// row says why it was not archived, or has not been marked for want of a row.
// Whatever is served was this file's once.
func (h *history) wantServed(e *entry) {
	got, err := h.node.read(e.name)
	if err == nil && bytes.Equal(got, e.now()) {
		return
	}
	if err == nil && !slices.ContainsFunc(e.versions, func(v []byte) bool { return bytes.Equal(v, got) }) {
		h.judge.Errorf("%s is served as %q, which it never was", e.name, got)
	}
	content, _, there, _ := h.files.content(e.path)
	if !there || !bytes.Equal(content, e.now()) {
		h.judge.Errorf("%s is served as %q, %v, and its newest content %q is not at its path", e.name, got, err, e.now())
	}
	for _, r := range h.rowsByName(e.name) {
		if r.ErrorCode == "" {
			h.judge.Errorf("%s is served as %q, %v; its row is %s and says nothing", e.name, got, err, r.State)
		}
	}
}

var historyLives = flag.Int("lives", 200, "random lives that TestRandomHistoriesLoseNothing runs")

// TestRandomHistoriesLoseNothing: random lives of files and rows, each repeatable
// by its seed, with restores of the whole table in between.
func TestRandomHistoriesLoseNothing(t *testing.T) {
	lives, length := *historyLives, 40
	if testing.Short() || raceEnabled {
		lives = min(lives, 60)
	}
	var failed, restores atomic.Int64
	inParallel(t, lives, &failed, func(t *testing.T, i int) {
		h := &history{
			world: newWorld(t, effects(), nil), random: rand.New(rand.NewPCG(uint64(i), 5)),
			times: map[string][]time.Time{},
		}
		h.files.write(theRoot+"/keep", []byte("of nobody"), h.now())
		h.start()
		h.step("add")
		var bag []string
		for _, what := range slices.Sorted(maps.Keys(h.steps())) {
			for range h.steps()[what] {
				bag = append(bag, what)
			}
		}
		for range length {
			what := bag[h.random.IntN(len(bag))]
			if what == "restore" && h.backup != nil {
				restores.Add(1)
			}
			if len(h.ledger) == 0 {
				what = "add"
			}
			if h.step(what); h.judge.lost() {
				break
			}
		}
		if !h.judge.lost() {
			h.settle()
		}
		h.stop()
		if said := h.judge.end(); len(said) > 0 {
			failed.Add(1)
			t.Errorf("seed %d:\n%safter\n%s", i, join(said), lines(h.said))
		}
	})
	t.Logf("%d lives, %d restores", lives, restores.Load())
	if n := restores.Load(); failed.Load() == 0 && n < int64(lives)/2 {
		t.Errorf("%d restores in %d lives: hardly anything was tried", n, lives)
	}
}

func lines(list []string) (text string) {
	for _, l := range list {
		text += "    " + l + "\n"
	}
	return text
}
