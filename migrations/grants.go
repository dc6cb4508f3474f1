package migrations

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Updates returns the words of the columns that a role may change, nil for the
// reader. Every role reads every mapped column, and no role inserts or deletes
// rows of the source.
func Updates(role string) []string {
	switch role {
	case "desnode_marker":
		return []string{
			ColStatus, ColVersion, ColCluster, ColDesName, ColShard, ColHash, ColClaim, ColMarkedAt,
			ColAttempts, ColError, ColLastAttemptAt,
		}
	case "desnode_packer":
		return []string{
			ColStatus, ColPack, ColSHA256, ColPackedAt, ColDeletedAt, ColAttempts, ColError, ColLastAttemptAt,
		}
	case "desnode_deleter":
		return []string{ColStatus, ColClaim, ColDeletedAt, ColError, ColLastAttemptAt}
	case "desnode_restorer":
		return append([]string{ColStatus}, ArchiveColumns()...)
	}
	return nil
}

// grants give the roles what they need, column by column.
func (b binding) grants() []section {
	all := strings.Join(Roles(), ", ")
	s := section{title: "what each role may do", sql: []string{
		fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", Schema, all),
		fmt.Sprintf("GRANT SELECT ON desnode.cluster, desnode.file_id, desnode.schema_version TO %s", all),
		"GRANT INSERT ON desnode.cluster TO desnode_marker",
		fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s TO desnode_marker", RaiseFunction),
		"GRANT INSERT, UPDATE, DELETE ON desnode.file_id TO desnode_deleter",
	}}
	if b.view.SchemaName != Schema {
		s.sql = append(s.sql, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", quoteIdentifier(b.view.SchemaName), all))
	}
	read := slices.Concat(slices.Collect(maps.Values(b.view.Columns)), slices.Collect(maps.Values(b.view.Metadata)))
	s.sql = append(s.sql, fmt.Sprintf("GRANT SELECT (%s) ON %s TO %s", columnList(read), b.view.Relation, all))
	if b.view.Keys != b.view.Relation {
		s.sql = append(s.sql, fmt.Sprintf("GRANT SELECT ON %s TO %s", b.view.Keys, all))
	}
	for _, role := range Roles() {
		var columns []string
		for _, word := range Updates(role) {
			columns = append(columns, b.view.Columns[word])
		}
		if len(columns) > 0 {
			s.sql = append(s.sql, fmt.Sprintf("GRANT UPDATE (%s) ON %s TO %s", columnList(columns), b.view.Relation, role))
		}
	}
	list := []section{s}
	if b.view.Filter != "" {
		list = append(list, b.filterGrants())
	}
	return list
}

// columnList joins quoted columns, each once, in a fixed order.
func columnList(columns []string) string {
	slices.Sort(columns)
	return strings.Join(slices.Compact(columns), ", ")
}

// filterGrants lets the roles read the columns that the filter names: only the
// server can tell which those are, so it is asked what a view with that filter
// would depend on.
func (b binding) filterGrants() section {
	relation := quoteLiteral(b.view.Relation) + "::regclass"
	return section{
		title: "the columns of the filter",
		sql: []string{
			fmt.Sprintf("CREATE TEMP VIEW desnode_filter AS SELECT 1 AS one FROM %s AS t WHERE %s", b.view.Relation, b.view.Filter),
			"DO " + dollarQuote(fmt.Sprintf(`
DECLARE c name;
BEGIN
  FOR c IN SELECT DISTINCT a.attname FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %[1]s AND d.refobjsubid > 0
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE r.ev_class = 'pg_temp.desnode_filter'::regclass
  LOOP
    EXECUTE format('GRANT SELECT (%%I) ON %%s TO %[2]s', c, %[1]s);
  END LOOP;
END
`, relation, strings.Join(Roles(), ", "))),
			"DROP VIEW pg_temp.desnode_filter",
		},
	}
}
