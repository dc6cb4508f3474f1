package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

func TestOneOfAnythingFails(t *testing.T) {
	if bars, ok := new(verdict).judge(); !ok || len(bars) != len(breaches) {
		t.Fatalf("nothing happened, and the verdict is %t with %d bars", ok, len(bars))
	}
	for _, what := range breaches {
		t.Run(string(what), func(t *testing.T) {
			v := new(verdict)
			v.hold(true, "x", "y", "z")
			v.breach(what, "case %d", 7)
			bars, ok := v.judge()
			i := slices.IndexFunc(bars, func(b bar) bool { return b.What == string(what) })
			if ok || i < 0 || bars[i].OK || bars[i].Got != "1" || !slices.Equal(bars[i].Cases, []string{"case 7"}) {
				t.Errorf("%t: %+v", ok, bars)
			}
		})
	}
	t.Run("a bar of another kind", func(t *testing.T) {
		v := new(verdict)
		v.hold(false, "kills", "200", "%d", 199)
		if bars, ok := v.judge(); ok || bars[len(bars)-1].Got != "199" {
			t.Errorf("%t: %+v", ok, bars)
		}
	})
}

func TestManyCasesAreCountedAndFewShown(t *testing.T) {
	v := new(verdict)
	for i := range 1000 {
		v.breach(lostFiles, "%d", i)
	}
	bars, _ := v.judge()
	if i := slices.Index(breaches, lostFiles); bars[i].Got != "1000" || len(bars[i].Cases) != maxCases {
		t.Errorf("%+v", bars[i])
	}
}

// TestEveryBreachIsJudged: a breach that the list leaves out would be counted
// and never shown.
func TestEveryBreachIsJudged(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "verdict.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "breach" {
				named[strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)] = true
			}
		}
		return true
	})
	if len(named) != len(breaches) {
		t.Errorf("%d breaches are declared, %d judged", len(named), len(breaches))
	}
	for _, what := range breaches {
		if !named[string(what)] {
			t.Errorf("%q is judged twice, or declared elsewhere", what)
		}
		delete(named, string(what))
	}
}
