package cli

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/source"
)

// TestTheOperatorsGuideKnowsEveryCommand holds the guide against the commands,
// their flags and the exit codes.
func TestTheOperatorsGuideKnowsEveryCommand(t *testing.T) {
	b, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(b)
	a := &app{stdout: io.Discard, stderr: io.Discard}
	var visit func(cmd *cobra.Command, path string)
	visit = func(cmd *cobra.Command, path string) {
		if cmd.HasSubCommands() {
			for _, sub := range cmd.Commands() {
				visit(sub, strings.TrimSpace(path+" "+sub.Name()))
			}
			return
		}
		if !strings.Contains(guide, "| `"+path) {
			t.Errorf("docs/operator.md does not list %q", path)
		}
	}
	visit(a.root(), "")
	_, codes, _ := strings.Cut(guide, "## Failure codes")
	codes, _, _ = strings.Cut(codes, "\n## ")
	for _, code := range source.Codes() {
		if !strings.Contains(codes, "`"+code+"`") {
			t.Errorf("docs/operator.md does not explain the failure code %q", code)
		}
	}
	for _, line := range strings.Split(exitHelp, "\n")[1:] {
		code, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		row := "| " + code + " | " + strings.Replace(meaning, ", ...", ", and so on", 1) + " |"
		if !strings.Contains(guide, row) {
			t.Errorf("docs/operator.md does not have the row %q", row)
		}
	}
}
