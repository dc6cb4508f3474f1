package source

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/datavision/desnode/migrations"
)

// roleName is the database role with the least privileges for a role.
func roleName(r Role) string { return "desnode_" + string(r) }

// privileges proves that the role may do what it must, and warns when it may do
// more.
func (c *check) privileges(ctx context.Context) error {
	name := "role " + string(c.role)
	var user string
	var super, bypass, owner bool
	err := c.one(ctx, `SELECT current_user::text, r.rolsuper, r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb,
 coalesce((SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2), false)
 FROM pg_roles r WHERE r.rolname = current_user`, []any{c.customer.SchemaName, c.customer.TableName}, &user, &super, &bypass, &owner)
	if err != nil {
		return err
	}
	cure := fmt.Sprintf("connect as a user that has %s and nothing else: CREATE ROLE … LOGIN IN ROLE %s", roleName(c.role), roleName(c.role))
	const why = "whoever gets hold of the node's connection gets all of that"
	switch {
	case super:
		c.warn(name, "user "+user+" is a superuser", why, cure)
		return nil // it has every privilege: listing them says no more
	case owner:
		c.warn(name, "user "+user+" owns the table", why, cure)
		return nil
	case bypass:
		c.warn(name, "user "+user+" may make roles or databases, or pass by row security", why, cure)
	}
	many, err := c.tooMany(ctx)
	if err != nil {
		return err
	}
	few, err := c.tooFew(ctx)
	if err != nil {
		return err
	}
	if len(few) > 0 {
		c.fail(name, "user "+user+" lacks "+strings.Join(few, ", "), "its statements would be refused",
			fmt.Sprintf("GRANT %s TO %s, or %s", roleName(c.role), user, c.initAgain()))
	}
	if len(many) > 0 {
		c.warn(name, "user "+user+" has more than it needs: "+strings.Join(many, ", "), why, "REVOKE "+many[0]+" FROM the role that has it; or "+cure)
	}
	if len(few)+len(many) == 0 {
		c.ok(name, "user "+user+" has what it needs and no more")
	}
	return nil
}

// needed lists the privileges of a role on columns of the relation: those it
// must have, by column name.
func (c *check) needed() (selects, updates []string) {
	for _, name := range c.view.ColumnNames {
		selects = append(selects, name)
	}
	for _, name := range c.view.MetadataNames {
		selects = append(selects, name)
	}
	for _, word := range migrations.Updates(roleName(c.role)) {
		updates = append(updates, c.view.ColumnNames[word])
	}
	slices.Sort(selects)
	slices.Sort(updates)
	return slices.Compact(selects), slices.Compact(updates)
}

// shared reports whether the other roles of this node connect as the same user.
func (c *check) sharedWith() []Role {
	own := c.cfg.URLs[c.role]
	var roles []Role
	for _, r := range c.cfg.Roles {
		if c.cfg.URLs[r] == own {
			roles = append(roles, r)
		}
	}
	return roles
}

// ownTables lists what a role may do to tables of schema desnode.
var ownTables = []struct {
	table, privilege string
	roles            []Role
}{
	{"desnode.cluster", "SELECT", []Role{RoleMarker, RolePacker, RoleDeleter, RoleReader, RoleRestorer}},
	{"desnode.file_id", "SELECT", []Role{RoleMarker, RolePacker, RoleDeleter, RoleReader, RoleRestorer}},
	{"desnode.cluster", "INSERT", []Role{RoleMarker}},
	{"desnode.file_id", "INSERT", []Role{RoleDeleter}},
	{"desnode.file_id", "UPDATE", []Role{RoleDeleter}},
	{"desnode.file_id", "DELETE", []Role{RoleDeleter}},
}

func (c *check) tooFew(ctx context.Context) (few []string, err error) {
	selects, updates := c.needed()
	var missing []string
	err = c.one(ctx, `SELECT coalesce(array_agg(p || ' (' || quote_ident(col) || ')' ORDER BY p, col), '{}') FROM (
  SELECT 'SELECT' AS p, unnest($3::text[]) AS col UNION ALL SELECT 'UPDATE', unnest($4::text[])) AS want
 WHERE NOT has_column_privilege((SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2), col, p)`,
		[]any{c.view.SchemaName, c.view.TableName, selects, updates}, &missing)
	if err != nil {
		return nil, err
	}
	for _, m := range missing {
		few = append(few, m+" on "+c.view.Relation)
	}
	if c.view.Side {
		var reads *bool
		if err := c.one(ctx, `SELECT has_table_privilege(to_regclass($1), 'SELECT')`, []any{c.view.Keys}, &reads); err != nil {
			return nil, err
		}
		if reads != nil && !*reads {
			few = append(few, "SELECT on "+c.view.Keys)
		}
	}
	var usage bool
	if err := c.one(ctx, `SELECT has_schema_privilege($1, 'USAGE')`, []any{c.view.SchemaName}, &usage); err != nil {
		return nil, err
	}
	if !usage {
		few = append(few, "USAGE on its schema")
	}
	for _, own := range ownTables {
		var has bool
		if err := c.one(ctx, `SELECT has_table_privilege($1, $2)`, []any{own.table, own.privilege}, &has); err != nil {
			return nil, err
		}
		if !has && slices.Contains(own.roles, c.role) {
			few = append(few, own.privilege+" on "+own.table)
		}
	}
	if c.role == RoleMarker {
		var has *bool
		if err := c.one(ctx, `SELECT CASE WHEN has_schema_privilege('desnode', 'USAGE') THEN
 has_function_privilege(to_regprocedure($1), 'EXECUTE') END`, []any{migrations.RaiseFunction}, &has); err != nil {
			return nil, err
		}
		if has == nil || !*has {
			few = append(few, "EXECUTE on "+migrations.RaiseFunction)
		}
	}
	return few, nil
}

// tooMany lists privileges that no role of this user needs.
func (c *check) tooMany(ctx context.Context) (many []string, err error) {
	var updates []string
	for _, r := range c.sharedWith() {
		for _, word := range migrations.Updates(roleName(r)) {
			updates = append(updates, c.view.ColumnNames[word])
		}
	}
	err = c.one(ctx, `SELECT coalesce(array_agg(what ORDER BY what), '{}') FROM (
  SELECT p || ' on ' || c.oid::regclass AS what FROM unnest('{INSERT,DELETE,TRUNCATE,TRIGGER,REFERENCES}'::text[]) AS p, pg_class c
   JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE (n.nspname = $1 AND c.relname = $2 OR n.nspname = $4 AND c.relname = $5) AND has_table_privilege(c.oid, p)
  UNION ALL SELECT 'UPDATE (' || quote_ident(a.attname) || ') on ' || c.oid::regclass FROM pg_attribute a
   JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
   AND NOT a.attname::text = ANY ($3::text[]) AND has_column_privilege(c.oid, a.attnum, 'UPDATE')
  UNION ALL SELECT p || ' on desnode.entry' FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p
   JOIN pg_class c ON c.relname = 'entry' AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'desnode')
   WHERE has_any_column_privilege(c.oid, CASE p WHEN 'DELETE' THEN 'SELECT' ELSE p END) AND has_table_privilege(c.oid, p)
  UNION ALL SELECT 'UPDATE on the customer''s table' WHERE $6 AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $4 AND c.relname = $5 AND has_any_column_privilege(c.oid, 'UPDATE'))
 ) AS found`, []any{c.view.SchemaName, c.view.TableName, updates, c.customer.SchemaName, c.customer.TableName, c.view.Side}, &many)
	return many, err
}

// dryRun makes the role's statements, on a row where there is one, and takes
// them back.
func (c *check) dryRun(ctx context.Context) error {
	for _, s := range c.statements() {
		_, refused, err := c.try(ctx, s.sql)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("role %s: %s", c.role, s.name)
		switch {
		case refused == nil:
			c.ok(name, "tried and taken back")
		case LockTimeout(refused):
			c.warn(name, "could not be tried: somebody holds the row", "it proves nothing", "")
		default:
			c.fail(name, refused.Error(), "desnode's own statement would be refused like this", s.cure(c))
		}
	}
	return nil
}

// trial is one statement of a role.
type trial struct{ name, sql string }

func (t trial) cure(c *check) string {
	return "see what refuses it: a trigger, a rule or a constraint of the table, or a privilege; " + c.initAgain() + " grants those"
}

// statements are a role's statements with values that the contract allows.
func (c *check) statements() []trial {
	all := make([]string, 0, len(c.view.Columns)+len(c.view.Metadata))
	for _, col := range c.view.Columns {
		all = append(all, "t."+col)
	}
	for _, col := range c.view.Metadata {
		all = append(all, "t."+col)
	}
	slices.Sort(all)
	list := []trial{{"read", "SELECT " + strings.Join(all, ", ") + c.from() + " LIMIT 1"}}
	set := func(word, sql string) string { return c.view.Columns[word] + " = " + sql }
	col := c.col
	status := func(s string) string { return set(migrations.ColStatus, migrations.Literal(c.view.States[s])) }
	id := `'\x` + strings.Repeat("00", 16) + `'`
	failure := []string{
		set(migrations.ColError, "'dry-run: taken back'"), set(migrations.ColLastAttemptAt, "now()"),
	}
	switch c.role {
	case RoleMarker:
		list = append(list, c.update("mark", migrations.StateActive, status(migrations.StateMarked),
			set(migrations.ColVersion, "coalesce("+col(migrations.ColVersion)+", 0) + 1"), set(migrations.ColCluster, id),
			set(migrations.ColDesName, "coalesce("+col(migrations.ColDesName)+", 'desnode dry run ' || "+col(migrations.ColID)+"::text)"),
			set(migrations.ColShard, "0"), set(migrations.ColHash, "0"), set(migrations.ColClaim, "NULL"), set(migrations.ColMarkedAt, "now()"),
			set(migrations.ColAttempts, "0"), set(migrations.ColError, "NULL"), set(migrations.ColLastAttemptAt, "NULL")))
	case RolePacker:
		list = append(list,
			c.update("acknowledge", migrations.StateMarked, status(migrations.StatePacked), set(migrations.ColPack, id),
				set(migrations.ColSHA256, `'\x`+strings.Repeat("00", 32)+`'`), set(migrations.ColPackedAt, "now()"),
				set(migrations.ColDeletedAt, "NULL"), set(migrations.ColAttempts, "0"), set(migrations.ColError, "NULL")),
			c.update("fail", migrations.StateMarked, slices.Concat(failure,
				[]string{status(migrations.StateFailed), set(migrations.ColAttempts, "coalesce("+col(migrations.ColAttempts)+", 0) + 1")})...))
	case RoleDeleter:
		list = append(list,
			c.update("claim", migrations.StatePacked, set(migrations.ColClaim, "'dry run'")),
			c.update("unclaim", migrations.StatePacked, slices.Concat(failure, []string{set(migrations.ColClaim, "NULL")})...),
			c.update("delete", migrations.StateDeletedSource, status(migrations.StateDeletedSource), set(migrations.ColDeletedAt, "now()")))
	}
	return list
}

// update changes one row that is in the state, if there is one.
func (c *check) update(name, state string, sets ...string) trial {
	one := "(SELECT " + c.col(migrations.ColID) + c.from(c.inState(state)) + " LIMIT 1)"
	return trial{name, "UPDATE " + c.view.Relation + " AS t SET " + strings.Join(sets, ", ") +
		" WHERE " + c.col(migrations.ColID) + " = " + one + " AND " + c.inState(state)}
}
