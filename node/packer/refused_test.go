package packer

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/datavision/desnode/node/source"
)

// trigger makes the customer's own rule in a source's database.
func (w *world) trigger(src, text string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", w.dbs[src]+"?_pragma=busy_timeout(10000)")
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = db.Exec("CREATE TRIGGER customer " + text)
	if err := errors.Join(err, db.Close()); err != nil {
		w.t.Fatal(err)
	}
}

func TestARowThatTheDatabaseRefusesIsPackedNoMoreThanItsAttempts(t *testing.T) {
	w := newWorld(t)
	w.write("good", []byte("content of good"))
	w.write("bad", []byte("content of bad"))
	w.register("files", "good", "good")
	w.register("files", "bad", "bad")
	w.trigger("files", `BEFORE UPDATE OF status ON files WHEN NEW.status = 'PACKED' AND OLD.name = 'bad'
 BEGIN SELECT RAISE(ABORT, 'not this one'); END`)
	p := w.packer()
	var total Result
	for range 20 {
		res, err := p.Once(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		total.add(res)
		if res.Due == 0 {
			break
		}
	}
	if row := w.row("good"); row.State != source.Packed {
		t.Errorf("the good row is %s", row.State)
	}
	if row := w.row("bad"); row.State != source.Failed || row.ErrorCode != source.CodeRefused {
		t.Errorf("the refused row is %s %s after %d attempts", row.State, row.ErrorCode, row.Attempts)
	}
	if total.Packs != 5 || total.Rows != 1 || total.Failed != 5 || total.Refused != 5 {
		t.Errorf("result = %+v, want 5 packs of which one row lives", total)
	}
}

func TestRowsThatMayNotBeTouchedAreNotPackedWithoutPause(t *testing.T) {
	w := newWorld(t)
	w.write("bad", []byte("content of bad"))
	w.register("files", "bad", "bad")
	w.trigger("files", `BEFORE UPDATE ON files BEGIN SELECT RAISE(ABORT, 'read only'); END`)
	res, err := w.packer().Once(t.Context(), true)
	if err != nil || res.Refused != 1 || res.progress() {
		t.Errorf("result = %+v, %v; want a refusal and no progress, so that Run backs off", res, err)
	}
}
