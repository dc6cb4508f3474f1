package migrations_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/datavision/desnode/migrations"
)

// hostile is a name that ends whatever it is pasted into.
const hostile = "we\"ird'; drop table \\x $$ %s :x\n-- "

// layout is a customer's database and its mapping.
type layout struct {
	name    string
	ddl     string
	mapping migrations.Mapping
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// layouts are the customers that the tests play.
func layouts() []layout {
	plain := "CREATE TABLE public.docs (doc_id bigint PRIMARY KEY, name text NOT NULL, path text NOT NULL, bytes bigint NOT NULL, " +
		"changed timestamptz NOT NULL, kind text, tenant int NOT NULL DEFAULT 1, note text)"
	columns := map[string]string{"id": "doc_id", "size": "bytes", "modified_at": "changed"}
	with := func(more map[string]string) map[string]string {
		all := map[string]string{}
		for _, m := range []map[string]string{columns, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	h := func(i int) string { return fmt.Sprintf("%s%d", hostile, i) }
	weird := fmt.Sprintf("CREATE SCHEMA %s; CREATE TABLE %s.%s (%s uuid PRIMARY KEY, %s varchar(900) NOT NULL, %s text NOT NULL, %s int NOT NULL, %s timestamp(0) NOT NULL, %s text, %s text)",
		quoted(h(0)), quoted(h(0)), quoted(h(1)), quoted(h(2)), quoted(h(3)), quoted(h(4)), quoted(h(5)), quoted(h(6)), quoted(h(7)), quoted(h(8)))
	weirdColumns := map[string]string{"id": h(2), "name": h(3), "path": h(4), "size": h(5), "modified_at": h(6), "content_type": h(7)}
	weirdTable := quoted(h(0)) + "." + quoted(h(1))
	return []layout{
		{"reference", "", migrations.Mapping{Source: "files"}},
		{"reference, generated", "", migrations.Mapping{Source: "files", Generated: true}},
		{"table", plain, migrations.Mapping{
			Source: "docs", Table: "public.docs",
			Columns: with(map[string]string{"status": "state", "content_type": "kind", "des_hash": "hash32"}),
			States:  map[string]string{"ACTIVE": "A", "MARKED": "it's M", "PACKED": `P\`},
			Filter:  "t.tenant = 1 -- ours", Metadata: map[string]string{"note": "note"},
		}},
		{"side", plain, migrations.Mapping{
			Source: "docs", Table: "docs", Side: true, Columns: with(map[string]string{"content_type": "kind"}),
			Filter: "t.tenant = 1 -- ours", Metadata: map[string]string{"the \"note\"\\": "note"},
		}},
		{"hostile table", weird, migrations.Mapping{
			Source: "weird-1", Table: weirdTable,
			Columns:  func() map[string]string { w := with2(weirdColumns); w["des_name"] = h(9); return w }(),
			States:   map[string]string{"ACTIVE": h(0), "MARKED": h(1), "PACKED": h(2), "DELETED_SOURCE": h(3), "FAILED": h(4)},
			Metadata: map[string]string{h(0): h(8)},
		}},
		{"hostile side", weird, migrations.Mapping{
			Source: "weird-1", Table: weirdTable, Side: true, Columns: weirdColumns, Metadata: map[string]string{h(0): h(8)},
		}},
	}
}

func with2(m map[string]string) map[string]string {
	all := map[string]string{}
	for k, v := range m {
		all[k] = v
	}
	return all
}

// fingerprint describes all that a script could have made in a database.
const fingerprint = `
SELECT string_agg(line, E'\n' ORDER BY line) FROM (
  SELECT format('%s %s %s %s', c.oid::regclass, c.relkind, c.relacl, c.reloptions) AS line FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  UNION ALL SELECT format('%s %s %s %s %s', attrelid::regclass, attname, atttypid::regtype, attnotnull, attacl) FROM pg_attribute a
    JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND attnum > 0 AND NOT attisdropped
  UNION ALL SELECT format('%s %s', indexrelid::regclass, pg_get_indexdef(indexrelid)) FROM pg_index i
    JOIN pg_class c ON c.oid = indrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'v' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
  UNION ALL SELECT format('schema %s %s', nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_'
) AS all_of_it`

func TestScriptTwiceAndApplyMakeTheSame(t *testing.T) {
	for _, l := range layouts() {
		t.Run(l.name, func(t *testing.T) {
			o := migrations.ScriptOptions{Trigger: true, Delete: true}
			script := mustScript(t, l.mapping, o)
			first, second := database(t), database(t)
			byScript, byApply := connect(t, first), connect(t, second)
			exec1(t, byScript, l.ddl)
			exec1(t, byApply, l.ddl)

			if out, err := psql(t, first, script); err != nil {
				t.Fatalf("first: %v\n%s", err, out)
			}
			want := one(t, byScript, fingerprint)
			if out, err := psql(t, first, script); err != nil {
				t.Fatalf("second: %v\n%s", err, out)
			}
			if got := one(t, byScript, fingerprint); got != want {
				t.Errorf("the second time changed it:\n%s\n\nbefore:\n%s", got, want)
			}
			for range 2 {
				if _, err := migrations.Apply(t.Context(), second, l.mapping, o); err != nil {
					t.Fatal(err)
				}
				if got := one(t, byApply, fingerprint); got != want {
					t.Errorf("Apply made another:\n%s\n\nthe script:\n%s", got, want)
				}
			}
			// Either goes on where the other stopped.
			if _, err := migrations.Apply(t.Context(), first, l.mapping, o); err != nil {
				t.Fatal(err)
			}
			if out, err := psql(t, second, script); err != nil {
				t.Fatalf("script after Apply: %v\n%s", err, out)
			}
		})
	}
}
