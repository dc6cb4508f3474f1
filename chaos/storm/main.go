// Command storm runs a cluster over a real Postgres and a real S3 server while
// customers insert, change and read files, kills, freezes, wipes and cuts off
// its nodes, breaks their disks and steps their clocks, takes the servers away
// or loses their answers, several of these at once, and holds what is served,
// stored and deleted against a ledger that no node has seen. chaos/DESIGN.md
// says what must hold.
//
// The seed decides the files, the load and the plan of faults: -plan prints
// that. What the machine cannot do (as root: hosts and file systems of the
// nodes' own) is said and left out. It ends within -for and three minutes,
// exits 1 when a bar is missed, and then keeps its folder.
//
// Not for: one fault at a chosen step (the crash points' tests), scenarios with
// bars of their own (chaos/cluster).
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	bin    string
	dir    string
	report string
	length time.Duration
	seed   uint64
	nodes  int
	kinds  []*kind
	keep   bool
	load   loadConfig
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := realMain(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func realMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	fs := flag.NewFlagSet("storm", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.bin, "bin", "bin/desnode", "the desnode `binary`, built with -tags chaos for clocks that jump")
	fs.StringVar(&o.dir, "dir", "", "make the run's folder in this `folder`; default the temporary one")
	fs.StringVar(&o.report, "report", "chaos", "write report.html and report.json to this `folder`")
	fs.DurationVar(&o.length, "for", 5*time.Minute, "how long load and faults last")
	fs.Uint64Var(&o.seed, "seed", 0, "seed of files, load and plan; 0 picks one")
	fs.IntVar(&o.nodes, "nodes", 5, "nodes of the cluster, 3 or more")
	fs.BoolVar(&o.keep, "keep", false, "keep the run's folder; that of a failed run is always kept")
	names := fs.String("faults", "", "only these `kinds`, separated by commas")
	only := fs.Bool("plan", false, "print the plan of faults and end")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	var err error
	if o.kinds, err = choose(*names); err != nil || fs.NArg() > 0 || o.nodes < 3 || o.length <= 0 {
		say(stderr, "storm: bad arguments; see -h: %v\n", err)
		return 2
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1 << 32)
	}
	say(stderr, "storm: seed %d\n", o.seed)
	if *only {
		show(stdout, plan(o.seed, o.length, o.nodes, o.kinds))
		return 0
	}
	if o.bin, err = filepath.Abs(o.bin); err == nil {
		_, err = os.Stat(o.bin)
	}
	if err != nil {
		say(stderr, "storm: %v\n", err)
		return 2
	}
	return o.run(ctx, stdout, stderr)
}

// say prints; when that fails, nobody is there to be told.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
