package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/config"
)

// configFlags are the flags that stand for keys of the configuration.
type configFlags struct {
	file string
	set  *pflag.FlagSet
	// joins: the node is about to join a cluster. One that did before is known by
	// its data dir.
	joins bool
}

// addNodeFlags is addConfigFlags with those that only a running node needs.
func addNodeFlags(cmd *cobra.Command) *configFlags {
	f := addConfigFlags(cmd)
	f.set.String("cluster", "", "address for the other nodes; port 0 takes a free one (default "+config.DefaultCluster+")")
	f.set.String("gossip", "", "address for gossip; port 0 takes a free one (default "+config.DefaultGossip+")")
	f.set.String("advertise", "", "host by which the other nodes know this one (default that of --cluster and --gossip)")
	f.set.String("zone", "", "where the node stands, such as a data centre")
	return f
}

func addConfigFlags(cmd *cobra.Command) *configFlags {
	f := &configFlags{set: cmd.Flags()}
	f.set.StringVar(&f.file, "config", "", "YAML file with the configuration (DESNODE_CONFIG)")
	f.set.String("data-dir", "", "folder of all that the node keeps (default ./"+config.DefaultDataDir+")")
	f.set.String("http", "", "address to listen on; port 0 takes a free one (default "+config.DefaultHTTP+")")
	return f
}

// load reads the configuration that the command line asks for.
func (f *configFlags) load() (config.Config, error) {
	in := config.Input{File: cmp.Or(f.file, os.Getenv("DESNODE_CONFIG")), Environ: os.Environ(), Flags: map[string]string{}}
	in.Joined = func(dataDir string) bool { return f.joins || node.HasJoined(dataDir) }
	for _, k := range config.Keys() {
		if flag := f.set.Lookup(strings.ReplaceAll(k.Name, "_", "-")); flag != nil && flag.Changed {
			in.Flags[k.Name] = flag.Value.String()
		}
	}
	c, err := config.Load(in)
	if err != nil {
		return config.Config{}, &usageError{err}
	}
	return c, nil
}

// validity is what config validate prints as JSON.
type validity struct {
	Valid  bool           `json:"valid"`
	Errors []string       `json:"errors"`
	Values []config.Value `json:"values,omitempty"`
}

func (a *app) config() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return usage("say what to do: validate") },
	}
	validate := &cobra.Command{
		Use:   "validate",
		Short: "Say what is wrong with the configuration, or print what is in effect",
		Long:  "Reads the file, the environment and the flags as start does, lists every error, and touches nothing else. Exit code 2 when there is one.",
		Args:  cobra.NoArgs,
	}
	flags := addNodeFlags(validate)
	validate.RunE = func(*cobra.Command, []string) error {
		c, err := flags.load()
		v := validity{Valid: err == nil, Errors: []string{}}
		if err != nil {
			v.Errors = strings.Split(err.Error(), "\n")
		} else {
			v.Values = c.Values()
		}
		return errors.Join(a.print(v, v.write), err)
	}
	cmd.AddCommand(validate)
	return cmd
}

// write prints what is in effect; errors go to stderr by way of the exit.
func (v validity) write(w io.Writer) error {
	if !v.Valid {
		return nil
	}
	t := newTable(w)
	for _, value := range v.Values {
		t.row(value.Key, value.Value)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "The configuration is valid.")
	return err
}
