package migrations

import (
	"fmt"
	"strings"
)

// The SQLSTATEs that the sections raise, by which Apply knows them.
const (
	codeOld     = "DES01" // Postgres is too old
	codeForeign = "DES02" // schema desnode is something else's
	codeNewer   = "DES03" // a newer desnode was here
	codeMapping = "DES04" // the mapping does not fit the table
)

// minPostgres is the oldest server version: extract(epoch …) is exact from it
// on.
const minPostgres = 140000

// Roles lists the roles; node/source says what each does.
func Roles() []string {
	return []string{"desnode_marker", "desnode_packer", "desnode_deleter", "desnode_reader", "desnode_restorer"}
}

// raise is a statement that fails.
func raise(code, text string) string {
	body := fmt.Sprintf("BEGIN RAISE EXCEPTION USING ERRCODE = '%s', MESSAGE = %s; END", code, quoteLiteral("desnode: "+text))
	return "DO " + dollarQuote(body)
}

func supported() section {
	return section{
		title: "Postgres 14 is the oldest that will do",
		when:  fmt.Sprintf("SELECT current_setting('server_version_num')::int < %d", minPostgres),
		sql:   []string{raise(codeOld, "Postgres 14 or newer is needed")},
	}
}

// foreign stops before something else's schema is written to.
func foreign() section {
	return section{
		title: "a schema of that name may be somebody else's",
		when: `SELECT to_regclass('desnode.schema_version') IS NULL AND EXISTS (
  SELECT FROM pg_class WHERE relnamespace = to_regnamespace('desnode'))`,
		sql: []string{raise(codeForeign, "there is a schema desnode that desnode did not make; "+
			"if it is left from an attempt by hand, drop it")},
	}
}

func ownSchema() section {
	return section{title: "desnode's own schema", when: "SELECT to_regnamespace('desnode') IS NULL", sql: []string{"CREATE SCHEMA desnode"}}
}

// RaiseFunction is the function that raises the generation of a claim.
const RaiseFunction = Schema + ".raise_generation(text, bytea, bigint)"

// generation makes the function that raises the generation of a claim. Every
// transaction looks at the claim first, and so holds a lock on its table to its
// end, however weak: the function's is granted when all of them are over. So
// nothing that an older generation began is written after it has returned. It
// runs as its owner: no role may lock the table or change a claim.
func generation() section {
	return section{title: "what raises the generation of a claim", sql: []string{
		`CREATE OR REPLACE FUNCTION desnode.raise_generation(of_source text, of_cluster bytea, to_generation bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS ` + dollarQuote(`
BEGIN
  LOCK TABLE desnode.cluster IN ACCESS EXCLUSIVE MODE;
  UPDATE desnode.cluster SET generation = to_generation
    WHERE source = of_source AND cluster = of_cluster AND generation < to_generation;
END
`),
		"REVOKE ALL ON FUNCTION " + RaiseFunction + " FROM PUBLIC",
	}}
}

// roles makes the roles that are absent. Two databases of a server may do so
// at once.
func roles(o ScriptOptions) section {
	s := section{title: "the roles, if absent; they are the whole server's"}
	for _, role := range Roles() {
		s.sql = append(s.sql, "DO "+dollarQuote(fmt.Sprintf(`
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN
    CREATE ROLE %[1]s NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL; -- another script was faster
END
`, role)))
		if o.Login {
			s.sql = append(s.sql, "DO "+dollarQuote(fmt.Sprintf(`
BEGIN
  IF NOT (SELECT rolcanlogin FROM pg_roles WHERE rolname = '%[1]s') THEN
    ALTER ROLE %[1]s LOGIN;
  END IF;
END
`, role)))
		}
	}
	if o.Login {
		s.notice = "desnode: the roles may log in; give each a password with \\password"
	}
	return s
}

// dropOwned takes all grants in this database from the roles.
func dropOwned() string {
	return "DO " + dollarQuote(fmt.Sprintf(`
DECLARE r text;
BEGIN
  FOR r IN SELECT rolname FROM pg_roles WHERE rolname IN ('%s') LOOP
    EXECUTE format('DROP OWNED BY %%I', r);
  END LOOP;
END
`, strings.Join(Roles(), "', '")))
}

func dropRoles() string { return "DROP ROLE IF EXISTS " + strings.Join(Roles(), ", ") }
