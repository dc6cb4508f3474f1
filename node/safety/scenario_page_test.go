package safety

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSafetyPageNamesRealTests: docs/safety.md is worth what its tests are, so
// each test that it names must be there, and each rule must name some.
func TestSafetyPageNamesRealTests(t *testing.T) {
	const root = "../.."
	page, err := os.ReadFile(filepath.Join(root, "docs", "safety.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]map[string]bool{} // tests by folder
	found := regexp.MustCompile("`([a-z][a-z/]*)\\.(Test[A-Za-z0-9]*)`").FindAllStringSubmatch(string(page), -1)
	if len(found) < 100 {
		t.Errorf("the page names %d tests only: are they written in another way?", len(found))
	}
	for _, m := range found {
		folder, test := m[1], m[2]
		if declared[folder] == nil {
			declared[folder] = testsIn(t, filepath.Join(root, folder))
		}
		if !declared[folder][test] {
			t.Errorf("there is no test %s in %s", test, folder)
		}
	}
	// A rule, its scenario and its tests follow one another.
	parts := strings.Split(string(page), "\n> **")
	if len(parts) < 12 {
		t.Fatalf("the page holds %d rules", len(parts)-1)
	}
	for _, part := range parts[1:] {
		rule, rest, _ := strings.Cut(part, "**\n")
		if !strings.Contains(rest, "*Without it.*") && !strings.Contains(rest, "| without |") || !strings.Contains(rest, ".Test") {
			t.Errorf("the rule %q has no scenario or no test", rule)
		}
	}
}

// testsIn returns the tests that a folder declares.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				tests[f.Name.Name] = true
			}
		}
	}
	return tests
}
