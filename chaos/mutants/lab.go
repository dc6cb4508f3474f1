package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mutant is the product with one rule broken.
type mutant struct {
	name   string // one word
	rule   string // which holds no more
	change string // what was done, for the reader of the table
	edits  []edit
	tests  []target // each must fail
}

// edit replaces text that occurs once in a file.
type edit struct {
	file     string // below the module's root
	old, new string
}

// target is one top-level test.
type target struct{ pkg, test string }

func (t target) String() string { return t.pkg + "." + t.test }

// verdict is what became of a mutant.
type verdict struct {
	Name   string   `json:"name"`
	Rule   string   `json:"rule"`
	Change string   `json:"change"`
	Tests  []string `json:"tests"` // that must catch it
	Caught bool     `json:"caught"`
	Why    string   `json:"why,omitempty"` // not
	Took   float64  `json:"seconds"`
	Said   []string `json:"said,omitempty"` // the failed tests' first words
}

// reason is why the mutant was not caught, in one line.
func (v verdict) reason() string { return strings.Join(strings.Fields(v.Why), " ") }

// summary says in one line what became of the mutant.
func (v verdict) summary() string {
	if v.Caught {
		return fmt.Sprintf("%s: caught in %.0f s", v.Name, v.Took)
	}
	return fmt.Sprintf("%s: SURVIVES: %s", v.Name, v.reason())
}

// Why a mutant proves nothing.
var (
	errPatch    = errors.New("the patch does not apply")
	errCompile  = errors.New("it does not compile")
	errSick     = errors.New("the test fails without it")
	errSurvives = errors.New("the test passes with it")
	errBroke    = errors.New("the test did not fail by its own word")
)

// lab tries mutants, one after the other.
type lab struct {
	root    string
	limit   time.Duration
	healthy map[string]error // what a test says without a mutant
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.mod" {
		return "", errors.New("run it in the module")
	}
	return filepath.Dir(file), nil
}

// patch returns a file's text with the edits of that file made.
func (m mutant) patch(file, text string) (string, error) {
	for _, e := range m.edits {
		if e.file != file {
			continue
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%w: %s holds %d times %q", errPatch, file, n, e.old)
		}
		if e.old == e.new {
			return "", fmt.Errorf("%w: %s: it changes nothing", errPatch, file)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	return text, nil
}

// patched returns the new texts of all files that the mutant changes.
func (m mutant) patched(root string) (map[string]string, error) {
	texts := map[string]string{}
	for _, e := range m.edits {
		if _, done := texts[e.file]; done {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, e.file))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errPatch, err)
		}
		if texts[e.file], err = m.patch(e.file, string(b)); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// overlay writes the changed files below dir, and the file that tells the go
// command of them.
func (m mutant) overlay(root, dir string) (file string, err error) {
	texts, err := m.patched(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range texts {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, name)] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, b, 0o600)
}

// try tells what becomes of one mutant.
func (l *lab) try(ctx context.Context, m mutant) verdict {
	began := time.Now()
	v := verdict{Name: m.name, Rule: m.rule, Change: m.change}
	for _, t := range m.tests {
		v.Tests = append(v.Tests, t.String())
	}
	said, err := l.attempt(ctx, m)
	v.Said, v.Caught = said, err == nil
	if err != nil {
		v.Why = err.Error()
	}
	v.Took = time.Since(began).Round(time.Millisecond).Seconds()
	return v
}

func (l *lab) attempt(ctx context.Context, m mutant) (said []string, err error) {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, err := m.overlay(l.root, dir)
	if err != nil {
		return nil, err
	}
	if out, err := l.command(ctx, "build", "-overlay", file, "-o", os.DevNull, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", errCompile, lastLines(out))
	}
	for _, t := range m.tests {
		if err := l.passes(ctx, t); err != nil {
			return said, err
		}
		first, err := l.fails(ctx, file, t)
		if err != nil {
			return said, err
		}
		said = append(said, t.test+": "+first)
	}
	return said, nil
}

func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = l.root
	return c
}

// passes is nil when the test passes in the tree as it is.
func (l *lab) passes(ctx context.Context, t target) error {
	key := t.String()
	if _, known := l.healthy[key]; !known {
		o, err := l.test(ctx, t)
		if err == nil && !o.passed {
			err = fmt.Errorf("%w: %s: %s", errSick, t, o.first())
		}
		l.healthy[key] = err
	}
	return l.healthy[key]
}

// fails is nil when the test fails with the overlay, by its own word; it
// returns the first of them.
func (l *lab) fails(ctx context.Context, overlay string, t target) (string, error) {
	o, err := l.test(ctx, t, "-overlay", overlay)
	switch {
	case err != nil:
		return "", err
	case o.passed:
		return "", fmt.Errorf("%w: %s", errSurvives, t)
	case !o.failed || o.panicked:
		return "", fmt.Errorf("%w: %s: %s", errBroke, t, o.first())
	}
	return o.first(), nil
}

// outcome is what `go test -json` told of one test.
type outcome struct {
	passed, failed, panicked bool
	said                     []string // lines of the test and its subtests
	other                    []string // all other lines
}

// first is the first line by which a test said what is wrong.
func (o *outcome) first() string {
	for _, line := range append(o.said, o.other...) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") && line != "FAIL" {
			return line
		}
	}
	return "it said nothing"
}

// test runs one test, in the short mode: crash points then try a sample of the
// pairs, which is plenty for a rule that is broken. An error is one of running
// the test at all.
func (l *lab) test(ctx context.Context, t target, more ...string) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	args := append([]string{"test", "-json", "-short", "-count=1", "-timeout", l.limit.String(), "-run", "^" + t.test + "$"}, more...)
	c := l.command(ctx, append(args, "./"+t.pkg)...)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	err := c.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w: %w", t, errBroke, context.Cause(ctx))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	o, err := parse(&out, t.test)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	if !o.passed && !o.failed {
		return nil, fmt.Errorf("%w: %s did not run: %s%s", errBroke, t, lastLines(stderr.Bytes()), o.first())
	}
	return o, nil
}

// parse reads what `go test -json` printed of one top-level test.
func parse(r io.Reader, test string) (*outcome, error) {
	o := &outcome{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("go test said %q: %w", lines.Text(), err)
		}
		if strings.HasPrefix(e.Output, "panic: ") || strings.HasPrefix(e.Output, "fatal error: ") {
			o.panicked = true
		}
		of := e.Test == test || strings.HasPrefix(e.Test, test+"/")
		switch {
		case e.Action == "output" && of:
			o.said = append(o.said, e.Output)
		case e.Action == "output" || e.Action == "build-output":
			o.other = append(o.other, e.Output)
		case e.Action == "pass" && e.Test == test:
			o.passed = true
		case e.Action == "fail" && e.Test == test:
			o.failed = true
		}
	}
	return o, lines.Err()
}

func lastLines(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
