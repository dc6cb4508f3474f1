package safety

import (
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/sourcetest"
)

var _ source.Table = (*rows)(nil)

// The rows in memory are held to what every driver is held to.
func TestRowsConform(t *testing.T) {
	sourcetest.Run(t, func(*testing.T) sourcetest.Harness {
		table := newRows("files")
		return sourcetest.Harness{
			Table: table,
			Add: func(_ *testing.T, files ...source.File) {
				for _, f := range files {
					table.add(f, false)
				}
			},
			Edit:   func(t *testing.T, id, column string, value any) { table.edit(t, id, column, value) },
			Refuse: func(_ *testing.T, id string) { table.refused[idOf(id)] = true },
			Unit:   time.Nanosecond,
		}
	})
}

// edit sets a column past every constraint.
func (t *rows) edit(tb testing.TB, id, column string, value any) {
	tb.Helper()
	r := t.byID[idOf(id)]
	text, _ := value.(string)
	number, _ := value.(int64)
	at, _ := value.(time.Time)
	switch column {
	case "id":
		delete(t.byID, r.id)
		r.id, r.ID = idOf(text), text
		t.byID[r.id] = r
	case "name":
		r.Name = text
	case "des_name":
		r.DesName = text
	case "status":
		r.State = source.State(text)
	case "archive_version":
		r.Version = uint32(number)
	case "archive_attempts":
		r.Attempts = int(number)
	case "size":
		r.Size = number
	case "modified_at":
		r.ModTime = at.UTC()
	case "marked_at":
		r.MarkedAt = at
	case "packed_at":
		r.PackedAt = at
	case "last_archive_attempt_at":
		r.LastAttempt = at
	case "des_hash":
		r.hash = number
	case "des_claim":
		r.Claim = text
	case "des_pack":
		r.Pack, _ = value.(desformat.PackID)
	case "file_id":
		r.FileID = text
	case "archive_error":
		code, what, _ := strings.Cut(text, ": ")
		r.fail(code, what)
	default:
		tb.Fatalf("no column %s", column)
	}
}
