package cli

import (
	"fmt"
	"io"
	"net/http"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
)

func (a *app) throttle() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "throttle",
		Short: "Show or set how fast and when files are archived",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return usage("say what to do: show, set or clear") },
	}
	cmd.AddCommand(a.clients(a.throttleShow(), a.throttleSet(), a.throttleClear())...)
	return cmd
}

func (a *app) throttleShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Print limits, pauses, what stands still and why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.pace(cmd, http.MethodGet, api.PathThrottle, nil)
		},
	}
}

func (a *app) throttleSet() *cobra.Command {
	var l api.ThrottleLimits
	var bytesPerSecond, bytesPerDay config.Size
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Set the limits of the whole cluster, in the place of those that were",
		Long: `Sets the limits of the whole cluster. What is not given is not limited: the
limits before, and those of the configuration, no longer hold.`,
		Example: `  desnode throttle set --files-per-day 2000000 --window "Mon-Fri 22:00-06:00 Europe/Warsaw" --window "Sat,Sun 00:00-24:00 Europe/Warsaw"
  desnode throttle set --bytes-per-second 20MiB --for mark,delete`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limits := []string{"files-per-second", "files-per-day", "bytes-per-second", "bytes-per-day", "window"}
			if !slices.ContainsFunc(limits, cmd.Flags().Changed) {
				return usage("say which limit or window; --files-per-day 0 alone lifts all, 'desnode throttle clear' puts those of the configuration back")
			}
			l.BytesPerSecond, l.BytesPerDay = int64(bytesPerSecond), int64(bytesPerDay)
			return a.pace(cmd, http.MethodPut, api.PathThrottle, l)
		},
	}
	f := cmd.Flags()
	f.Int64Var(&l.FilesPerSecond, "files-per-second", 0, "files a second; 0: no limit")
	f.Int64Var(&l.FilesPerDay, "files-per-day", 0, "files a day; 0: no limit")
	f.Var(sizeFlag{&bytesPerSecond}, "bytes-per-second", "bytes a second, such as 20MiB")
	f.Var(sizeFlag{&bytesPerDay}, "bytes-per-day", "bytes a day, such as 500GiB")
	f.StringArrayVar(&l.Windows, "window", nil, `when work may begin, such as "Mon-Fri 22:00-06:00 Europe/Warsaw"; may be repeated`)
	f.StringVar(&l.Zone, "zone", "", "zone whose midnight ends a day (default UTC)")
	f.StringSliceVar(&l.For, "for", nil, "the work that the limits hold for: mark, pack, delete (default mark)")
	return cmd
}

func (a *app) throttleClear() *cobra.Command {
	return &cobra.Command{
		Use:   "clear",
		Short: "Put the limits of the configuration back in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.pace(cmd, http.MethodDelete, api.PathThrottle, nil)
		},
	}
}

func (a *app) pauseWork() *cobra.Command {
	var req api.PauseRequest
	var until string
	cmd := &cobra.Command{
		Use:   "pause --reason REASON",
		Short: "Stop marking, packing and deleting in the whole cluster",
		Long: `Stops marking, packing and deleting, or some of them, in the whole cluster.
Steps under way end first; reads go on.`,
		Example: `  desnode pause --reason "database upgrade" --until 2h
  desnode pause --reason audit --only delete --until 2026-12-24T18:00:00+01:00`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Until, err = parseUntil(until, time.Now()); err != nil {
				return err
			}
			if strings.TrimSpace(req.Reason) == "" {
				return usage("say why with --reason")
			}
			if req.By == "" {
				req.By = whoami()
			}
			return a.pace(cmd, http.MethodPost, api.PathPause, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Reason, "reason", "", "why, for the others (required)")
	f.StringVar(&until, "until", "", "when it ends by itself: a time (RFC 3339) or how long (2h30m)")
	f.StringVar(&req.By, "by", "", "who pauses it (default: the user of this command)")
	f.StringSliceVar(&req.Work, "only", nil, "only this work: mark, pack, delete (default all)")
	return cmd
}

func (a *app) resumeWork() *cobra.Command {
	var req api.ResumeRequest
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "End pauses",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.pace(cmd, http.MethodPost, api.PathResume, req)
		},
	}
	cmd.Flags().StringSliceVar(&req.Work, "only", nil, "only this work: mark, pack, delete (default all)")
	return cmd
}

// parseUntil reads a time, or a span from now on; empty: never.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d <= 0 {
			return time.Time{}, usage("--until: the span must be more than nothing")
		}
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usage(fmt.Sprintf("--until: %q is neither a time such as 2026-12-24T18:00:00+01:00 nor a span such as 2h30m", s))
	}
	return t, nil
}

// whoami returns the user of this command, or an empty string.
func whoami() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// sizeFlag is a config.Size as a flag.
type sizeFlag struct{ size *config.Size }

func (f sizeFlag) String() string {
	if f.size == nil || *f.size == 0 {
		return ""
	}
	return f.size.String()
}

func (f sizeFlag) Set(s string) (err error) {
	*f.size, err = config.ParseSize(s)
	return err
}

func (sizeFlag) Type() string { return "SIZE" }

// pace sends one request about the pace and prints the pace that follows.
func (a *app) pace(cmd *cobra.Command, method, path string, body any) error {
	return show(cmd.Context(), a, method, path, body, writeThrottle)
}

func writeThrottle(w io.Writer, th api.Throttle) error {
	t := newTable(w)
	from := "set"
	if th.Configured {
		from = "of the configuration"
	}
	t.row("limits", limitsText(th.Limits)+" ("+from+")")
	throttleRows(t, th)
	return t.flush()
}

// throttleRows says what goes slowly or stands still.
func throttleRows(t *table, th api.Throttle) {
	if th.Factor < 1 {
		t.row("slowed down", fmt.Sprintf("to %.0f %%", 100*th.Factor))
	}
	for _, r := range th.Reasons {
		t.row("", printable(r.Code)+": "+printable(r.Text))
	}
	for _, p := range th.Work {
		t.row(printable(p.Work), workText(p))
	}
}

func workText(p api.WorkPace) string {
	var parts []string
	switch {
	case p.Held == "pause":
		parts = append(parts, "paused: "+printable(p.Reason))
		if p.By != "" {
			parts = append(parts, "by "+printable(p.By))
		}
	case p.Held == "window":
		parts = append(parts, "held: no window is open")
	case p.Held == "day":
		parts = append(parts, "held: the day's budget is used up")
	case p.Held != "":
		parts = append(parts, "held: "+printable(p.Held)+" "+printable(p.Reason))
	case p.Waiting:
		parts = append(parts, "goes on, waits for its pace")
	default:
		parts = append(parts, "goes on")
	}
	if !p.Until.IsZero() {
		parts = append(parts, "until "+formatTime(p.Until))
	}
	if p.UsedFiles > 0 || p.UsedBytes > 0 {
		parts = append(parts, fmt.Sprintf("today %s, %s", count(p.UsedFiles, "file"), formatBytes(p.UsedBytes)))
	}
	if !p.NextWindow.IsZero() && p.Held == "" {
		parts = append(parts, "its window closes "+formatTime(p.NextWindow))
	}
	if !p.Limited {
		parts = append(parts, "not limited")
	}
	return strings.Join(parts, ", ")
}

func limitsText(l api.ThrottleLimits) string {
	var parts []string
	for _, limit := range []struct {
		n    int64
		text func(int64) string
		per  string
	}{
		{l.FilesPerSecond, func(n int64) string { return count(n, "file") }, "a second"},
		{l.FilesPerDay, func(n int64) string { return count(n, "file") }, "a day"},
		{l.BytesPerSecond, formatBytes, "a second"},
		{l.BytesPerDay, formatBytes, "a day"},
	} {
		if limit.n > 0 {
			parts = append(parts, limit.text(limit.n)+" "+limit.per)
		}
	}
	for _, w := range l.Windows {
		parts = append(parts, printable(w))
	}
	if l.Zone != "" {
		parts = append(parts, "days of "+printable(l.Zone))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, "; ") + "; for " + printable(strings.Join(l.For, ", "))
}
