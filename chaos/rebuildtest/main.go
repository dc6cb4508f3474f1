// Command rebuildtest archives many small files from Postgres, takes away the
// node's data dir and desnode's columns in the table, and has
// `desnode rebuild --source` bring both back while it reads. It exits 1 when the
// manifest or the states are not those of before, when a read is answered by
// anything but the file or a 503, or when payload was read from the store.
//
// Not for: rebuilds that are cut or that find damaged packs, which the tests of
// node/rebuild make; several nodes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type options struct {
	bin   string
	files int
	store string // folder or s3
	seed  uint64
	dir   string
	keep  bool
	form  string // text or json
	limit time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := realMain(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func realMain(ctx context.Context, args []string, out, errs io.Writer) int {
	var o options
	fs := flag.NewFlagSet("rebuildtest", flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.StringVar(&o.bin, "bin", "bin/desnode", "the desnode `binary`")
	fs.IntVar(&o.files, "files", 1_000_000, "how many files to archive")
	fs.StringVar(&o.store, "store", "folder", "the object store: `folder` or s3")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the files")
	fs.StringVar(&o.dir, "dir", "", "work in this new `folder`; default a temporary one")
	fs.BoolVar(&o.keep, "keep", false, "keep the folder")
	fs.StringVar(&o.form, "o", "text", "print `text` or json")
	fs.DurationVar(&o.limit, "limit", 3*time.Hour, "give up after this long")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if o.files < 1 || o.store != "folder" && o.store != "s3" || o.form != "text" && o.form != "json" || fs.NArg() > 0 {
		_, _ = fmt.Fprintln(errs, "rebuildtest: bad arguments; see -h")
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, errors.New("the time limit (-limit) is over"))
	defer cancel()
	rep, err := o.run(ctx, errs)
	if err != nil {
		_, _ = fmt.Fprintln(errs, "rebuildtest:", err)
		return 1
	}
	if err := rep.print(out, o.form); err != nil {
		_, _ = fmt.Fprintln(errs, "rebuildtest:", err)
		return 1
	}
	if len(rep.Missed) > 0 {
		return 1
	}
	return 0
}

// run works in a folder of its own, which it removes.
func (o *options) run(ctx context.Context, errs io.Writer) (rep *report, err error) {
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "desnode-rebuildtest-"); err != nil {
			return nil, err
		}
	} else if err = os.Mkdir(o.dir, 0o755); err != nil { // #nosec G301 -- Postgres's user looks into it
		return nil, err
	}
	if o.dir, err = filepath.EvalSymlinks(o.dir); err != nil {
		return nil, err
	}
	defer func() {
		if o.keep {
			_, _ = fmt.Fprintln(errs, "rebuildtest: kept", o.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(o.dir))
	}()
	return o.trial(ctx, errs)
}

// report is what a run came to.
type report struct {
	Files   int            `json:"files"`
	Store   string         `json:"store"`
	Packs   int            `json:"packs"`
	States  map[string]int `json:"states"`
	Phases  []phase        `json:"phases"`
	Seconds float64        `json:"seconds"` // from the start of the process to done

	Requests   int64 `json:"requests"`    // of the rebuild, at the store
	Bytes      int64 `json:"bytes"`       // got by it
	ExtraBytes int64 `json:"extra_bytes"` // all that packs hold beside payload
	Rows       int64 `json:"rows"`        // written back
	PeakMemory int64 `json:"peak_memory"` // of the process, bytes

	Reads reads `json:"reads"`

	Missed []string `json:"missed"` // bars; none: passed
}

// phase is what the rebuild was seen at, and for how long.
type phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// reads are those made while the rebuild ran.
type reads struct {
	Right       int      `json:"right"`
	Unavailable int      `json:"unavailable"` // answered by 503
	Failed      int      `json:"failed"`
	Failures    []string `json:"failures,omitempty"` // some of them
	FirstRight  float64  `json:"first_right"`        // seconds after the start of the process
}

func (r *report) hold(ok bool, format string, args ...any) {
	if !ok {
		r.Missed = append(r.Missed, fmt.Sprintf(format, args...))
	}
}

func (r *report) print(out io.Writer, form string) error {
	if form == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%d files in %d packs (%s), states %v\n", r.Files, r.Packs, r.Store, r.States)
	fmt.Fprintf(&text, "rebuilt in %.1fs:", r.Seconds)
	for _, p := range r.Phases {
		fmt.Fprintf(&text, " %s %.1fs", p.Name, p.Seconds)
	}
	fmt.Fprintf(&text, "\n%d requests, %d bytes got (packs hold %d beside payload), %d rows written back, at most %d MiB\n",
		r.Requests, r.Bytes, r.ExtraBytes, r.Rows, r.PeakMemory>>20)
	fmt.Fprintf(&text, "reads meanwhile: %d right, the first after %.1fs; %d answered by 503; %d failed\n",
		r.Reads.Right, r.Reads.FirstRight, r.Reads.Unavailable, r.Reads.Failed)
	for _, m := range r.Missed {
		fmt.Fprintln(&text, "MISSED:", m)
	}
	if len(r.Missed) == 0 {
		fmt.Fprintln(&text, "PASSED")
	}
	_, err := out.Write(text.Bytes())
	return err
}
