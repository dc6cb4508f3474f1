package cli

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const worstDay = "../../docs/disaster-recovery.md"

// TestTheWorstDaysCommandsExist parses every command of the guide for the worst
// day as the program would.
func TestTheWorstDaysCommandsExist(t *testing.T) {
	guide, err := os.ReadFile(worstDay)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile("(?m)^    (desnode .*)$|`(desnode [^`]+)`").FindAllStringSubmatch(string(guide), -1) {
		line, _, _ := strings.Cut(m[1]+m[2], "#")
		words := strings.Fields(strings.TrimSpace(line))[1:]
		found++
		root := (&app{stdout: io.Discard, stderr: io.Discard}).root()
		cmd, rest, err := root.Find(words)
		if err != nil || cmd == root {
			t.Errorf("%q: no such command, %v", line, err)
			continue
		}
		if err := cmd.ParseFlags(rest); err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil && m[1] != "" {
			t.Errorf("%q: %v", line, err)
		}
	}
	if found < 10 {
		t.Errorf("the guide has %d commands only: are they still found?", found)
	}
}

// TestTheWorstDaysCasesAreTried holds the guide's cases against the tests: each
// names one, and those named exist.
func TestTheWorstDaysCasesAreTried(t *testing.T) {
	b, err := os.ReadFile(worstDay)
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOf(t, "../..")
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+|[a-z]+\\.txt)`")
	_, cases, _ := strings.Cut(string(b), "\n## What is gone\n")
	_, cases, _ = strings.Cut(cases, "\n## ")
	sections := strings.Split(cases, "\n## ")
	if len(sections) < 10 {
		t.Fatalf("the guide has %d cases only: are they still found?", len(sections))
	}
	for _, section := range sections {
		title, text, _ := strings.Cut(section, "\n")
		if !named.MatchString(text) {
			t.Errorf("%q names no test", title)
		}
	}
	for _, m := range named.FindAllStringSubmatch(string(b), -1) {
		if !tests[m[1]] {
			t.Errorf("%s: there is no such test", m[1])
		}
	}
}

// testsOf returns the tests and the scripts below a folder.
func testsOf(t *testing.T, root string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "dev-data" || d.Name() == "bin" || d.Name() == ".git"):
			return filepath.SkipDir
		case filepath.Base(filepath.Dir(path)) == "script":
			all[d.Name()] = true
		case strings.HasSuffix(path, "_test.go"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllSubmatch(b, -1) {
				all[string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
