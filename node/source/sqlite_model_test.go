package source_test

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// TestLifeOfRow drives one row through random calls, many of them with a row
// seen earlier, and holds the table against a model that knows two rules: what
// is not as last seen is not touched, and the legal transitions.
func TestLifeOfRow(t *testing.T) {
	s := openSQLite(t, filepath.Join(t.TempDir(), "files.db"))
	lives := 0
	rapid.Check(t, func(rt *rapid.T) {
		lives++
		l := &life{t: t, rt: rt, table: s, name: time.Duration(lives).String(), claim: "1-1"}
		l.start()
		rt.Repeat(map[string]func(*rapid.T){
			"mark": l.mark, "refuse": l.refuse, "attempt": l.attempt, "acknowledge": l.acknowledge,
			"claim": l.claimRow, "unclaim": l.unclaim, "deleted": l.deleted, "retry": l.retry, "register": l.register,
			"": l.check,
		})
	})
}

type life struct {
	t     *testing.T
	rt    *rapid.T
	table *source.SQLite
	name  string
	claim string

	size      int64
	want      source.Row   // the model
	wasMarked bool         // FAILED rows only: they go back to MARKED
	seen      []source.Row // all rows there ever were
	at        time.Time
}

func (l *life) start() {
	l.at = time.Unix(1_000_000, 0).UTC()
	l.size = 1
	if _, err := l.table.Register(l.t.Context(), []source.File{l.file()}); err != nil {
		l.rt.Fatal(err)
	}
	r, err := l.table.ByName(l.t.Context(), l.name)
	if err != nil {
		l.rt.Fatal(err)
	}
	l.want = r
	l.seen = []source.Row{r}
}

func (l *life) file() source.File {
	return source.File{Name: l.name, Path: "/srv/" + l.name, Size: l.size, ModTime: time.Unix(5, 0).UTC()}
}

// pick returns the row as it is, or as it was once.
func (l *life) pick(rt *rapid.T) (row source.Row, fresh bool) {
	l.at = l.at.Add(time.Second)
	i := len(l.seen) - 1
	if rapid.Bool().Draw(rt, "stale") {
		i = rapid.IntRange(0, i).Draw(rt, "seen")
	}
	r := l.seen[i]
	w := l.want
	same := r.Name == w.Name && r.State == w.State && r.Version == w.Version && r.Size == w.Size && r.ModTime.Equal(w.ModTime)
	return r, same
}

// check reads the row and remembers it.
func (l *life) check(rt *rapid.T) {
	got, err := l.table.ByID(l.t.Context(), l.want.ID)
	if err != nil || !reflect.DeepEqual(got, l.want) {
		rt.Fatalf("%v\n got %+v\nwant %+v", err, got, l.want)
	}
	if last := l.seen[len(l.seen)-1]; !reflect.DeepEqual(last, got) {
		l.seen = append(l.seen, got)
	}
}

func (l *life) mark(rt *rapid.T) {
	r, fresh := l.pick(rt)
	r.DesName = r.Name
	moved, err := l.table.Mark(l.t.Context(), []source.Row{r}, source.Marking{At: l.at, ShardBits: 10})
	want := fresh && r.State == source.Active
	if err != nil || moved[0] != want {
		rt.Fatalf("mark of %+v: %v, %v", r, moved, err)
	}
	if want {
		w := &l.want
		w.State, w.Version, w.DesName, w.MarkedAt = source.Marked, w.Version+1, w.Name, l.at
		l.clearError()
		w.LastAttempt = time.Time{}
	}
}

func (l *life) clearError() { l.want.Attempts, l.want.ErrorCode, l.want.ErrorText = 0, "", "" }

func (l *life) refuse(rt *rapid.T) {
	r, fresh := l.pick(rt)
	if r.State != source.Active && r.State != source.Marked {
		return
	}
	if err := l.table.Refuse(l.t.Context(), r, source.CodeInvalidName, "why", l.at); err != nil {
		rt.Fatal(err)
	}
	if fresh {
		w := &l.want
		l.wasMarked = w.State == source.Marked
		if !l.wasMarked {
			w.MarkedAt = time.Time{}
		}
		w.State, w.ErrorCode, w.ErrorText, w.LastAttempt = source.Failed, source.CodeInvalidName, "why", l.at
	}
}

func (l *life) attempt(rt *rapid.T) {
	const limit = 2
	r, fresh := l.pick(rt)
	if r.State != source.Marked {
		return
	}
	failed, err := l.table.Attempt(l.t.Context(), r, source.CodeReadError, "why", limit, l.at)
	if err != nil {
		rt.Fatal(err)
	}
	w := &l.want
	if fresh && r.Attempts == w.Attempts {
		w.Attempts++
		w.ErrorCode, w.ErrorText, w.LastAttempt = source.CodeReadError, "why", l.at
		if w.Attempts >= limit {
			w.State, l.wasMarked = source.Failed, true
		}
		if failed != (w.State == source.Failed) {
			rt.Fatalf("attempt %d says %v", w.Attempts, failed)
		}
	} else if failed && w.State != source.Failed {
		rt.Fatal("an attempt at a row as it was says that it failed")
	}
}

func (l *life) acknowledge(rt *rapid.T) {
	r, fresh := l.pick(rt)
	pack := desformat.PackID{1, byte(rapid.IntRange(0, 2).Draw(rt, "pack"))}
	if r.DesName == "" {
		return
	}
	got, err := l.table.Acknowledge(l.t.Context(), []source.Ack{{
		ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, Pack: pack,
	}}, 5, l.at)
	if err != nil {
		rt.Fatal(err)
	}
	// The catalog knows no state: the row may have been listed in any.
	w := &l.want
	done := w.State == source.Marked && r.Version == w.Version && r.Size == w.Size && r.ModTime.Equal(w.ModTime)
	want := source.AckGone
	switch {
	case done || w.Pack == pack:
		want = source.AckDone
	case !w.Pack.IsZero():
		want = source.AckOtherPack
	}
	if got[0] != want {
		rt.Fatalf("acknowledge of %+v (fresh %v): %v, want %v", r, fresh, got[0], want)
	}
	if done {
		w.State, w.Pack, w.PackedAt = source.Packed, pack, l.at
		l.clearError()
	}
}

func (l *life) claimRow(rt *rapid.T) {
	r, fresh := l.pick(rt)
	if r.State != source.Packed {
		return
	}
	claim := rapid.SampledFrom([]string{"1-1", "1-2"}).Draw(rt, "claim")
	ok, err := l.table.Claim(l.t.Context(), r, claim)
	want := fresh && r.Pack == l.want.Pack && (r.Claim == l.want.Claim || l.want.Claim == claim)
	if err != nil || ok != want {
		rt.Fatalf("claim %s of %+v: %v, %v", claim, r, ok, err)
	}
	if ok {
		l.want.Claim = claim
	}
}

func (l *life) unclaim(rt *rapid.T) {
	r, fresh := l.pick(rt)
	if r.State != source.Packed {
		return
	}
	code := rapid.SampledFrom([]string{"", source.CodeShared}).Draw(rt, "code")
	if err := l.table.Unclaim(l.t.Context(), r, l.claim, code, "", l.at); err != nil {
		rt.Fatal(err)
	}
	if fresh && r.Pack == l.want.Pack && l.want.Claim == l.claim {
		l.want.Claim = ""
		if code != "" {
			l.want.ErrorCode, l.want.ErrorText, l.want.LastAttempt = code, "", l.at
		}
	}
}

func (l *life) deleted(rt *rapid.T) {
	r, fresh := l.pick(rt)
	if r.State != source.Packed {
		return
	}
	ok, err := l.table.Deleted(l.t.Context(), r, l.claim, l.at)
	w := &l.want
	now := fresh && r.Pack == w.Pack && w.Claim == l.claim
	before := w.State == source.DeletedSource && r.Pack == w.Pack && r.Version == w.Version && w.Claim == l.claim
	if err != nil || ok != (now || before) {
		rt.Fatalf("deleted of %+v: %v, %v", r, ok, err)
	}
	if now {
		w.State = source.DeletedSource
	}
}

func (l *life) retry(rt *rapid.T) {
	l.at = l.at.Add(time.Second)
	n, err := l.table.Retry(l.t.Context(), source.Selection{Names: []string{l.name}}, l.at)
	w := &l.want
	if err != nil || (n == 1) != (w.ErrorCode != "") {
		rt.Fatalf("retry: %d, %v", n, err)
	}
	if n == 0 {
		return
	}
	if w.State == source.Failed {
		w.State = source.Active
		if l.wasMarked {
			w.State, w.MarkedAt = source.Marked, l.at
		}
	}
	l.clearError()
	w.LastAttempt = time.Time{}
}

func (l *life) register(rt *rapid.T) {
	changed := rapid.Bool().Draw(rt, "changed")
	if changed {
		l.size++
	}
	changed = changed || l.want.State == source.DeletedSource
	got, err := l.table.Register(l.t.Context(), []source.File{l.file()})
	if err != nil || (got[0] == source.RegisteredChanged) != changed {
		rt.Fatalf("register: %v, %v", got, err)
	}
	if changed {
		w := &l.want
		w.State, w.Size, w.Claim, w.LastAttempt = source.Active, l.size, "", time.Time{}
		l.clearError()
	}
}
