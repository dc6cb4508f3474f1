package sourcetest

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

var all = source.Due{}

func backlog(t *testing.T, tb *table) {
	if got, err := tb.Backlog(t.Context(), 4, all); err != nil || len(got) != 0 {
		t.Errorf("backlog of nothing: %v, %v", got, err)
	}
	list := numbered(40)
	rows := tb.marked(t, list...)
	tb.Edit(t, rows[0].ID, "size", int64(1_000_000))
	tb.Edit(t, rows[1].ID, "marked_at", markedAt.Add(-time.Hour))
	tb.packed(t, packOne, "packed") // not of the backlog
	tb.add(t, "active")             // nor this

	for _, bits := range []uint8{0, 1, 4, 10, desformat.MaxRangeBits} {
		for _, limit := range []int64{0, 1, 50_000} {
			want := map[desformat.Range]source.Bucket{}
			for i, name := range list {
				r, err := desformat.NewRange(desformat.HashName(name).Shard(bits), bits)
				if err != nil {
					t.Fatal(err)
				}
				size, at := int64(100), markedAt
				if i == 0 {
					size = 1_000_000
				}
				if i == 1 {
					at = markedAt.Add(-time.Hour)
				}
				if limit > 0 {
					size = min(size, limit)
				}
				b, known := want[r]
				if !known || at.Before(b.Oldest) {
					b.Oldest = at
				}
				b.Range, b.Rows, b.Bytes = r, b.Rows+1, b.Bytes+size
				want[r] = b
			}
			got, err := tb.Backlog(t.Context(), bits, source.Due{RowCap: limit})
			if err != nil || len(got) != len(want) {
				t.Fatalf("%d bits: %d buckets, %v; want %d", bits, len(got), err, len(want))
			}
			if !slices.IsSortedFunc(got, func(a, b source.Bucket) int { return cmp.Compare(a.Range.First(), b.Range.First()) }) {
				t.Errorf("%d bits: buckets are not rising", bits)
			}
			for _, b := range got {
				if b != want[b.Range] {
					t.Errorf("%d bits, cap %d: %+v, want %+v", bits, limit, b, want[b.Range])
				}
			}
		}
	}
	if _, err := tb.Backlog(t.Context(), desformat.MaxRangeBits+1, all); err == nil {
		t.Error("ranges of 33 bits were counted")
	}
}

func backlogDue(t *testing.T, tb *table) {
	const backoff = time.Minute
	for attempts, wait := range map[int]time.Duration{
		0:  0,
		1:  backoff,
		2:  2 * backoff,
		5:  16 * backoff,
		11: 1024 * backoff,
		40: 1024 * backoff,
	} {
		name := "attempts" + string(rune('A'+attempts))
		r := tb.marked(t, name)[0]
		tb.Edit(t, r.ID, "archive_attempts", int64(attempts))
		if attempts > 0 {
			tb.Edit(t, r.ID, "last_archive_attempt_at", markedAt)
		}
		for _, c := range []struct {
			now  time.Time
			back time.Duration
			want bool
		}{
			{markedAt.Add(wait), backoff, true},
			{markedAt.Add(wait - time.Second), backoff, attempts == 0},
			{markedAt.Add(-time.Hour), backoff, attempts == 0},
			{markedAt.Add(-time.Hour), 0, true},
		} {
			due := source.Due{Now: c.now, Backoff: c.back}
			buckets, err := tb.Backlog(t.Context(), 0, due)
			rows, errRows := tb.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, due, 10)
			if err != nil || errRows != nil || (len(buckets) == 1) != c.want || (len(rows) == 1) != c.want {
				t.Errorf("%d attempts, %v after the last, backoff %v: backlog %v, %v, marked %d rows, %v; want %v",
					attempts, c.now.Sub(markedAt), c.back, buckets, err, len(rows), errRows, c.want)
			}
		}
		tb.pack(t, packOne, []source.Row{tb.byID(t, r.ID)})
	}
}

// byHash sorts names as Marked lists their rows, ids being in the order of
// names.
func byHash(list []string) []string {
	return slices.SortedStableFunc(slices.Values(list), func(a, b string) int { return cmp.Compare(hashOf(a), hashOf(b)) })
}

func marked(t *testing.T, tb *table) {
	list := numbered(40)
	tb.marked(t, list...)
	sorted := byHash(list)
	for value := range uint32(4) {
		r, err := desformat.NewRange(value, 2)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, name := range sorted {
			if r.Contains(desformat.HashName(name)) {
				want = append(want, name)
			}
		}
		rows, err := tb.Marked(t.Context(), r, source.After{Hash: -1}, all, 100)
		if err != nil || !slices.Equal(names(rows), want) {
			t.Errorf("marked of %s: %q, %v; want %q", r, names(rows), err, want)
		}
		for _, row := range rows {
			tb.want(t, "a row as listed", row)
		}
	}
	// A range of one hash, at its very borders.
	one, err := desformat.NewRange(desformat.HashName(list[0]).Top32(), desformat.MaxRangeBits)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := tb.Marked(t.Context(), one, source.After{Hash: -1}, all, 100)
	wantNames(t, "marked of one hash", rows, err, list[0])
}

func markedPages(t *testing.T, tb *table) {
	list := numbered(30)
	rows := tb.marked(t, list...)
	for _, r := range rows[:12] { // many rows of one hash
		tb.Edit(t, r.ID, "des_hash", int64(1<<31))
	}
	var seen []string
	after := source.After{Hash: -1}
	for {
		page, err := tb.Marked(t.Context(), desformat.Range{}, after, all, 5)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		seen = append(seen, names(page)...)
		last := page[len(page)-1]
		after = source.After{Hash: hashOf(last.Name), ID: last.ID}
		if slices.Contains(list[:12], last.Name) {
			after.Hash = 1 << 31
		}
		if len(seen) > len(list) {
			t.Fatal("pages repeat rows")
		}
	}
	slices.Sort(seen)
	if !slices.Equal(seen, list) {
		t.Errorf("pages hold %q, want each row once", seen)
	}
}

func attempt(t *testing.T, tb *table) {
	row := tb.marked(t, "a")[0]
	for n := 1; n <= 3; n++ {
		at := markedAt.Add(time.Duration(n) * time.Minute)
		want := row
		want.Attempts, want.LastAttempt, want.ErrorCode, want.ErrorText = n, at, source.CodeReadError, "broken"
		if n == 3 {
			want.State = source.Failed
		}
		for range 2 { // counted once, with the row as last seen
			failed, err := tb.Attempt(t.Context(), row, source.CodeReadError, "broken", 3, at)
			if err != nil || failed != (n == 3) {
				t.Errorf("attempt %d of 3: failed %v, %v", n, failed, err)
			}
			tb.want(t, "the row", want)
		}
		row = want
	}
}

func acknowledge(t *testing.T, tb *table) {
	rows := tb.marked(t, "a", "b", "c")
	if _, err := tb.Attempt(t.Context(), rows[2], source.CodeReadError, "broken", 5, markedAt); err != nil {
		t.Fatal(err)
	}
	list := acks(packOne, rows)
	slices.Reverse(list) // results come in the order given
	list = append(list, source.Ack{ID: "999999", Name: "x", Version: 1, Pack: packOne}, source.Ack{ID: "no id", Name: "x", Version: 1, Pack: packOne})
	wrong := list[0]
	wrong.Name = "b"
	list = append(list, wrong)
	want := []source.AckResult{source.AckDone, source.AckDone, source.AckDone, source.AckNoRow, source.AckNoRow, source.AckNoRow}
	for range 2 {
		if got := tb.acknowledge(t, list...); !slices.Equal(got, want) {
			t.Errorf("acknowledge: %v, want %v", got, want)
		}
		for _, r := range rows {
			r.State, r.Pack, r.PackedAt = source.Packed, packOne, packedAt
			if r.Name == "c" {
				r.LastAttempt = markedAt // the time stays; the count and the error are cleared
			}
			tb.want(t, "the packed row", r)
		}
	}
}

// acknowledgeAgain: a row of this pack is live whatever has become of it.
func acknowledgeAgain(t *testing.T, tb *table) {
	for _, c := range []struct {
		name  string
		then  func(t *testing.T, r source.Row)
		want  source.AckResult
		other source.AckResult // what another pack's record of it is
	}{
		{"packed", func(*testing.T, source.Row) {}, source.AckDone, source.AckOtherPack},
		{"deleted", func(t *testing.T, r source.Row) { tb.deleted(t, r) }, source.AckDone, source.AckOtherPack},
		{"active again", func(t *testing.T, r source.Row) { tb.reactivate(t, r) }, source.AckDone, source.AckOtherPack},
		{"marked again", func(t *testing.T, r source.Row) {
			tb.mark(t, []source.Row{tb.reactivate(t, r)})
		}, source.AckDone, source.AckOtherPack},
		{"packed again elsewhere", func(t *testing.T, r source.Row) {
			tb.pack(t, packTwo, tb.mark(t, []source.Row{tb.reactivate(t, r)}))
		}, source.AckOtherPack, source.AckDone},
	} {
		r := tb.packed(t, packOne, c.name)[0]
		c.then(t, r)
		now := tb.byID(t, r.ID)
		if got := tb.acknowledge(t, acks(packOne, []source.Row{r})...); got[0] != c.want {
			t.Errorf("%s: this pack's record: %v, want %v", c.name, got[0], c.want)
		}
		if got := tb.acknowledge(t, acks(packTwo, []source.Row{r})...); got[0] != c.other {
			t.Errorf("%s: another pack's record: %v, want %v", c.name, got[0], c.other)
		}
		tb.want(t, c.name, now)
	}
}

// acknowledgeNever: what a row without a pack says about a record that it is not
// MARKED for. Only a row that has come as far as the record's version proves
// that the record was never acknowledged.
func acknowledgeNever(t *testing.T, tb *table) {
	for _, c := range []struct {
		name string
		then func(t *testing.T, r source.Row, ack *source.Ack)
		want source.AckResult
	}{
		{"changed", func(t *testing.T, r source.Row, _ *source.Ack) { tb.reactivate(t, r) }, source.AckGone},
		{"changed and marked again", func(t *testing.T, r source.Row, _ *source.Ack) {
			tb.mark(t, []source.Row{tb.reactivate(t, r)})
		}, source.AckGone},
		{"failed", func(t *testing.T, r source.Row, _ *source.Ack) {
			if _, err := tb.Attempt(t.Context(), r, source.CodeReadError, "x", 1, markedAt); err != nil {
				t.Fatal(err)
			}
		}, source.AckGone},
		{"back in an older state", func(_ *testing.T, _ source.Row, ack *source.Ack) { ack.Version++ }, source.AckOlder},
		{"nothing left of it", func(t *testing.T, r source.Row, _ *source.Ack) {
			tb.Edit(t, r.ID, "status", string(source.Active))
			tb.Edit(t, r.ID, "archive_version", int64(0))
			tb.Edit(t, r.ID, "des_name", nil)
		}, source.AckOlder},
		{"the id is another file's", func(_ *testing.T, _ source.Row, ack *source.Ack) { ack.Name = "former" }, source.AckNoRow},
	} {
		r := tb.marked(t, c.name)[0]
		ack := acks(packOne, []source.Row{r})[0]
		c.then(t, r, &ack)
		now := tb.byID(t, r.ID)
		if got := tb.acknowledge(t, ack)[0]; got != c.want || !got.Dead() {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		tb.want(t, c.name, now)
	}
}

func acknowledgeRefused(t *testing.T, tb *table) {
	rows := tb.marked(t, "a", "b", "c")
	tb.Harness.Refuse(t, rows[1].ID)
	got := tb.acknowledge(t, acks(packOne, rows)...)
	if want := []source.AckResult{source.AckDone, source.AckRefused, source.AckDone}; !slices.Equal(got, want) {
		t.Errorf("acknowledge: %v, want %v", got, want)
	}
	for i, want := range []source.State{source.Packed, source.Marked, source.Packed} {
		if r := tb.byID(t, rows[i].ID); r.State != want {
			t.Errorf("row %s is %s, want %s", r.Name, r.State, want)
		}
	}
}

// reactivate plays the source system that has changed a file.
func (tb *table) reactivate(t *testing.T, r source.Row) source.Row {
	t.Helper()
	tb.Edit(t, r.ID, "status", string(source.Active))
	tb.Edit(t, r.ID, "size", r.Size+1)
	return tb.byID(t, r.ID)
}

func (tb *table) deleted(t *testing.T, r source.Row) source.Row {
	t.Helper()
	if ok, err := tb.Claim(t.Context(), r, claim); err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	if ok, err := tb.Deleted(t.Context(), tb.byID(t, r.ID), claim, packedAt); err != nil || !ok {
		t.Fatalf("deleted: %v, %v", ok, err)
	}
	return tb.byID(t, r.ID)
}
