package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// logSink takes memberlist's log lines. They describe deaths and lost packets,
// which are gossip's normal work, so its errors are shown as information. What
// it refuses for its key or label reaches us as a line only: those are counted.
type logSink struct{ g *Gossip }

// Write takes one line.
func (s logSink) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level, text := levelOf(text)
	switch {
	case strings.Contains(text, "unacceptable label"):
		s.g.metrics.refused.WithLabelValues(reasonLabel).Inc()
		s.g.warn(reasonLabel, text)
	case level >= slog.LevelInfo && (strings.Contains(text, "crypt") || strings.Contains(text, "No installed keys")):
		s.g.metrics.refused.WithLabelValues(reasonKey).Inc()
		s.g.warn(reasonKey, text)
	case strings.Contains(text, "ignoring alive message"), strings.Contains(text, "Conflicting address"):
		// Told by the delegate.
	default:
		s.g.log.Log(context.Background(), level, "gossip: "+text)
	}
	return len(line), nil
}

// levelOf takes memberlist's prefixes off.
func levelOf(text string) (slog.Level, string) {
	level := slog.LevelInfo
	if rest, ok := strings.CutPrefix(text, "["); ok {
		name, rest, ok := strings.Cut(rest, "] ")
		if ok {
			text = rest
		}
		if name == "DEBUG" {
			level = slog.LevelDebug
		}
	}
	return level, strings.TrimPrefix(text, "memberlist: ")
}

// refusal is what a delegate wants to be logged.
type refusal struct {
	reason string
	err    error
}

// refuse hands a refusal to the goroutine that logs, unless that is busy.
func (g *Gossip) refuse(reason string, err error) {
	select {
	case g.refusals <- refusal{reason, err}:
	default:
	}
}

// warn logs what was refused for a reason, every ten seconds at most.
func (g *Gossip) warn(reason, what string) {
	g.quiet[reason].Do(func() {
		g.log.Warn("gossip refused", "reason", reason, "what", what)
	})
}

func newQuiet() map[string]*rate.Sometimes {
	quiet := map[string]*rate.Sometimes{}
	for _, reason := range []string{reasonKey, reasonLabel, reasonRemoved, reasonFormat, reasonMeta, reasonName, reasonConflict} {
		quiet[reason] = &rate.Sometimes{First: 1, Interval: 10 * time.Second}
	}
	return quiet
}
