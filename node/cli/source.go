package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
)

// adminURLVariable keeps a password out of the process list.
const adminURLVariable = "DESNODE_ADMIN_URL"

func (a *app) source() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "source",
		Short: "Prepare and check the Postgres database of a source",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return usage("say what to do: init or check") },
	}
	cmd.AddCommand(a.sourceInit(), a.sourceCheck())
	return cmd
}

// initFlags are those of source init.
type initFlags struct {
	config  *configFlags
	binding string
	file    string
	admin   string
	apply   bool
	options migrations.ScriptOptions
}

func (a *app) sourceInit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init [NAME]",
		Short: "Print the SQL script that prepares a source's database",
		Long: `Prints one script that psql can run, and run again: desnode's schema, the columns and indexes or the side table,
the four roles if absent and their grants; the way back stands in comments at its end. It executes nothing and connects
nowhere unless --apply says so. NAME may be left out when the configuration has one Postgres source.

The script needs the table's owner or a superuser. With --apply that is the user of --admin-url, or of ` + adminURLVariable + `,
or of the source's own url.`,
		Args: cobra.MaximumNArgs(1),
	}
	f := initFlags{config: addConfigFlags(cmd)}
	flags := cmd.Flags()
	flags.StringVar(&f.binding, "binding", "", "table or side, in place of the configured one")
	flags.StringVarP(&f.file, "file", "f", "", "write the script to this file")
	flags.BoolVar(&f.apply, "apply", false, "do what the script does, now")
	flags.StringVar(&f.admin, "admin-url", "", "connection of the owner or a superuser, for --apply ("+adminURLVariable+")")
	flags.BoolVar(&f.options.Login, "login", false, "the four roles may log in themselves")
	flags.BoolVar(&f.options.Trigger, "trigger", false, "add the trigger that refuses illegal changes of state to the customer's table")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.runSourceInit(cmd, &f, args) }
	return cmd
}

func (a *app) runSourceInit(cmd *cobra.Command, f *initFlags, args []string) error {
	c, err := f.config.load()
	if err != nil {
		return err
	}
	name, s, err := postgresSource(c, args)
	if err != nil {
		return err
	}
	if f.binding != "" {
		if f.binding != config.BindingTable && f.binding != config.BindingSide {
			return usage("--binding is table or side")
		}
		s.Binding = f.binding
	}
	if f.apply && f.file != "" {
		return usage("--apply executes, --file writes: choose one")
	}
	f.options.Delete = c.Archive.DeleteSource
	m := s.Mapping(name)
	if !f.apply {
		script, err := migrations.InitScript(m, f.options)
		if err != nil {
			return mappingError(err)
		}
		if f.file != "" {
			return os.WriteFile(f.file, []byte(script), 0o644)
		}
		_, err = io.WriteString(a.stdout, script)
		return err
	}
	admin := cmp.Or(f.admin, os.Getenv(adminURLVariable), s.URL)
	if admin == "" {
		return usage("say as whom: --admin-url or " + adminURLVariable)
	}
	notices, err := migrations.Apply(cmd.Context(), admin, m, f.options)
	if err != nil {
		return mappingError(err)
	}
	result := struct {
		Source  string   `json:"source"`
		Notices []string `json:"notices"`
	}{name, append([]string{}, notices...)}
	return a.print(result, func(w io.Writer) error {
		for _, n := range notices {
			if _, err := fmt.Fprintln(w, strings.TrimPrefix(n, "desnode: ")); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, "The database of source %s is ready.\n", name)
		return err
	})
}

func (a *app) sourceCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [NAME]",
		Short: "Check whether a source's database is as the contract demands",
		Long: `Looks at columns, types, uniqueness, indexes, plans and privileges, and tries each role's statements; all of it is
taken back. Exit code 1 when marking would refuse to start; warnings leave it at 0. Without a NAME every Postgres source
is checked.`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := addConfigFlags(cmd)
	all := cmd.Flags().Bool("all-roles", false, "check the roles that other nodes use, too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := flags.load()
		if err != nil {
			return err
		}
		names := args
		if len(args) == 0 {
			names = postgresSources(c)
		}
		if len(names) == 0 {
			return usage("the configuration has no Postgres source")
		}
		var reports []source.Report
		var unfit []error
		for _, name := range names {
			_, s, err := postgresSource(c, []string{name})
			if err != nil {
				return err
			}
			cfg := postgresConfig(name, s, c)
			if *all {
				cfg.Roles = nil
			}
			r, err := source.CheckPostgres(cmd.Context(), cfg, source.CheckScope{Delete: c.Archive.DeleteSource})
			if err != nil {
				return mappingError(unanswered(err))
			}
			reports = append(reports, r)
			if r.Err() != nil {
				unfit = append(unfit, fmt.Errorf("%w: source %s; what fails stands in the report", source.ErrUnfit, name))
			}
		}
		return errors.Join(a.print(reports, func(w io.Writer) error { return writeReports(w, reports) }), errors.Join(unfit...))
	}
	return cmd
}

// unanswered marks errors of a database that can't be asked, but not those of
// a mapping that makes no sense.
func unanswered(err error) error {
	if errors.Is(err, migrations.ErrMapping) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}

// writeReports prints what was found, the bad ones with why and what to do.
func writeReports(w io.Writer, reports []source.Report) error {
	for _, r := range reports {
		t := newTable(w)
		for _, f := range r.Findings {
			t.row(f.Level, r.Source, f.Check, printable(f.What))
		}
		if err := t.flush(); err != nil {
			return err
		}
		for _, f := range r.Findings {
			if f.Level == source.LevelOK {
				continue
			}
			text := fmt.Sprintf("\n%s %s: %s\n", f.Level, f.Check, printable(f.What))
			if f.Why != "" {
				text += "  why:  " + f.Why + "\n"
			}
			if f.Cure != "" {
				text += "  cure: " + printable(f.Cure) + "\n"
			}
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// mappingError makes a wrong mapping a wrong configuration.
func mappingError(err error) error {
	if errors.Is(err, migrations.ErrMapping) {
		return &usageError{err}
	}
	return err
}

// postgresSources lists the Postgres sources by name.
func postgresSources(c config.Config) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
		if c.Sources[name].Postgres() {
			names = append(names, name)
		}
	}
	return names
}

// postgresSource returns the source that args name, or the only one.
func postgresSource(c config.Config, args []string) (string, config.Source, error) {
	names := postgresSources(c)
	if len(args) == 0 {
		switch len(names) {
		case 1:
			return names[0], c.Sources[names[0]], nil
		case 0:
			return "", config.Source{}, usage("the configuration has no Postgres source")
		}
		return "", config.Source{}, usage("say which source: " + strings.Join(names, ", "))
	}
	s, ok := c.Sources[args[0]]
	switch {
	case !ok:
		return "", config.Source{}, usage(fmt.Sprintf("the configuration has no source %q", args[0]))
	case !s.Postgres():
		return "", config.Source{}, usage(fmt.Sprintf("source %q is no Postgres source; an embedded one prepares itself", args[0]))
	}
	return args[0], s, nil
}

// postgresConfig is how this node opens a configured source.
func postgresConfig(name string, s config.Source, c config.Config) source.PostgresConfig {
	return node.PostgresConfig(name, s, c)
}
