package cli

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// joinnode VARIABLE FLAGS…: starts a node by the line that 'desnode token' has
// just printed, and puts its URL into the variable.
func joinNodeByLine(ts *testscript.TestScript, _ bool, args []string) {
	line := strings.Fields(ts.ReadFile("stdout"))
	if len(line) != 5 || line[0] != "desnode" || line[1] != "join" {
		ts.Fatalf("stdout is no line to join by: %q", line)
	}
	n, err := launch{log: ts.MkAbs(args[0] + ".log"), args: append(line[1:], args[1:]...)}.start(context.Background())
	ts.Check(err)
	ts.Defer(func() { _ = n.kill() })
	ts.Setenv(args[0], "http://"+n.addr)
}

// untilPatience is how long a script waits for a cluster to get there.
const untilPatience = 30 * time.Second

// until PATTERN PROGRAM ARGS…: runs the program until a line of what it prints
// matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.After(untilPatience)
	for tick := time.NewTicker(upkeepPoll); ; {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if pattern.MatchString(ts.ReadFile("stdout")) {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("no line matches %s", args[0])
		}
	}
}
