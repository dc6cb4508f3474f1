package sourcetest

import (
	"cmp"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// change is one statement of the contract that changes a row.
type change struct {
	name    string
	prepare func(*testing.T, *table) source.Row // a row that it changes
	// call makes the change, and tells whether the driver says that it did.
	call   func(*testing.T, *table, source.Row) (said bool, err error)
	guards []string // beside those that all have
}

const claim = "1-42"

func changes() []change {
	packed := func(t *testing.T, tb *table) source.Row { return tb.packed(t, packOne, "a")[0] }
	marked := func(t *testing.T, tb *table) source.Row { return tb.marked(t, "a")[0] }
	claimed := func(t *testing.T, tb *table) source.Row {
		r := packed(t, tb)
		if ok, err := tb.Claim(t.Context(), r, claim); err != nil || !ok {
			t.Fatalf("claim: %v, %v", ok, err)
		}
		return tb.byID(t, r.ID)
	}
	return []change{
		{
			"mark",
			func(t *testing.T, tb *table) source.Row { return tb.add(t, "a")[0] },
			func(t *testing.T, tb *table, r source.Row) (bool, error) {
				r.DesName = r.Name
				moved, err := tb.Mark(t.Context(), []source.Row{r}, marking)
				return err == nil && moved[0], err
			},
			nil,
		},
		{
			"refuse", marked,
			func(t *testing.T, tb *table, r source.Row) (bool, error) {
				return false, tb.Table.Refuse(t.Context(), r, source.CodeInvalidName, "why", markedAt)
			},
			nil,
		},
		{
			"attempt", marked,
			func(t *testing.T, tb *table, r source.Row) (bool, error) {
				return tb.Attempt(t.Context(), r, source.CodeReadError, "why", 1, markedAt)
			},
			nil,
		},
		{
			"acknowledge", marked,
			func(t *testing.T, tb *table, r source.Row) (bool, error) {
				return tb.acknowledge(t, acks(packOne, []source.Row{r})...)[0] == source.AckDone, nil
			},
			[]string{"des_name"},
		},
		{
			"claim", packed,
			func(t *testing.T, tb *table, r source.Row) (bool, error) { return tb.Claim(t.Context(), r, claim) },
			[]string{"des_pack", "des_claim"},
		},
		{
			"unclaim", claimed,
			func(t *testing.T, tb *table, r source.Row) (bool, error) {
				return false, tb.Unclaim(t.Context(), r, claim, source.CodeShared, "why", packedAt)
			},
			[]string{"des_pack", "des_claim"},
		},
		{
			"deleted", claimed,
			func(t *testing.T, tb *table, r source.Row) (bool, error) {
				return tb.Deleted(t.Context(), r, claim, packedAt)
			},
			[]string{"des_pack", "des_claim"},
		},
	}
}

// guards: a row that is not as last seen in any one column is not touched.
func guards(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range changes() {
		columns := append([]string{"id", "name", "status", "archive_version", "size", "modified_at"}, c.guards...)
		if c.name == "acknowledge" { // it knows the served name only
			columns = slices.DeleteFunc(columns, func(s string) bool { return s == "name" })
		}
		for _, column := range columns {
			t.Run(c.name+"/"+column, func(t *testing.T) {
				tb := newTable(open(t))
				seen := c.prepare(t, tb)
				id := seen.ID
				tb.Edit(t, id, column, other(tb, column, seen))
				if column == "id" {
					id = tb.otherID()
				}
				before := tb.byID(t, id)
				if said, err := c.call(t, tb, seen); err != nil || said {
					t.Errorf("says %v, %v; want that it did nothing", said, err)
				}
				tb.want(t, "the row", before)
			})
		}
		t.Run(c.name+"/nothing", func(t *testing.T) { // else the tests above prove nothing
			tb := newTable(open(t))
			seen := c.prepare(t, tb)
			if _, err := c.call(t, tb, seen); err != nil {
				t.Error(err)
			}
			if reflect.DeepEqual(tb.byID(t, seen.ID), seen) {
				t.Error("the row as last seen was not changed either")
			}
		})
	}
}

// otherID is an id that no row of the suite has.
func (tb *table) otherID() string { return cmp.Or(tb.OtherID, "4711") }

// other returns a value that the column does not have.
func other(tb *table, column string, r source.Row) any {
	switch column {
	case "id":
		return tb.otherID()
	case "archive_version":
		return int64(r.Version) + 1
	case "size":
		return r.Size + 1
	case "modified_at":
		return r.ModTime.Add(max(tb.Unit, time.Nanosecond))
	case "status":
		return string(source.Failed)
	case "des_pack":
		return packTwo
	case "des_claim":
		return "1-43"
	}
	return "another " + column
}
