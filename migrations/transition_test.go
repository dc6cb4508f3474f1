package migrations_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
)

// stage is a table with the trigger, and how to put a row into a state.
type stage struct {
	name    string
	ddl     string
	mapping migrations.Mapping
	table   string
	words   map[string]string // the table's words for the states
}

func stages() []stage {
	return []stage{
		{"reference", "", migrations.Mapping{Source: "files"}, "desnode.files", map[string]string{}},
		{
			"mapped", "CREATE TYPE state AS ENUM ('A', 'M', 'P', 'D', 'F', 'draft'); CREATE TABLE docs (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, " +
				"name text NOT NULL, path text NOT NULL, size int NOT NULL, modified_at timestamp NOT NULL, status state NOT NULL DEFAULT 'A')",
			migrations.Mapping{Source: "docs", Table: "docs", States: map[string]string{
				"ACTIVE": "A", "MARKED": "M", "PACKED": "P", "DELETED_SOURCE": "D", "FAILED": "F",
			}},
			"public.docs",
			map[string]string{"ACTIVE": "A", "MARKED": "M", "PACKED": "P", "DELETED_SOURCE": "D", "FAILED": "F"},
		},
	}
}

func (s stage) word(state string) string {
	if w, ok := s.words[state]; ok {
		return w
	}
	return state
}

// into are the updates that bring a new row into a state on legal ways.
func (s stage) into(state string) []string {
	const id = `decode(repeat('00', 16), 'hex')`
	mark := fmt.Sprintf("UPDATE %s SET status = '%s', archive_version = archive_version + 1, des_name = name, des_hash = 1, des_shard = 1, des_cluster = %s, marked_at = now()", s.table, s.word("MARKED"), id)
	pack := fmt.Sprintf("UPDATE %s SET status = '%s', des_pack = %s, des_sha256 = decode(repeat('00', 32), 'hex'), packed_at = now()", s.table, s.word("PACKED"), id)
	fail := fmt.Sprintf("UPDATE %s SET status = '%s', archive_error = 'x: y'", s.table, s.word("FAILED"))
	switch state {
	case "MARKED":
		return []string{mark}
	case "PACKED":
		return []string{mark, pack}
	case "DELETED_SOURCE":
		return []string{
			mark, pack, fmt.Sprintf("UPDATE %s SET des_claim = 'c'", s.table),
			fmt.Sprintf("UPDATE %s SET status = '%s', source_deleted_at = now()", s.table, s.word("DELETED_SOURCE")),
		}
	case "FAILED":
		return []string{fail}
	case "FAILED, marked":
		return []string{mark, fail}
	}
	return nil
}

// TestTriggerTransitions tries every pair of states, with all that the target
// state's own columns need, so that only the trigger can refuse.
func TestTriggerTransitions(t *testing.T) {
	type change struct{ from, to string }
	legal := map[change]string{
		{"ACTIVE", "MARKED"}: "archive_version = archive_version + 1", {"ACTIVE", "FAILED"}: "", {"MARKED", "PACKED"}: "",
		{"MARKED", "FAILED"}: "", {"PACKED", "DELETED_SOURCE"}: "", {"FAILED, marked", "MARKED"}: "",
		{"FAILED", "ACTIVE"}: "", {"DELETED_SOURCE", "ACTIVE"}: "",
	}
	states := []string{"ACTIVE", "MARKED", "PACKED", "DELETED_SOURCE", "FAILED", "FAILED, marked"}
	for _, s := range stages() {
		conn := prepared(t, s)
		for _, from := range states {
			for _, to := range migrations.States() {
				for _, changed := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s to %s, changed %t", s.name, from, to, changed), func(t *testing.T) {
						same := from == to || from == "FAILED, marked" && to == "FAILED"
						_, ok := legal[change{from, to}]
						ok = ok || same
						if changed {
							ok = to == "ACTIVE" // whatever the state before
						}
						update := fmt.Sprintf("UPDATE %s SET status = '%s', des_pack = coalesce(des_pack, decode(repeat('00', 16), 'hex')), "+
							"des_sha256 = decode(repeat('00', 32), 'hex'), des_cluster = decode(repeat('00', 16), 'hex'), des_hash = 1, des_shard = 1, "+
							"packed_at = now(), source_deleted_at = now(), archive_error = 'x: y'", s.table, s.word(to))
						if from == "PACKED" {
							exec1(t, conn, "BEGIN")
							reset(t, conn, s, append(s.into(from), fmt.Sprintf("UPDATE %s SET des_claim = 'c'", s.table)))
						} else {
							exec1(t, conn, "BEGIN")
							reset(t, conn, s, s.into(from))
						}
						if to == "MARKED" && from == "ACTIVE" {
							update += ", archive_version = archive_version + 1, des_name = name, marked_at = now()"
						}
						if changed {
							update += ", size = size + 1"
						}
						err := try(t, conn, update)
						exec1(t, conn, "ROLLBACK")
						switch {
						case ok && err != nil:
							t.Errorf("refused: %v", err)
						case !ok && sqlState(err) != "23514":
							t.Errorf("%v, want a check violation", err)
						}
					})
				}
			}
		}
	}
}

// prepared makes the table with the trigger.
func prepared(t *testing.T, s stage) *pgx.Conn {
	t.Helper()
	db := database(t)
	conn := connect(t, db)
	exec1(t, conn, s.ddl)
	if _, err := migrations.Apply(t.Context(), db, s.mapping, migrations.ScriptOptions{Trigger: true}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// reset leaves one row in the table, which the updates have brought somewhere.
func reset(t *testing.T, conn *pgx.Conn, s stage, updates []string) {
	t.Helper()
	for _, sql := range slices.Concat([]string{
		"DELETE FROM " + s.table,
		"INSERT INTO " + s.table + " (name, path, size, modified_at) VALUES ('a', '/a', 1, '2020-01-01 UTC')",
	}, updates) {
		exec1(t, conn, sql)
	}
}

func TestTriggerRules(t *testing.T) {
	const archived = "des_pack = decode(repeat('00', 16), 'hex'), des_sha256 = decode(repeat('00', 32), 'hex'), packed_at = now(), " +
		"des_name = name, des_claim = 'c', source_deleted_at = now()"
	for _, s := range stages() {
		conn := prepared(t, s)
		for _, c := range []struct {
			name, state, set string
			refused          bool
		}{
			{"restored", "ACTIVE", "status = '{PACKED}', archive_version = 7, " + archived, true},
			{"R restored", "ACTIVE", "status = '{PACKED}', archive_version = 7, " + archived, false},
			{"R restored as deleted", "ACTIVE", "status = '{DELETED_SOURCE}', archive_version = 7, " + archived, false},
			{"R restored, once marked", "MARKED", "status = '{PACKED}', archive_version = 7, " + archived, false},
			{"R restored to no version", "ACTIVE", "status = '{PACKED}', " + archived, true},
			{"R restored to an older version", "MARKED", "status = '{PACKED}', archive_version = 0, " + archived, true},
			{"R restored over a pack", "PACKED", "status = '{DELETED_SOURCE}', archive_version = 7, " + archived, true},
			{"R restored over a changed file", "ACTIVE", "status = '{PACKED}', size = 9, archive_version = 7, " + archived, true},
			{"R restored under another name", "MARKED", "status = '{PACKED}', archive_version = 7, " + archived + ", name = 'b'", true},
			{"R restored, once failed", "FAILED", "status = '{PACKED}', archive_version = 7, " + archived, true},
			{"R a version raised", "MARKED", "archive_version = 7", false},
			{"R a version raised, once failed", "FAILED, marked", "archive_version = 7", false},
			{"R a version lowered", "MARKED", "archive_version = 0", true},
			{"R the version of what a pack has", "PACKED", "archive_version = 7", true},
			{"R marked twice", "ACTIVE", "status = '{MARKED}', archive_version = 2, des_name = name, des_hash = 1, des_shard = 1, des_cluster = decode(repeat('00', 16), 'hex'), marked_at = now()", true},
			{"a version that jumps", "ACTIVE", "status = '{MARKED}', archive_version = archive_version + 2, des_name = name, des_hash = 1, des_shard = 1, des_cluster = decode(repeat('00', 16), 'hex'), marked_at = now()", true},
			{"a version alone", "MARKED", "archive_version = archive_version + 1", true},
			{"an error is needed to fail", "ACTIVE", "status = '{FAILED}'", true},
			{"no claim, no deletion", "PACKED", "status = '{DELETED_SOURCE}', source_deleted_at = now(), des_claim = 'now'", true},
			{"a name, before it is marked", "ACTIVE", "name = 'b'", false},
			{"a name, once marked", "MARKED", "name = 'b'", true},
			{"a served name, once marked", "PACKED", "des_name = 'b'", true},
			{"a path, once packed", "PACKED", "path = '/elsewhere'", false},
			{"a size under a state that vouches", "PACKED", "size = 9", true},
			{"a time under a state that vouches", "MARKED", "modified_at = now()", true},
			{"a changed file", "PACKED", "status = '{ACTIVE}', modified_at = now()", false},
			{"a changed file that is claimed", "DELETED_SOURCE", "status = '{ACTIVE}', size = 9", false},
			{"back without a change", "PACKED", "status = '{ACTIVE}'", true},
			{"desnode's own columns", "PACKED", "des_claim = 'c'", false},
		} {
			t.Run(s.name+"/"+c.name, func(t *testing.T) {
				exec1(t, conn, "BEGIN")
				reset(t, conn, s, s.into(c.state))
				if strings.HasPrefix(c.name, "R ") { // a restoration
					exec1(t, conn, "SET LOCAL desnode.restoring = 'on'")
				}
				set := c.set
				for _, state := range migrations.States() {
					set = strings.ReplaceAll(set, "{"+state+"}", s.word(state))
				}
				err := try(t, conn, "UPDATE "+s.table+" SET "+set)
				exec1(t, conn, "ROLLBACK")
				if c.refused != (sqlState(err) == "23514") || !c.refused && err != nil {
					t.Errorf("%v, want refused: %t", err, c.refused)
				}
			})
		}
	}
}

// Words that are the customer's own are theirs, as long as desnode has not met
// the row.
func TestTriggerLeavesOtherWordsAlone(t *testing.T) {
	s := stages()[1]
	conn := prepared(t, s)
	for _, c := range []struct {
		name, state, to string
		refused         bool
	}{
		{"ACTIVE back to a draft", "ACTIVE", "draft", false},
		{"MARKED is no draft any more", "MARKED", "draft", true},
		{"PACKED is no draft any more", "PACKED", "draft", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			exec1(t, conn, "BEGIN")
			reset(t, conn, s, s.into(c.state))
			err := try(t, conn, "UPDATE docs SET status = '"+c.to+"'")
			if err == nil {
				err = try(t, conn, "UPDATE docs SET size = 5; UPDATE docs SET status = 'A'")
			}
			exec1(t, conn, "ROLLBACK")
			if (err != nil) != c.refused {
				t.Errorf("%v, want refused: %t", err, c.refused)
			}
		})
	}
}

// A changed file begins anew: what went wrong with the old one is forgotten.
func TestTriggerForgetsFailuresOfTheFormerFile(t *testing.T) {
	for _, s := range stages() {
		t.Run(s.name, func(t *testing.T) {
			conn := prepared(t, s)
			reset(t, conn, s, append(s.into("FAILED, marked"), "UPDATE "+s.table+" SET archive_attempts = 3, last_archive_attempt_at = now()"))
			exec1(t, conn, "UPDATE "+s.table+" SET status = '"+s.word("ACTIVE")+"', size = 7")
			got := one(t, conn, "SELECT concat_ws(' ', archive_attempts, archive_error, last_archive_attempt_at, des_claim, archive_version) FROM "+s.table)
			if got != "0 1" {
				t.Errorf("%q, want no attempts, nothing else, and the version kept", got)
			}
		})
	}
}
