package cli

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressEvery is the least time between two lines of progress.
const progressEvery = 2 * time.Second

// progress shows how far a piece of work is: as a bar on a terminal, as log
// lines elsewhere. Its methods are for one goroutine.
type progress struct {
	bar   *progressbar.ProgressBar // nil where there is no terminal
	log   *slog.Logger
	what  string
	now   func() time.Time
	shown time.Time
}

func (a *app) progress(what string) *progress {
	p := &progress{what: what, log: slog.New(slog.NewJSONHandler(a.stderr, nil)), now: time.Now}
	p.shown = p.now()
	if isTerminal(a.stderr) {
		p.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(a.stderr),
			progressbar.OptionSetDescription(what),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish(),
		)
	}
	return p
}

// update shows bytes of total done; total 0 is not known.
func (p *progress) update(bytes, total, files int64) {
	if p.bar != nil {
		if total > 0 {
			p.bar.ChangeMax64(total)
		}
		_ = p.bar.Set64(bytes)
		return
	}
	if now := p.now(); now.Sub(p.shown) >= progressEvery {
		p.shown = now
		p.log.Info(p.what, "files", files, "bytes", bytes, "total_bytes", total)
	}
}

// done removes the bar.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
