package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTheOperatorsGuideListsEveryKey holds the guide's table against the keys
// and their defaults.
func TestTheOperatorsGuideListsEveryKey(t *testing.T) {
	var want strings.Builder
	want.WriteString("| key | default | meaning |\n|---|---|---|\n")
	defaults := map[string]string{
		"sources.*.url":   "sqlite://<data_dir>/files.db, for `files`",
		"sources.*.table": DefaultTable, "sources.*.binding": BindingTable, "sources.*.naming": NamingColumn,
	}
	for _, v := range Default("/D").Values() {
		defaults[v.Key] = strings.ReplaceAll(strings.ReplaceAll(v.Value, "/D/", "<data_dir>/"), "/D", "./"+DefaultDataDir)
	}
	for _, k := range Keys() {
		d := defaults[k.Name]
		if d == "" {
			d = "none"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", k.Name, d, k.Doc)
	}
	guide, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), want.String()) {
		t.Errorf("docs/operator.md does not have this table:\n%s", want.String())
	}
}
