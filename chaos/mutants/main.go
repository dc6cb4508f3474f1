// Mutants breaks the product on purpose, one safety rule at a time, and shows
// that the tests notice. Each mutant is a textual patch (mutants.go) that is laid
// over the tree by the go command (-overlay): nothing in the tree is changed.
//
// A mutant is caught when it compiles, every test that must catch it passes
// without it, and every one of them fails with it by its own word: a build that
// breaks, a test that panics or runs out of time, or one that never ran is no
// proof. One that is not caught, or a patch that does not apply any more, makes
// the exit code 1.
//
// Not for: measuring how good the tests are in general. The eight rules are
// those by whose absence files have been lost in other systems.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	say := func(args ...any) { _, _ = fmt.Fprintln(stderr, args...) } // nobody reads what can't be written
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	format := flags.String("o", "text", "what is printed: text or json")
	only := flags.String("run", "", "only the mutants whose name this regular expression matches")
	limit := flags.Duration("limit", 5*time.Minute, "how long one go command may take")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	chosen, err := regexp.Compile(*only)
	if err != nil || *format != "text" && *format != "json" {
		say("mutants: -run takes a regular expression, -o text or json", err)
		return 2
	}
	root, err := moduleRoot()
	if err != nil {
		say("mutants:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l := lab{root: root, limit: *limit, healthy: map[string]error{}}
	var all []verdict
	for _, m := range mutants() {
		if ctx.Err() == nil && chosen.MatchString(m.name) {
			v := l.try(ctx, m)
			all = append(all, v)
			say(v.summary())
		}
	}
	if err := report(stdout, *format, all); err != nil {
		say("mutants:", err)
		return 2
	}
	for _, v := range all {
		if !v.Caught {
			return 1
		}
	}
	if ctx.Err() != nil || len(all) == 0 {
		say("mutants: not all of them were tried")
		return 1
	}
	return 0
}

// report prints what became of the mutants: JSON, or a table that Markdown
// reads.
func report(to io.Writer, format string, all []verdict) error {
	if format == "json" {
		enc := json.NewEncoder(to)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	row := func(cells ...string) error {
		_, err := fmt.Fprintln(to, "| "+strings.Join(cells, " | ")+" |")
		return err
	}
	err := errors.Join(row("rule", "broken by", "caught by", "verdict"), row("---", "---", "---", "---"))
	for _, v := range all {
		said := "caught"
		if !v.Caught {
			said = "**survives**: " + v.reason()
		}
		tests := "`" + strings.Join(v.Tests, "`, `") + "`"
		err = errors.Join(err, row(v.Rule, v.Change, tests, said))
	}
	return err
}
