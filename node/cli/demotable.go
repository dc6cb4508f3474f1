package cli

import (
	"fmt"
	"io"
	"time"
)

// listedWrong is how many wrong files the report names.
const listedWrong = 20

// write writes the report for people.
func (r *demoReport) write(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", printable(r.Dir)); err != nil {
		return err
	}
	for _, part := range []func(io.Writer) error{r.writeStages, r.writeWork, r.writeFigures, r.writeLoad, r.writeRoutes, r.writeMembers, r.writeWrong} {
		if err := part(w); err != nil {
			return err
		}
	}
	return nil
}

func (r *demoReport) writeStages(w io.Writer) error {
	t := newTable(w)
	t.rights = 1
	t.row("", "FILES", "BYTES", "TIME", "FILES/S", "BYTES/S")
	for _, s := range r.Stages {
		took := time.Duration(s.Seconds * float64(time.Second))
		var files, bytes, filesRate, bytesRate string
		if s.Files > 0 {
			files, filesRate = formatCount(s.Files), formatCount(int64(perSecond(s.Files, took)))
		}
		if s.Bytes > 0 {
			bytes, bytesRate = formatBytes(s.Bytes), formatBytes(int64(perSecond(s.Bytes, took)))
		}
		t.row(s.Stage, files, bytes, formatSpan(took), filesRate, bytesRate)
	}
	t.row("all together", "", "", formatSeconds(r.Seconds))
	return t.flush()
}

// writeWork shows who has packed and verified.
func (r *demoReport) writeWork(w io.Writer) error {
	t := newTable(w)
	t.rights = 2
	t.row()
	t.row("WORK", "NODE", "PACKS", "FILES", "BYTES", "VERIFIED")
	for _, n := range r.Work {
		t.row("", n.Node, formatCount(n.Packs), formatCount(n.Files), formatBytes(n.Bytes), count(n.Verified, "pack"))
	}
	return t.flush()
}

// writeFigures shows what the archive costs.
func (r *demoReport) writeFigures(w io.Writer) error {
	t := newTable(w)
	per := func(n, files int64) string { return fmt.Sprintf("%.4g", ratio(n, files)) }
	records := r.Packs.Records
	t.row()
	t.row("packs", fmt.Sprintf("%s, %s, all read back and verified by a node; %s bytes a file beside its content", formatCount(r.Packs.Count), formatBytes(r.Packs.Bytes),
		per(r.Packs.Bytes-r.Packs.PayloadBytes, records)))
	t.row("index in memory", per(r.Packs.IndexBytes, records)+" bytes a file")
	t.row("store requests", fmt.Sprintf("%s a file archived (%d put, %d head)", per(r.PutRequests+r.HeadRequests, records), r.PutRequests, r.HeadRequests))
	for _, p := range r.Reads {
		t.row("", fmt.Sprintf("%s a read, %s (%s get)", per(p.GetRequests, p.Reads), p.Stage, formatCount(p.GetRequests)))
	}
	t.row("cache", fmt.Sprintf("%s of content on each node, so that most reads need the owner or the store", formatBytes(r.CacheBytes)))
	t.row("compared", fmt.Sprintf("%s of %s identical, %s missing or different, %s failed to archive",
		formatCount(r.Compared), count(r.expected(), "file"), formatCount(int64(len(r.Wrong))), formatCount(r.Failed)))
	t.row("under load", fmt.Sprintf("%s right, %s failed, %s wrong, %s cut at the killed node itself; the slowest took %s",
		count(r.LoadReads, "read"), formatCount(r.LoadFailed), formatCount(r.LoadWrong), formatCount(r.LoadCut), formatSeconds(r.LoadSlowest)))
	return t.flush()
}

// writeLoad shows the reads under load by phase and node.
func (r *demoReport) writeLoad(w io.Writer) error {
	t := newTable(w)
	t.rights = 2
	t.row()
	t.row("LOAD", "NODE", "READS", "FAILED", "WRONG", "P50", "P99", "LONGEST")
	last := ""
	for _, l := range r.Load {
		phase := l.Phase
		if phase == last {
			phase = ""
		}
		last = l.Phase
		t.row(phase, l.Node, formatCount(l.Reads), formatCount(l.Failed), formatCount(l.Wrong), formatSeconds(l.P50), formatSeconds(l.P99), formatSeconds(l.Max))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, l := range r.Load {
		if l.First == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "FAILED %s, through %s, first: %s\n", l.Phase, l.Node, printable(l.First)); err != nil {
			return err
		}
	}
	return nil
}

// writeRoutes shows which share of the reads went which way. A hop is an answer
// of the owner, or of the next, or the place that the owner told.
func (r *demoReport) writeRoutes(w io.Writer) error {
	t := newTable(w)
	t.rights = 1
	t.row()
	t.row("ROUTES", "OWNER ITSELF", "HOP", "HOT", "FALLBACK")
	for _, s := range r.Routes {
		var all int64
		for _, n := range s.Routes {
			all += n
		}
		share := func(routes ...string) string {
			var n int64
			for _, route := range routes {
				n += s.Routes[route]
			}
			return fmt.Sprintf("%.1f %%", 100*ratio(n, all))
		}
		t.row(s.Stage, share("local"), share("owner", "hedge", "location"), share("hot"), share("fallback"))
	}
	return t.flush()
}

func (r *demoReport) writeMembers(w io.Writer) error {
	t := newTable(w)
	t.row()
	t.row("NODES", "ID", "HTTP", "")
	for _, n := range r.Nodes {
		t.row(n.Name, string(n.Node), printable(n.HTTP), n.End)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprint(w, "\nThe members at the end:\n"); err != nil {
		return err
	}
	return writeMembers(w, r.Members)
}

// writeWrong lists what did not come back, and what was left out.
func (r *demoReport) writeWrong(w io.Writer) error {
	for _, f := range r.Wrong[:min(len(r.Wrong), listedWrong)] {
		if _, err := fmt.Fprintf(w, "WRONG %s: %s\n", printable(f.Name), printable(f.What)); err != nil {
			return err
		}
	}
	return writeLeftOut(w, r.Import)
}

func ratio(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
