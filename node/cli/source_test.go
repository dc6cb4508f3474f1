package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/migrations"
)

// runMain runs the command line and returns what it printed.
func runMain(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func sourceConfig(t *testing.T, sources string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "desnode.yaml")
	text := fmt.Sprintf("data_dir: %q\nsources:\n%s", filepath.Join(dir, "data"), sources)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const (
	onePostgres = "  docs: {url: 'postgres://u:secret@127.0.0.1:1/d?sslmode=disable', roots: [/srv], table: public.docs}\n"
	oneSQLite   = "  local: {url: 'sqlite:///srv/files.db'}\n"
)

func TestSourceInitPrintsTheScript(t *testing.T) {
	file := sourceConfig(t, onePostgres+oneSQLite)
	want, err := migrations.InitScript(migrations.Mapping{Source: "docs", Table: "public.docs"}, migrations.ScriptOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if code, out, errs := runMain(t, "source", "init", "--config", file); code != exitOK || out != want || errs != "" {
		t.Errorf("exit code %d, %q\n%s", code, errs, out)
	}
	to := filepath.Join(t.TempDir(), "init.sql")
	if code, out, errs := runMain(t, "source", "init", "docs", "--binding", "side", "-f", to, "--config", file); code != exitOK || out+errs != "" {
		t.Errorf("exit code %d, %q", code, out+errs)
	}
	script, err := os.ReadFile(to)
	if err != nil || !strings.Contains(string(script), "CREATE VIEW") {
		t.Errorf("%v: %s", err, script)
	}
}

func TestSourceRefusals(t *testing.T) {
	for _, c := range []struct {
		name    string
		sources string
		args    []string
		code    int
		want    string
	}{
		{"no word", onePostgres, []string{"source"}, exitUsage, "init or check"},
		{"no Postgres source", oneSQLite, []string{"source", "init"}, exitUsage, "no Postgres source"},
		{"none to check", oneSQLite, []string{"source", "check"}, exitUsage, "no Postgres source"},
		{"two of them", onePostgres + strings.ReplaceAll(onePostgres, "docs", "more"), []string{"source", "init"}, exitUsage, "docs, more"},
		{"an unknown one", onePostgres, []string{"source", "init", "dcos"}, exitUsage, `"dcos"`},
		{"an embedded one", onePostgres + oneSQLite, []string{"source", "check", "local"}, exitUsage, "no Postgres source"},
		{"an unknown binding", onePostgres, []string{"source", "init", "--binding", "back"}, exitUsage, "table or side"},
		{"apply into a file", onePostgres, []string{"source", "init", "--apply", "-f", "x"}, exitUsage, "choose one"},
		{"a database that is down", onePostgres, []string{"source", "check"}, exitUnavailable, "docs"},
		{"an apply to one that is down", onePostgres, []string{"source", "init", "--apply"}, exitFailed, "apply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if len(args) > 1 {
				args = append(args, "--config", sourceConfig(t, c.sources))
			}
			code, out, errs := runMain(t, args...)
			if code != c.code || !strings.Contains(errs, c.want) || out != "" || strings.Contains(errs, "secret") {
				t.Errorf("exit code %d, want %d with %q: %q %q", code, c.code, c.want, out, errs)
			}
		})
	}
}

// A source that is not fit fails the command; what it found is printed all the
// same, as JSON too.
func TestSourceCheckReports(t *testing.T) {
	w := newContractWorld(t, contractServer(t), "checks", scenario{})
	for _, spoil := range []struct {
		sql  string
		code int
	}{{"SELECT", exitOK}, {"DROP INDEX desnode.files_path", exitOK}, {"ALTER TABLE desnode.files DROP COLUMN des_pack", exitFailed}} {
		w.statement(spoil.sql, nil)
		code, out, errs := runMain(t, "source", "check", "-o", "json", "--config", w.config)
		var reports []struct {
			Source   string
			Findings []struct{ Level, Check, What, Why, Cure string }
		}
		if err := json.Unmarshal([]byte(out), &reports); err != nil || code != spoil.code || len(reports) != 1 || reports[0].Source != "documents" {
			t.Errorf("%s: exit code %d, %v: %s%s", spoil.sql, code, err, out, errs)
		}
	}
	code, out, _ := runMain(t, "source", "check", "--config", w.config)
	if code != exitFailed || !strings.Contains(out, "fail column des_pack") || !strings.Contains(out, "cure:") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
