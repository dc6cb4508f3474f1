package migrations_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/migrations"
)

func TestMappingValidate(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, c := range []struct {
		name string
		m    migrations.Mapping
		want string // in the error; "": none
	}{
		{"the zero mapping with a source", migrations.Mapping{Source: "files"}, ""},
		{"a table without a schema", migrations.Mapping{Source: "a", Table: "docs"}, ""},
		{"a quoted name", migrations.Mapping{Source: "a", Table: `"my.docs"."a""b"`}, ""},
		{"no source", migrations.Mapping{}, "source's name"},
		{"a source in capitals", migrations.Mapping{Source: "Docs"}, "source's name"},
		{"three parts", migrations.Mapping{Source: "a", Table: "db.public.docs"}, "schema.table"},
		{"an open quote", migrations.Mapping{Source: "a", Table: `public."docs`}, "not closed"},
		{"something behind a quote", migrations.Mapping{Source: "a", Table: `"public"docs`}, "no dot"},
		{"an empty part", migrations.Mapping{Source: "a", Table: "public."}, "empty"},
		{"a name too long", migrations.Mapping{Source: "a", Table: long}, "longer"},
		{"an unknown word", migrations.Mapping{Source: "a", Table: "d", Columns: map[string]string{"title": "x"}}, `"title"`},
		{"an empty column", migrations.Mapping{Source: "a", Table: "d", Columns: map[string]string{"name": ""}}, "empty"},
		{"a NUL", migrations.Mapping{Source: "a", Table: "d", Columns: map[string]string{"name": "a\x00"}}, "NUL"},
		{"one column for two words that are written", migrations.Mapping{Source: "a", Table: "d", Columns: map[string]string{"des_name": "name"}}, "both column"},
		{"name and path are one column", migrations.Mapping{Source: "a", Table: "d", Columns: map[string]string{"path": "name"}}, ""},
		{"an unknown state", migrations.Mapping{Source: "a", Table: "d", States: map[string]string{"DELETED": "D"}}, `"DELETED"`},
		{"one word for two states", migrations.Mapping{Source: "a", Table: "d", States: map[string]string{"ACTIVE": "X", "FAILED": "X"}}, "both"},
		{"a state that is another's default", migrations.Mapping{Source: "a", Table: "d", States: map[string]string{"ACTIVE": "MARKED"}}, "both"},
		{"an empty state", migrations.Mapping{Source: "a", Table: "d", States: map[string]string{"ACTIVE": ""}}, "no word"},
		{"a metadata key too long", migrations.Mapping{Source: "a", Table: "d", Metadata: map[string]string{long: "x"}}, "key"},
		{"a filter", migrations.Mapping{Source: "a", Table: "d", Filter: "t.a = ')' AND (t.b = 'it''s;' OR \"t\".\"(\" > 1) -- )"}, ""},
		{"a filter of two statements", migrations.Mapping{Source: "a", Table: "d", Filter: "true; DROP TABLE d"}, "semicolon"},
		{"a filter that closes", migrations.Mapping{Source: "a", Table: "d", Filter: "true) OR (true"}, "did not open"},
		{"a filter that does not close", migrations.Mapping{Source: "a", Table: "d", Filter: "(true"}, "does not close"},
		{"a filter with an open literal", migrations.Mapping{Source: "a", Table: "d", Filter: "t.a = 'x"}, "does not close '"},
		{"a filter with a dollar quote", migrations.Mapping{Source: "a", Table: "d", Filter: "t.a = $$x$$"}, "$"},
		{"a filter with an escaped quote", migrations.Mapping{Source: "a", Table: "d", Filter: `t.a = E'\') OR (''='`}, `\'`},
		{"the side of nothing", migrations.Mapping{Source: "a", Side: true}, "name it"},
		{"a side in the place of a table", migrations.Mapping{Source: "entry", Table: "d", Side: true}, "take the place"},
		{"a side with states", migrations.Mapping{Source: "a", Table: "d", Side: true, States: map[string]string{"ACTIVE": "A"}}, "side binding"},
		{"a side with a state column", migrations.Mapping{Source: "a", Table: "d", Side: true, Columns: map[string]string{"status": "s"}}, "desnode.entry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.m.Validate()
			if _, errResolve := c.m.Resolve(); (errResolve == nil) != (err == nil) {
				t.Errorf("Resolve says %v, Validate %v", errResolve, err)
			}
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, migrations.ErrMapping) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want ErrMapping about %q", err, c.want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	r, err := migrations.Mapping{
		Source: "docs", Table: `Docs."we""ird"`, Columns: map[string]string{"id": "Id", "content_type": "kind"},
		States: map[string]string{"ACTIVE": "A"}, Metadata: map[string]string{"k": "K"}, Filter: "t.x = 1 -- note",
	}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, got, want string }{
		{"relation", r.Relation, `"Docs"."we""ird"`},
		{"a mapped column", r.Columns["id"], `"Id"`},
		{"one that stands for itself", r.Columns["des_hash"], `"des_hash"`},
		{"an optional one", r.Columns["content_type"], `"kind"`},
		{"an optional one that is not there", r.Columns["checksum"], ""},
		{"metadata", r.Metadata["k"], `"K"`},
		{"a mapped state", r.States["ACTIVE"], "A"},
		{"one that stands for itself", r.States["FAILED"], "FAILED"},
		{"back", r.State("A"), "ACTIVE"},
		{"back from nothing", r.State("ACTIVE"), ""},
		{"filter", r.Filter, "(t.x = 1 -- note\n)"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
	ref, err := migrations.Mapping{Source: "files"}.Resolve()
	if err != nil || ref.Relation != `"desnode"."files"` || ref.Columns["custom"] != `"custom"` {
		t.Errorf("%+v, %v", ref, err)
	}
	side, err := migrations.Mapping{
		Source: "docs", Table: "x", Side: true, Columns: map[string]string{"id": "Id", "checksum": "sum"},
		Metadata: map[string]string{"k": "K"}, Filter: "t.y",
	}.Resolve()
	if err != nil || side.Relation != `"desnode"."docs"` || side.Columns["id"] != `"id"` || side.Columns["checksum"] != `"checksum"` ||
		side.Columns["content_type"] != "" || side.Metadata["k"] != `"meta.k"` || side.Filter != "" || !side.Side {
		t.Errorf("%+v, %v", side, err)
	}
}

// Whatever a name or a word holds, the server reads back the same.
func TestQuotingReadsBack(t *testing.T) {
	db := database(t)
	conn := connect(t, db)
	text := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune("'\"\\$;-:%/*\n\r E")), rapid.Rune()), 1, 12, 60)
	for _, setting := range []string{"on", "off"} {
		exec1(t, conn, "SET standard_conforming_strings = "+setting+"; SET escape_string_warning = off")
		rapid.Check(t, func(rt *rapid.T) {
			s := strings.ReplaceAll(text.Draw(rt, "text"), "\x00", "")
			if s == "" || strings.ContainsRune(s, '\uFFFD') {
				return
			}
			r, err := migrations.Mapping{Source: "a", Table: "d", Columns: map[string]string{"id": s}}.Resolve()
			if err != nil {
				rt.Fatal(err)
			}
			result, err := conn.PgConn().Exec(t.Context(), "SELECT "+migrations.Literal(s)+" AS "+r.Columns["id"]).ReadAll()
			if err != nil {
				rt.Fatalf("%q: %v", s, err)
			}
			if got := string(result[0].Rows[0][0]); got != s {
				rt.Errorf("the word %q comes back as %q", s, got)
			}
			if got := result[0].FieldDescriptions[0].Name; got != s {
				rt.Errorf("the name %q comes back as %q", s, got)
			}
		})
	}
}
