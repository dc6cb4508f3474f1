package source

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/datavision/desnode/migrations"
)

// pgType is a column's type as the catalog has it, that of a domain being the
// one below it.
type pgType struct {
	name string // pg_type.typname
	mod  int    // pg_attribute.atttypmod; -1: none
}

// columnTypes reads the types of the relation's columns, and whether its rows
// can be locked. What stands in the catalog everybody may read.
func columnTypes(ctx context.Context, s *session, r migrations.Resolved) (types map[string]pgType, lockable bool, err error) {
	types = map[string]pgType{}
	err = s.send(ctx, func(c pgCells) error {
		mod, err := c.integer(2)
		types[c.text(0)] = pgType{c.text(1), int(mod)}
		lockable = c.text(3) == "t"
		return err
	}, s.settings(ctx), request{`SELECT a.attname, coalesce(base.typname, own.typname), CASE WHEN base.oid IS NULL THEN a.atttypmod ELSE own.typtypmod END,
 c.relkind IN ('r', 'p') OR c.relkind = 'v' AND pg_relation_is_updatable(c.oid, false) & 4 <> 0
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 JOIN pg_catalog.pg_type own ON own.oid = a.atttypid
 LEFT JOIN pg_catalog.pg_type base ON own.typtype = 'd' AND base.oid = own.typbasetype
WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`, []any{r.SchemaName, r.TableName}})
	if err == nil && len(types) == 0 {
		err = fmt.Errorf("there is no %s: %w", r.Relation, ErrRelation)
	}
	return types, lockable && !r.Side, err
}

// idType is how a type of ids is written.
type idType struct {
	cast string // SQL's name of the type
	bits int    // of an integer; 0: it is none
	form *regexp.Regexp
}

var (
	decimal = regexp.MustCompile(`^(-?[0-9]{1,64}(\.[0-9]{1,64})?|NaN|-?Infinity)$`)
	uuid    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func newIDType(t pgType) (idType, error) {
	switch t.name {
	case "int2":
		return idType{cast: "smallint", bits: 16}, nil
	case "int4":
		return idType{cast: "integer", bits: 32}, nil
	case "int8":
		return idType{cast: "bigint", bits: 64}, nil
	case "numeric":
		return idType{cast: "numeric", form: decimal}, nil
	case "uuid":
		return idType{cast: "uuid", form: uuid}, nil
	case "text", "varchar":
		return idType{cast: "text"}, nil
	case "bpchar":
		return idType{cast: "bpchar"}, nil
	}
	return idType{}, fmt.Errorf("ids of type %s: %w", t.name, ErrRelation)
}

// text reports whether ids are texts.
func (t idType) text() bool { return t.bits == 0 && t.form == nil }

// holds reports whether a row can have the id, of integers and uuids in the one
// spelling in which the database prints them.
func (t idType) holds(id string) bool {
	switch {
	case t.bits > 0:
		n, err := strconv.ParseInt(id, 10, t.bits)
		return err == nil && strconv.FormatInt(n, 10) == id
	case t.form != nil:
		return t.form.MatchString(id)
	}
	return id != "" && storable(id)
}

// storable reports whether Postgres can hold the text.
func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// timeType is how a type of times is read and written.
type timeType struct {
	cast    string        // SQL's name of the type
	unit    time.Duration // of its precision
	seconds bool          // a number of seconds since 1970
	zoneful bool          // timestamptz
}

// newTimeType knows the times of a source system. Numbers are seconds since
// 1970; those of other units are shown by a view.
func newTimeType(t pgType) (timeType, error) {
	unit := func(digits int) time.Duration {
		if digits < 0 || digits > 6 {
			digits = 6 // Postgres' times have microseconds, whatever numbers have
		}
		return time.Second / time.Duration(math.Pow10(digits))
	}
	switch t.name {
	case "timestamptz":
		return timeType{cast: "timestamptz", unit: unit(t.mod), zoneful: true}, nil
	case "timestamp":
		return timeType{cast: "timestamp", unit: unit(t.mod)}, nil
	case "date":
		return timeType{cast: "date", unit: 24 * time.Hour}, nil
	case "int2", "int4", "int8":
		return timeType{cast: "bigint", unit: time.Second, seconds: true}, nil
	case "numeric":
		digits := -1
		if t.mod >= 4 {
			digits = (t.mod - 4) & 0xffff
		}
		return timeType{cast: "numeric", unit: unit(digits), seconds: true}, nil
	}
	return timeType{}, fmt.Errorf("times of type %s: %w", t.name, ErrRelation)
}

// The times that desnode keeps (nanoseconds in 64 bits) and Postgres prints in
// four digits of a year.
var (
	firstTime = time.Date(1678, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// instant makes a timestamptz of an expression of the type; NULL where a number
// means no time that desnode keeps.
func (t timeType) instant(sql string) string {
	switch {
	case t.seconds:
		return fmt.Sprintf("CASE WHEN %[1]s BETWEEN %[2]d AND %[3]d THEN to_timestamp((%[1]s)::double precision) END",
			sql, firstTime.Unix(), lastTime.Unix())
	case t.zoneful:
		return sql
	}
	return "(" + sql + ")::timestamp AT TIME ZONE 'UTC'"
}

// bounds are the first and the last value of the column that differ from at by
// less than its unit, and nil for no time, which stands for whatever desnode
// can't read.
func (t timeType) bounds(at time.Time) (from, to *string) {
	if at.IsZero() {
		return nil, nil
	}
	low := floorTime(at, t.unit)
	high := low
	if low.Before(at) {
		high = low.Add(t.unit)
	}
	a, b := t.literal(low), t.literal(high)
	return &a, &b
}

// unreadable is the condition that the column holds no time that desnode keeps.
func (t timeType) unreadable(sql string) string {
	return fmt.Sprintf("coalesce(NOT (%[1]s BETWEEN '%[2]s'::%[4]s AND '%[3]s'::%[4]s), true)", sql,
		t.literal(firstTime), t.literal(lastTime), t.cast)
}

// literal writes a time as the column's type reads it.
func (t timeType) literal(at time.Time) string {
	at = at.UTC()
	switch {
	case t.seconds && t.unit == time.Second:
		return strconv.FormatInt(at.Unix(), 10)
	case t.seconds:
		micros := at.UnixMicro()
		sign := ""
		if micros < 0 {
			sign, micros = "-", -micros
		}
		return fmt.Sprintf("%s%d.%06d", sign, micros/1e6, micros%1e6)
	case t.cast == "date":
		return at.Format("2006-01-02")
	}
	return stamp(at)
}

// floorTime is the last multiple of unit, since 1970, that is not after at.
func floorTime(at time.Time, unit time.Duration) time.Time {
	at = at.UTC()
	if unit >= time.Second {
		n, s := int64(unit/time.Second), at.Unix()
		return time.Unix(s-((s%n)+n)%n, 0).UTC()
	}
	return at.Add(-time.Duration(at.Nanosecond()) % unit)
}

const stampForm = "2006-01-02 15:04:05.999999999Z07"

// stamp writes a time for Postgres; those it can't hold become the first and
// the last that four digits of a year can say.
func stamp(at time.Time) string {
	at = at.UTC().Truncate(time.Microsecond) // Postgres would round
	switch y := at.Year(); {
	case y < 1:
		at = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	case y > 9999:
		at = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return at.Format("2006-01-02 15:04:05.999999999") + "+00"
}

// pgCells is one result row in Postgres' text format; nil is NULL.
type pgCells [][]byte

func (c pgCells) text(i int) string { return string(c[i]) }

func (c pgCells) integer(i int) (int64, error) {
	n, err := c.optionalInt(i)
	if err != nil || n == nil {
		return 0, err
	}
	return *n, nil
}

func (c pgCells) optionalInt(i int) (*int64, error) {
	if c[i] == nil {
		return nil, nil
	}
	n, err := strconv.ParseInt(string(c[i]), 10, 64)
	return &n, err
}

// bytes decodes a bytea.
func (c pgCells) bytes(i int) ([]byte, error) {
	if c[i] == nil {
		return nil, nil
	}
	digits, ok := strings.CutPrefix(string(c[i]), `\x`)
	if !ok {
		return nil, fmt.Errorf("%q is no bytea in hex", c[i])
	}
	return hex.DecodeString(digits)
}

// time reads a timestamptz; the zero time for NULL and for what desnode can't
// keep.
func (c pgCells) time(i int) time.Time {
	at, err := time.Parse(stampForm, string(c[i]))
	if err != nil || at.Before(firstTime) || at.After(lastTime) {
		return time.Time{}
	}
	return at.UTC()
}
