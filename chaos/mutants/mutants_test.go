package main

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "../.."

// rules are the eight whose absence must be noticed.
var rules = []string{
	"acknowledge before commit", "delete before verify", "no token check", "acknowledging without matching the version",
	"collect by age alone", "404 without confirmation", "deletion without re-hash", "missing fsync",
}

// TestEveryPatchApplies is what `make test` runs of this program: the tree
// changes under the patches.
func TestEveryPatchApplies(t *testing.T) {
	broken := map[string]bool{}
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			broken[m.rule] = true
			texts, err := m.patched(root)
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range texts {
				if _, err := parser.ParseFile(token.NewFileSet(), file, text, parser.AllErrors); err != nil {
					t.Errorf("patched: %v", err)
				}
			}
			if len(m.tests) == 0 {
				t.Error("no test must catch it")
			}
			for _, target := range m.tests {
				if !hasTest(t, target) {
					t.Errorf("there is no test %s", target)
				}
			}
		})
	}
	for _, rule := range rules {
		if !broken[rule] {
			t.Errorf("no mutant breaks the rule: %s", rule)
		}
	}
}

// hasTest looks for a test's declaration.
func hasTest(t *testing.T, target target) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, target.pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == target.test {
				return true
			}
		}
	}
	return false
}

// toy is a module whose rule is that Sum adds.
var toy = map[string]string{
	"go.mod":  "module toy\n\ngo 1.26\n",
	"main.go": "package main\n\nfunc main() {}\n\n// Sum adds.\nfunc Sum(a, b int) int { return a + b }\n",
	"main_test.go": `package main

import "testing"

func TestSum(t *testing.T) {
	t.Run("small", func(t *testing.T) {
		if got := Sum(1, 2); got != 3 {
			t.Errorf("1 and 2 are %d", got)
		}
	})
}

func TestNothing(*testing.T) {}

func TestSick(t *testing.T) { t.Error("sick") }
`,
}

// TestVerdicts tries the program itself on a module of its own: only a test
// that passes without the mutant and fails by its own word with it has caught it.
func TestVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command twenty times")
	}
	dir := t.TempDir()
	for name, text := range toy {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := lab{root: dir, limit: time.Minute, healthy: map[string]error{}}
	for _, c := range []struct {
		name, old, new, test string
		why                  error // nil: caught
	}{
		{"caught", "a + b", "a - b", "TestSum", nil},
		{"survives", "a + b", "a - b", "TestNothing", errSurvives},
		{"changes nothing that shows", "a + b", "b + a", "TestSum", errSurvives},
		{"does not compile", "a + b", "a +", "TestSum", errCompile},
		{"does not apply", "a * b", "a - b", "TestSum", errPatch},
		{"applies twice", "a", "b", "TestSum", errPatch},
		{"panics", "a + b", "[]int{}[a]", "TestSum", errBroke},
		{"ends the process", "{ return a + b }", "{ main(); for { } }", "TestSum", errBroke},
		{"there is no such test", "a + b", "a - b", "TestGone", errBroke},
		{"the test is sick", "a + b", "a - b", "TestSick", errSick},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l
			if c.name == "ends the process" {
				l.limit = 5 * time.Second // it hangs
			}
			v := l.try(t.Context(), mutant{
				name: c.name, edits: []edit{{"main.go", c.old, c.new}}, tests: []target{{"", c.test}},
			})
			if v.Caught != (c.why == nil) || c.why != nil && !strings.Contains(v.Why, c.why.Error()) {
				t.Errorf("caught %t, because %q; want %v", v.Caught, v.Why, c.why)
			}
			if v.Caught && (len(v.Said) != 1 || !strings.Contains(v.Said[0], "1 and 2 are -1")) {
				t.Errorf("the test said %q", v.Said)
			}
		})
	}
}

func TestReport(t *testing.T) {
	all := []verdict{
		{Name: "one", Rule: "first", Change: "less", Tests: []string{"p.TestA", "p.TestB"}, Caught: true},
		{Name: "two", Rule: "second", Change: "more", Tests: []string{"p.TestA"}, Why: "it\ndoes not compile"},
	}
	var text, asJSON bytes.Buffer
	if err := report(&text, "text", all); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| first | less | `p.TestA`, `p.TestB` | caught |", "| second | more | `p.TestA` | **survives**: it does not compile |",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("the table lacks %q:\n%s", line, &text)
		}
	}
	if err := report(&asJSON, "json", all); err != nil {
		t.Fatal(err)
	}
	var back []verdict
	if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil || len(back) != 2 || back[1].Why != all[1].Why {
		t.Errorf("%v, %+v", err, back)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-o", "xml"}, {"-run", "("}, {"-unknown"}} {
		var said bytes.Buffer
		if code := run(args, &said, &said); code != 2 {
			t.Errorf("%q: exit code %d: %s", args, code, &said)
		}
	}
}
