// Command cluster starts desnodes as processes, several to a cluster, kills,
// freezes, cuts off and restarts them, and holds what is served, stored and
// deleted meanwhile against a ledger that no node has seen. Two scenarios
// measure instead: packing with one node and with three, and a read through a
// node that does not own the file. chaos/DESIGN.md says what must hold.
//
// It prints what each scenario found, as text or with -o json, and exits 1
// when a bar is missed. -short takes seconds where the bars ask for minutes;
// `go test ./chaos/cluster` runs it so.
//
// Not for: one node alone (chaos/killtest), sources and stores that fail
// (chaos/outage), lost and reordered packets one by one (the tests of
// transport, ring/gossip and raftmeta, in virtual time).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

// options are what the command line says.
type options struct {
	bin   string
	run   string
	dir   string
	seed  uint64
	short bool
	keep  bool
	json  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := realMain(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func realMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	form := "text"
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.bin, "bin", "bin/desnode", "the desnode `binary`")
	fs.StringVar(&o.run, "run", "", "run only the scenarios that match this `regexp`")
	fs.StringVar(&o.dir, "dir", "", "make the scenarios' folders in this `folder`; default the temporary one")
	fs.Uint64Var(&o.seed, "seed", 0, "seed of files and choices; 0 picks one")
	fs.BoolVar(&o.short, "short", false, "seconds in place of minutes")
	fs.BoolVar(&o.keep, "keep", false, "keep the folders; that of a failed scenario is always kept")
	fs.StringVar(&form, "o", form, "`form` of the report: text or json")
	list := fs.Bool("list", false, "list the scenarios")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	o.json = form == "json"
	chosen, err := o.choose()
	if err != nil || fs.NArg() > 0 || form != "text" && form != "json" {
		say(stderr, "cluster: bad arguments; see -h: %v\n", err)
		return 2
	}
	if *list {
		for _, s := range chosen {
			say(stdout, "%-12s %s\n", s.name, s.what)
		}
		return 0
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1 << 32)
	}
	if o.bin, err = filepath.Abs(o.bin); err == nil {
		_, err = os.Stat(o.bin)
	}
	if err != nil {
		say(stderr, "cluster: %v\n", err)
		return 2
	}
	return o.runAll(ctx, chosen, stdout, stderr)
}

// say prints; when that fails, nobody is there to be told.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// choose returns the scenarios that -run names, in their order.
func (o options) choose() (chosen []scenario, err error) {
	matches, err := regexp.Compile(o.run)
	if err != nil {
		return nil, err
	}
	for _, s := range scenarios() {
		if matches.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no such scenario")
	}
	return chosen, nil
}

// runAll runs scenarios one after the other and prints what each found.
func (o options) runAll(ctx context.Context, chosen []scenario, stdout, stderr io.Writer) (code int) {
	say(stderr, "cluster: seed %d\n", o.seed)
	all := []*report{} // an array in JSON, whatever happens
	for _, s := range chosen {
		if ctx.Err() != nil {
			code = 1
			break
		}
		say(stderr, "cluster: %s: %s\n", s.name, s.what)
		rep := o.try(ctx, s, stderr)
		if all = append(all, rep); !rep.OK {
			code = 1
		}
		if !o.json {
			rep.print(stdout)
		}
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(all); err != nil {
			say(stderr, "cluster: %v\n", err)
			return 1
		}
	}
	return code
}
