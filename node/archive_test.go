package node

import (
	"context"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/source"
)

func TestProgressOfAnArchiveRun(t *testing.T) {
	rows := func(n int64) source.Tally { return source.Tally{Rows: n, Bytes: 10 * n} }
	begin := rowCount{eligible: rows(80), pending: rows(100), sure: rows(100), failed: rows(7), packs: packCount{packs: 3, live: 1000, bytes: 10000}}
	cases := []struct {
		name string
		now  rowCount
		want api.ArchiveEvent
	}{
		{"nothing yet", begin, api.ArchiveEvent{}},
		{"marked", rowCount{eligible: rows(30), pending: rows(100), failed: rows(7), packs: begin.packs}, api.ArchiveEvent{Marked: 50}},
		{
			"some packed, some failed",
			rowCount{pending: rows(40), failed: rows(12), packs: packCount{packs: 4, live: 1055, bytes: 10550}},
			api.ArchiveEvent{Marked: 80, Packed: 55, Failed: 5, Bytes: 550, Packs: 1},
		},
		{
			"all were safe in packs already",
			rowCount{failed: rows(7), packs: begin.packs},
			api.ArchiveEvent{Marked: 80, Packed: 100, Bytes: 1000},
		},
		{
			"rows came since",
			rowCount{eligible: rows(500), pending: rows(560), failed: rows(7), packs: packCount{packs: 5, live: 1040, bytes: 10400}},
			api.ArchiveEvent{Packed: 40, Bytes: 400, Packs: 2, TotalRows: 600},
		},
		{
			"failed ones are tried again by somebody",
			rowCount{eligible: rows(80), pending: rows(107), packs: begin.packs},
			api.ArchiveEvent{TotalRows: 107},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.TotalRows, tc.want.TotalBytes = max(tc.want.TotalRows, 100), max(tc.want.TotalBytes, 1000)
			r := archiveRun{begin: begin}
			if got := r.event(tc.now); got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// movingRows marks one row between two looks.
type movingRows struct {
	source.OperatorRows
	active, marked int64
	moveBefore     int // the look before which the row moves, from 1
	looks          int
}

func (m *movingRows) look() {
	if m.looks++; m.looks == m.moveBefore {
		m.active, m.marked = m.active-1, m.marked+1
	}
}

func (m *movingRows) Pending(context.Context) (marked, failed source.Tally, err error) {
	m.look()
	return source.Tally{Rows: m.marked, Bytes: m.marked}, failed, nil
}

func (m *movingRows) EligibleTally(context.Context, time.Time) (eligible, young source.Tally, err error) {
	m.look()
	return source.Tally{Rows: m.active, Bytes: m.active}, young, nil
}

// TestRowsThatAreMarkedWhileTheyAreCounted: whenever a row moves, the run goes
// on while there is a pending row and never tells more than there were.
func TestRowsThatAreMarkedWhileTheyAreCounted(t *testing.T) {
	for moveBefore := range 5 {
		var c rowCount
		if err := c.addPending(t.Context(), &movingRows{active: 3, marked: 4, moveBefore: moveBefore}, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if c.pending.Rows < 7 || c.sure.Rows > 7 || c.sure.Rows < 6 || c.sure.Bytes != c.sure.Rows {
			t.Errorf("moved before look %d: %+v, want 7 pending at least and 7 surely at most", moveBefore, c)
		}
	}
}
