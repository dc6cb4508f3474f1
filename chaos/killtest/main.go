// Command killtest ends a desnode with SIGKILL at random moments while it
// imports, archives and deletes, and holds what is left against a ledger.
// chaos/DESIGN.md says what must hold. It exits 1 and lists what did not.
//
// Not for: power cuts (the page cache survives a SIGKILL), lost messages,
// more than one node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type options struct {
	bin    string
	kills  int
	files  int
	sample int
	seed   uint64
	dir    string
	keep   bool
	limit  time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := realMain(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func realMain(ctx context.Context, args []string) int {
	var o options
	fs := flag.NewFlagSet("killtest", flag.ContinueOnError)
	fs.StringVar(&o.bin, "bin", "bin/desnode", "the desnode `binary`")
	fs.IntVar(&o.kills, "kills", 50, "how often to kill the node")
	fs.IntVar(&o.files, "files", 10000, "how many files to archive")
	fs.IntVar(&o.sample, "sample", 500, "files read after each restart")
	fs.Uint64Var(&o.seed, "seed", 0, "seed of files and moments; 0 picks one")
	fs.StringVar(&o.dir, "dir", "", "work in this new `folder`; default a temporary one")
	fs.BoolVar(&o.keep, "keep", false, "keep the folder; it is always kept after a violation")
	fs.DurationVar(&o.limit, "limit", 15*time.Minute, "give up after this long")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if o.kills < 0 || o.files < 1 || o.sample < 0 || fs.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "killtest: bad arguments; see -h")
		return 2
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1 << 32) // #nosec G404 -- not a secret
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, errors.New("the time limit (-limit) is over"))
	defer cancel()
	violations, err := o.run(ctx)
	for _, v := range violations {
		fmt.Println("VIOLATION:", v)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "killtest:", err)
		return 1
	case len(violations) > 0:
		fmt.Printf("FAILED: %d violation(s), seed %d\n", len(violations), o.seed)
		return 1
	}
	fmt.Printf("PASSED: %d kills, %d files, seed %d\n", o.kills, o.files, o.seed)
	return 0
}

// run prepares the folder, drives the node through its lives and returns what
// did not hold. An error means that the test itself could not go on.
func (o *options) run(ctx context.Context) (violations []string, err error) {
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "desnode-killtest-"); err != nil {
			return nil, err
		}
	} else if err = os.Mkdir(o.dir, 0o700); err != nil {
		return nil, err
	}
	if o.dir, err = filepath.EvalSymlinks(o.dir); err != nil {
		return nil, err
	}
	fmt.Printf("killtest: seed %d, %d kills, %d files, in %s\n", o.seed, o.kills, o.files, o.dir)
	r := newRun(o)
	defer func() {
		r.node.kill()
		violations = r.bad.list()
		if o.keep || err != nil || len(violations) > 0 {
			fmt.Println("killtest: kept", o.dir)
			return
		}
		err = os.RemoveAll(o.dir)
	}()
	if err = r.prepare(); err != nil {
		return nil, err
	}
	if err = r.lives(ctx); err == nil {
		err = r.finish(ctx)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return nil, err
}
