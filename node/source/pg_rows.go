package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
)

// The columns of a Row as pgQueries.row selects them.
const (
	cellID = iota
	cellName
	cellPath
	cellSize
	cellModified
	cellState
	cellVersion
	cellPack
	cellDesName
	cellChecksum
	cellContentType
	cellCreated
	cellCustom
	cellMarkedAt
	cellPackedAt
	cellLastAttempt
	cellAttempts
	cellError
	cellClaim
	cellFileID
	cellCount
)

// scanRow makes a Row of the pgCells. What no file can have is the row's Problem,
// and no other row's.
func (p *Postgres) scanRow(q *pgQueries, c pgCells) (Row, error) {
	r := Row{
		Source: p.cfg.Mapping.Source,
		ID:     c.text(cellID), Name: c.text(cellName), Path: c.text(cellPath), ModTime: c.time(cellModified),
		DesName: c.text(cellDesName), ContentType: c.text(cellContentType), Created: c.time(cellCreated),
		MarkedAt: c.time(cellMarkedAt), PackedAt: c.time(cellPackedAt), LastAttempt: c.time(cellLastAttempt),
		Claim: c.text(cellClaim), FileID: c.text(cellFileID),
	}
	r.ErrorCode, r.ErrorText, _ = strings.Cut(c.text(cellError), ": ")
	if c[cellCustom] != nil {
		r.Custom = slices.Clone(c[cellCustom])
	}
	var known bool
	if r.State, known = q.words[c.text(cellState)]; !known {
		r.problem("its status is %q, which is no mapped state", c.text(cellState))
	}
	var err error
	if r.Size, err = c.integer(cellSize); err != nil {
		r.Size = -1
	}
	if r.Size < 0 {
		r.problem("it has no size, or a negative one")
	}
	for i, column := range map[int]string{cellName: "name", cellPath: "path"} {
		if c[i] == nil {
			r.problem("it has no %s (NULL)", column)
		}
	}
	if r.ModTime.IsZero() {
		r.problem("it has no modified_at between the years %d and %d", firstTime.Year(), lastTime.Year())
	}
	version, err := c.integer(cellVersion)
	if err != nil || version < 0 || version > math.MaxUint32 {
		r.problem("its archive_version is %s", c.text(cellVersion))
	}
	r.Version = uint32(version)
	if r.Attempts, err = strconv.Atoi(c.text(cellAttempts)); err != nil && c[cellAttempts] != nil {
		r.problem("its archive_attempts are %s", c.text(cellAttempts))
	}
	r.scanHashes(c)
	return r, nil
}

func (r *Row) scanHashes(c pgCells) {
	pack, err := c.bytes(cellPack)
	if err != nil || len(pack) != len(desformat.PackID{}) && len(pack) != 0 {
		r.problem("its des_pack is no pack id")
	}
	copy(r.Pack[:], pack)
	// Hex of a bytea begins with \x; a checksum in text does not.
	digits := strings.TrimPrefix(c.text(cellChecksum), `\x`)
	if digits == "" {
		return
	}
	sum, err := hex.DecodeString(strings.TrimSpace(digits))
	if err != nil || len(sum) != sha256.Size {
		// Left alone, the file would be packed unchecked.
		r.problem("its checksum is no SHA-256")
		return
	}
	r.SHA256 = (*[sha256.Size]byte)(sum)
}

// problem notes the first thing that is wrong with the row.
func (r *Row) problem(format string, args ...any) {
	if r.Problem == "" {
		r.Problem = fmt.Sprintf(format, args...)
	}
}

// rows lists the rows that build selects by pgQueries.row.
func (p *Postgres) rows(ctx context.Context, c call, build func(*pgQueries) request) ([]Row, error) {
	return collect(ctx, p, c, build, p.scanRow)
}

// place checks the id at which a listing goes on.
func (q *pgQueries) place(after string) error {
	if after != "" && !q.id.holds(after) {
		return fmt.Errorf("%q is no id of this source", after)
	}
	return nil
}

// lastSeen is what every UPDATE matches of a row, beside its state.
type lastSeen struct {
	index   int // in the caller's batch
	id      string
	name    string // the row's own; its des_name when a pack's catalog speaks
	version uint32
	size    int64
	low     *string // modified_at, see timeType.bounds
	high    *string
}

func (q *pgQueries) seen(index int, r *Row) lastSeen {
	low, high := q.modified.bounds(r.ModTime)
	return lastSeen{index, r.ID, r.Name, r.Version, r.Size, low, high}
}

// possible reports whether such a row can be in the table at all.
func (q *pgQueries) possible(s lastSeen) bool { return q.id.holds(s.id) && storable(s.name) }

// inOrder sorts a batch by id: rows that several hold are taken in one order.
func (q *pgQueries) inOrder(batch []lastSeen) {
	slices.SortFunc(batch, func(a, b lastSeen) int {
		if q.id.bits > 0 && len(a.id) != len(b.id) && a.id[0] != '-' && b.id[0] != '-' {
			return len(a.id) - len(b.id)
		}
		return strings.Compare(a.id, b.id)
	})
}

// change is an UPDATE of rows as last seen.
type change struct {
	state State    // "": any
	name  string   // the word of the column that lastSeen.name stands for; "": name
	where []string // further conditions over t
	set   []string // over t and s, what the batch says of the row
	more  []string // further parameters, arrays as long as the batch, named s.m1, s.m2 …
	// fits makes the conditions over t and the batch under the alias s that stand
	// in the place of those of name, version, size and time; nil: those.
	fits func(q *pgQueries, s string) []string
	// skipLocked leaves out rows that others hold, instead of waiting for them.
	skipLocked bool
}

// batchSQL makes a table of a batch, and the condition that t is among it. The
// condition stands beside the join so that it finds its way into the arms of a
// view.
func (q *pgQueries) batchSQL(v *params, batch []lastSeen, more []string) (table, among string) {
	n := len(batch)
	ids, names := make([]string, n), make([]string, n)
	versions, sizes := make([]int64, n), make([]int64, n)
	low, high := make([]*string, n), make([]*string, n)
	for i, s := range batch {
		ids[i], names[i], versions[i], sizes[i], low[i], high[i] = s.id, s.name, int64(s.version), s.size, s.low, s.high
	}
	arrays := append([]string{
		v.texts(ids), v.texts(names), v.add(versions, "bigint[]"), v.add(sizes, "bigint[]"), v.add(low, "text[]"), v.add(high, "text[]"),
	}, more...)
	aliases, further := "id, name, version, size, low, high", ""
	for i := range more {
		aliases += fmt.Sprintf(", m%d", i+1)
		further += fmt.Sprintf(", u.m%d", i+1)
	}
	table = fmt.Sprintf("SELECT u.id::%[1]s AS seen_id, u.name AS seen_name, u.version AS seen_version, u.size AS seen_size,"+
		" u.low::%[2]s AS seen_low, u.high::%[2]s AS seen_high, u.place AS seen_place%[3]s"+
		" FROM unnest(%[4]s) WITH ORDINALITY AS u(%[5]s, place)",
		q.id.cast, q.modified.cast, further, strings.Join(arrays, ", "), aliases)
	return table, fmt.Sprintf("%s = ANY (%s::%s[])", q.col(migrations.ColID), arrays[0], q.id.cast)
}

// update builds the UPDATE, which returns the place in the batch, from 1 on, of
// each row that it changed. Rows are locked in the order of their ids first,
// where the relation allows it, and only those that match: neither does it wait
// for others, nor others for it.
func (q *pgQueries) update(v *params, batch []lastSeen, c change) request {
	table, among := q.batchSQL(v, batch, c.more)
	id, set := q.col(migrations.ColID), " SET "+strings.Join(c.set, ", ")
	if !q.lockable {
		return request{"WITH s AS (" + table + ") UPDATE " + q.relation + set +
			" FROM s WHERE " + q.match(c, "s") + " AND " + among + q.filter + " RETURNING s.seen_place", *v}
	}
	skip := ""
	if c.skipLocked {
		skip = " SKIP LOCKED"
	}
	return request{"WITH k AS (" + table + "), s AS MATERIALIZED (SELECT k.* FROM k, " + q.relation + " WHERE " + q.match(c, "k") +
		" AND " + among + q.filter + " ORDER BY " + id + " FOR NO KEY UPDATE OF t" + skip + ") UPDATE " + q.relation + set +
		" FROM s WHERE " + id + " = s.seen_id AND " + among + " RETURNING s.seen_place", *v}
}

// match is the condition that t is as the batch, under the alias s, saw it.
func (q *pgQueries) match(c change, s string) string {
	name := c.name
	if name == "" {
		name = migrations.ColName
	}
	list := []string{q.col(migrations.ColID) + " = " + s + ".seen_id"}
	if c.fits != nil {
		list = append(list, c.fits(q, s)...)
	} else {
		list = append(list, "coalesce("+q.col(name)+"::text, '') = "+s+".seen_name", q.version+" = "+s+".seen_version")
		list = append(list, q.sameFile(s)...)
	}
	list = append(list, c.where...)
	if c.state != "" {
		list = append(list, q.is(c.state))
	}
	return strings.Join(list, " AND ")
}

// sameFile are the conditions that t lists a file of the size and time that the
// batch, under the alias s, saw.
func (q *pgQueries) sameFile(s string) []string {
	modified := q.col(migrations.ColModifiedAt)
	return []string{
		q.size + " = " + s + ".seen_size",
		"CASE WHEN " + s + ".seen_low IS NULL THEN " + q.modified.unreadable(modified) +
			" ELSE " + modified + " BETWEEN " + s + ".seen_low AND " + s + ".seen_high END",
	}
}

// failed makes archive_error of a code and a text, such as Postgres can hold.
func failed(code, text string) string {
	const most = 2000
	s := strings.ReplaceAll(strings.ToValidUTF8(failure(code, text), "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
