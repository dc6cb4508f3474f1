// Package cli is desnode's command line.
//
// Commands that need a cluster are clients: they talk HTTP to any node, with
// the wire types of node/api. start runs a node in this process; pack, config
// and doctor need none.
//
// Invariants: results go to stdout and everything else to stderr, so that a
// pipe gets results only. With -o json stdout holds JSON only. Exit codes are
// those of exit.go. Bytes that come from a pack or a node reach a terminal
// quoted when they are not printable.
//
// Not for: how anything is done. That is the node's.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// app is one run of the command line.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	joinCluster joinFunc
	output      output
	addr        string
	started     bool // a command was found and its arguments fit
}

// Main runs the command line and returns the exit code. SIGINT and SIGTERM end
// the command's context; a second one ends the process.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, joinCluster: joinNode}
	return a.run(ctx, args)
}

// run runs one command and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	wantShell(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = &usageError{err}
	}
	code := exitCode(ctx, err)
	_, _ = fmt.Fprintf(a.stderr, "desnode: %v\n", err)
	if code == exitUsage && !a.started {
		_, _ = fmt.Fprintf(a.stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "desnode",
		Short:         "Archive small files into large packs and serve each by name",
		Long:          "desnode archives small files into large immutable packs and serves each by name over HTTP.\n\n" + exitHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
		},
	}
	root.PersistentFlags().VarP(&a.output, "output", "o", "how results are printed: text or json")
	root.AddGroup(
		&cobra.Group{ID: groupNode, Title: "Run a node:"},
		&cobra.Group{ID: groupFiles, Title: "Archive and read (talks to a node):"},
		&cobra.Group{ID: groupCluster, Title: "The cluster (talks to a node):"},
		&cobra.Group{ID: groupAlone, Title: "Without a node:"},
	)
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group(groupNode, a.start(), a.join(), a.restore(), a.rebuild(), a.demo())
	group(groupFiles, a.clients(a.importDir(), a.archive(), a.get(), a.stat(), a.locate(), a.status(), a.health(), a.verify(), a.failed(), a.retry(), a.pauseWork(), a.resumeWork())...)
	group(groupFiles, a.throttle())
	group(groupCluster, a.token(), a.members(), a.keys(), a.backup())
	group(groupCluster, a.clients(a.leave(), a.ring(), a.recover())...)
	group(groupAlone, a.pack(), a.config(), a.source(), a.doctor(), a.bench(), a.version())
	root.SetHelpCommandGroupID(groupAlone)
	root.SetCompletionCommandGroupID(groupAlone)
	return root
}

// wantShell makes cobra's completion command refuse to run without a shell
// that it knows; left alone it prints its help as if all were well. The output
// of root must be set before.
func wantShell(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = cobra.ArbitraryArgs
			c.RunE = func(*cobra.Command, []string) error {
				return usage("say for which shell: bash, zsh, fish or powershell")
			}
		}
	}
}

const (
	groupNode    = "node"
	groupFiles   = "files"
	groupCluster = "cluster"
	groupAlone   = "alone"
)

// output is the form of results, a flag's value.
type output string

const (
	outputText output = "text"
	outputJSON output = "json"
)

// String returns the form in use; text when none was chosen.
func (o *output) String() string {
	if *o == "" {
		return string(outputText)
	}
	return string(*o)
}

// Set accepts text and json.
func (o *output) Set(s string) error {
	if v := output(s); v == outputText || v == outputJSON {
		*o = v
		return nil
	}
	return fmt.Errorf("want text or json")
}

// Type is what the help calls the value.
func (o *output) Type() string { return "FORMAT" }

// print writes a result to stdout: v as one JSON object, or what text writes.
func (a *app) print(v any, text func(w io.Writer) error) error {
	if a.output != outputJSON {
		return text(a.stdout)
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
