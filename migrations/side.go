package migrations

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The side binding's view is a UNION ALL with one arm a state, each with the
// state as a constant, so that the planner drops the arms that a query's
// condition on status rules out and takes the others' condition into them:
//
//   - ACTIVE, new: rows without an entry;
//   - ACTIVE, changed: rows whose entry is about another size or time, or was
//     refused and retried;
//   - MARKED, PACKED, DELETED_SOURCE, FAILED: rows whose entry says so.
//
// An arm is a join: to tell where the next so many rows end takes a look at all
// of them. So a second view has the ids alone, to walk by.
//
// What depends on types of the customer's columns is written by the server
// when the script runs. These are the places for it: no name can hold a NUL.
const (
	placeIDType  = "\x00i\x00" // the type of the customer's id
	placeRowTime = "\x00t\x00" // the row's time as entry.modified_at has it
	placeOldTime = "\x00o\x00" // likewise of OLD
)

// side prepares the side binding: the view and its trigger.
func (b binding) side() []section {
	return []section{b.exists(), {
		title: "the view over the customer's table and desnode.entry, which takes the updates",
		sql: []string{
			"DO " + dollarQuote(b.sideBlock()),
			"DROP VIEW IF EXISTS " + b.view.Keys,
			// Of all rows, those outside of the filter too: looking for the others could
			// take long.
			fmt.Sprintf("CREATE VIEW %s AS SELECT t.%s AS %s FROM %s AS t", b.view.Keys, b.customer.Columns[ColID], b.view.Columns[ColID], b.customer.Relation),
			"REVOKE ALL ON FUNCTION " + b.ownFunction("update") + "() FROM PUBLIC",
			fmt.Sprintf("CREATE TRIGGER desnode_update INSTEAD OF UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()",
				b.view.Relation, b.ownFunction("update")),
			fmt.Sprintf("COMMENT ON VIEW %s IS %s", b.view.Relation, quoteLiteral(b.m.Fingerprint())),
		},
	}}
}

func (b binding) sideRollback() []rollback {
	return []rollback{{"the view, and all that desnode knows of the rows; the table was never changed", append([]string{
		"DROP VIEW IF EXISTS " + b.view.Keys,
		"DROP VIEW IF EXISTS " + b.view.Relation,
		"DROP FUNCTION IF EXISTS " + b.ownFunction("update") + "()",
		"DELETE FROM desnode.entry WHERE source = " + quoteLiteral(b.m.Source),
	}, b.forget()...)}}
}

// sideBlock is the block that makes the view and the function of its trigger.
func (b binding) sideBlock() string {
	function := "CREATE OR REPLACE FUNCTION " + b.ownFunction("update") + "() RETURNS trigger LANGUAGE plpgsql" +
		" SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS " + dollarQuote(b.sideFunction())
	return fmt.Sprintf(`
DECLARE
  id_type   text;
  time_type text;
  as_number text;
BEGIN
  SELECT format_type(atttypid, -1) INTO id_type FROM pg_attribute
    WHERE attrelid = %[1]s::regclass AND attname = %[2]s AND NOT attisdropped;
  IF id_type IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = '%[4]s', MESSAGE = %[5]s;
  END IF;
  SELECT coalesce(b.typname, y.typname) INTO time_type FROM pg_attribute a
    JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = y.typbasetype
    WHERE a.attrelid = %[1]s::regclass AND a.attname = %[3]s AND NOT a.attisdropped;
  CASE
    WHEN time_type IN ('timestamptz', 'timestamp', 'date') THEN as_number := 'extract(epoch FROM %%s)';
    WHEN time_type IN ('int2', 'int4', 'int8', 'numeric') THEN as_number := '(%%s)::numeric';
    ELSE RAISE EXCEPTION USING ERRCODE = '%[4]s', MESSAGE = %[6]s;
  END CASE;
  DROP VIEW IF EXISTS %[7]s;
  EXECUTE %[8]s;
  EXECUTE %[9]s;
END
`, quoteLiteral(b.customer.Relation), quoteLiteral(b.customer.ColumnNames[ColID]), quoteLiteral(b.customer.ColumnNames[ColModifiedAt]),
		codeMapping, quoteLiteral("desnode: the table has no column "+b.customer.Columns[ColID]),
		quoteLiteral("desnode: column "+b.customer.Columns[ColModifiedAt]+" is not there, or is neither a time nor a whole number"),
		b.view.Relation, b.executed("CREATE VIEW "+b.view.Relation+" AS\n"+b.sideView()), b.executed(function))
}

// executed makes the expression that yields sql with the places filled.
func (b binding) executed(sql string) string {
	modified := b.customer.Columns[ColModifiedAt]
	r := strings.NewReplacer(
		placeIDType, "' || id_type || '",
		placeRowTime, "' || format(as_number, "+quoteLiteral("t."+modified)+") || '",
		placeOldTime, "' || format(as_number, 'OLD.modified_at') || '",
	)
	// Quoted first: the pieces between the places stay literals.
	literal := `'` + strings.ReplaceAll(sql, `'`, `''`) + `'`
	if strings.Contains(sql, `\`) {
		// A backslash escapes in the literals that begin with E only; each piece
		// becomes one.
		literal = `E'` + strings.ReplaceAll(strings.ReplaceAll(sql, `\`, `\\`), `'`, `''`) + `'`
		r = strings.NewReplacer(
			placeIDType, "' || id_type || E'",
			placeRowTime, "' || format(as_number, "+quoteLiteral("t."+modified)+") || E'",
			placeOldTime, "' || format(as_number, 'OLD.modified_at') || E'",
		)
	}
	return r.Replace(literal)
}

// sideView is the view's query.
func (b binding) sideView() string {
	from := b.customer.Relation + " AS t"
	source := quoteLiteral(b.m.Source)
	id := "t." + b.customer.Columns[ColID]
	// Both ways, so that either table can be looked up by the other's id. The
	// CASE keeps the cast from other sources' ids, which are of other types.
	joined := fmt.Sprintf("%s JOIN desnode.entry AS e ON e.source = %s AND e.id = %s::text\n  AND %s = CASE WHEN e.source = %s THEN e.id::%s END",
		from, source, id, id, source, placeIDType)
	same := fmt.Sprintf("e.size IS NOT DISTINCT FROM t.%s AND e.modified_at IS NOT DISTINCT FROM %s",
		b.customer.Columns[ColSize], placeRowTime)
	filter := ""
	if b.customer.Filter != "" {
		filter = "\n  AND " + b.customer.Filter
	}
	arms := []string{
		"SELECT " + b.sideColumns(StateActive, newRow) + "\n  FROM " + from +
			fmt.Sprintf("\n  WHERE NOT EXISTS (SELECT FROM desnode.entry AS e WHERE e.source = %s AND e.id = %s::text)", source, id) + filter,
		"SELECT " + b.sideColumns(StateActive, changedRow) + "\n  FROM " + joined +
			"\n  WHERE (e.status = 'ACTIVE' OR NOT (" + same + "))" + filter,
	}
	for _, state := range States()[1:] {
		arms = append(arms, "SELECT "+b.sideColumns(state, knownRow)+"\n  FROM "+joined+
			fmt.Sprintf("\n  WHERE e.status = '%s' AND %s", state, same)+filter)
	}
	return strings.Join(arms, "\nUNION ALL\n")
}

// The kinds of arms.
const (
	newRow = iota
	changedRow
	knownRow
)

// sideColumns lists an arm's columns.
func (b binding) sideColumns(state string, kind int) string {
	var list []string
	for _, word := range slices.Concat(SourceColumns()[:5], OptionalColumns()) {
		if c, ok := b.customer.Columns[word]; ok {
			list = append(list, "t."+c+" AS "+quoteIdentifier(word))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b.customer.Metadata)) {
		list = append(list, "t."+b.customer.Metadata[key]+" AS "+b.view.Metadata[key])
	}
	list = append(list, "'"+state+"'::text AS status")
	for _, word := range ArchiveColumns() {
		// What went wrong with the former file, or holds it, is not the new one's.
		forgotten := slices.Contains([]string{ColClaim, ColAttempts, ColError, ColLastAttemptAt}, word)
		value := "e." + word
		switch {
		case kind == newRow || kind == changedRow && forgotten:
			value = "NULL::" + archiveTypes[word]
			if word == ColVersion || word == ColAttempts {
				value = "0::" + archiveTypes[word]
			}
		}
		list = append(list, value+" AS "+word)
	}
	return strings.Join(list, ", ")
}

// sideFunction is the body of the trigger's function. It runs as its owner,
// since no role writes desnode.entry. The customer's row is not locked: one
// that changes a moment later shows as ACTIVE, whatever its entry says.
func (b binding) sideFunction() string {
	c := b.customer.Columns
	var names, news, sets []string
	for _, word := range slices.Concat([]string{ColStatus}, ArchiveColumns()) {
		names = append(names, word)
		news = append(news, "NEW."+word)
		sets = append(sets, word+" = NEW."+word)
	}
	rule := transition{
		OldVersion: "OLD.archive_version", NewVersion: "NEW.archive_version", OldClaim: "OLD.des_claim", NewClaim: "NEW.des_claim",
		OldMarkedAt: "OLD.marked_at", NewError: "NEW.archive_error", OldPack: "OLD.des_pack",
	}.render("rule")
	return fmt.Sprintf(`
#variable_conflict use_column
DECLARE
  was       text := OLD.status;
  is_now    text := NEW.status;
  changed   boolean := false;
  restoring boolean := coalesce(current_setting('desnode.restoring', true), '') = 'on';
  entry_id  text := OLD.id::text;
  file_time numeric := %[1]s;
BEGIN
  IF ROW(NEW.id, NEW.name, NEW.path, NEW.size, NEW.modified_at) IS DISTINCT FROM
    ROW(OLD.id, OLD.name, OLD.path, OLD.size, OLD.modified_at) THEN
    RAISE EXCEPTION 'desnode: the customer''s own columns are only read' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF NOT %[2]s THEN
    RAISE EXCEPTION 'desnode: illegal transition of a file''s state or version: %% (version %%) to %% (version %%)',
      was, OLD.archive_version, is_now, NEW.archive_version USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.archive_version > 0 AND NEW.des_name IS DISTINCT FROM OLD.des_name THEN
    RAISE EXCEPTION 'desnode: the name is frozen once a file is marked' USING ERRCODE = 'check_violation';
  END IF;
  -- Still as the statement saw it?
  PERFORM FROM %[3]s AS t WHERE t.%[4]s = OLD.id AND t.%[5]s IS NOT DISTINCT FROM OLD.name
    AND t.%[6]s IS NOT DISTINCT FROM OLD.path AND t.%[7]s IS NOT DISTINCT FROM OLD.size
    AND t.%[8]s IS NOT DISTINCT FROM OLD.modified_at;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF was = 'ACTIVE' THEN
    IF OLD.archive_version = 0 THEN
      -- Whatever is in the way, the same row marked by another at this moment or
      -- the served name of another row, is looked at below.
      INSERT INTO desnode.entry (source, id, size, modified_at, %[9]s)
      VALUES (%[12]s, entry_id, OLD.size, file_time, %[10]s) ON CONFLICT DO NOTHING;
      IF FOUND THEN
        RETURN NEW;
      END IF;
    END IF;
    UPDATE desnode.entry AS e SET size = OLD.size, modified_at = file_time, %[11]s
    WHERE e.source = %[12]s AND e.id = entry_id AND e.archive_version = OLD.archive_version
      AND (e.status = 'ACTIVE' OR e.size IS DISTINCT FROM OLD.size OR e.modified_at IS DISTINCT FROM file_time);
    IF FOUND THEN
      RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM desnode.entry AS e WHERE e.source = %[12]s AND e.id = entry_id) THEN
      RETURN NULL;
    END IF;
    RAISE EXCEPTION 'desnode: another row is served as %%', NEW.des_name USING ERRCODE = 'unique_violation';
  ELSE
    UPDATE desnode.entry AS e SET %[11]s
    WHERE e.source = %[12]s AND e.id = entry_id AND e.status = was AND e.archive_version = OLD.archive_version
      AND e.size IS NOT DISTINCT FROM OLD.size AND e.modified_at IS NOT DISTINCT FROM file_time
      AND e.des_name IS NOT DISTINCT FROM OLD.des_name AND e.des_pack IS NOT DISTINCT FROM OLD.des_pack
      AND e.des_claim IS NOT DISTINCT FROM OLD.des_claim AND e.archive_attempts = OLD.archive_attempts;
  END IF;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  RETURN NEW;
END
`, placeOldTime, rule, b.customer.Relation, c[ColID], c[ColName], c[ColPath], c[ColSize], c[ColModifiedAt],
		strings.Join(names, ", "), strings.Join(news, ", "), strings.Join(sets, ", "),
		quoteLiteral(b.m.Source))
}
