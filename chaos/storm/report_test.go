package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden reports anew")

// madeUp is the report of a run that never was: so many minutes, one bar
// missed.
func madeUp(t *testing.T, minutes int) *report {
	t.Helper()
	s, _ := newScene(t, 5)
	s.timeline.start = time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC)
	length := time.Duration(minutes) * time.Minute
	kinds := []struct {
		kind string
		of   touches
	}{
		{"kill", touchesNodes},
		{"freeze", touchesNodes},
		{"partition", touchesNodes},
		{"Postgres down", touchesDatabase},
		{"S3 slow", touchesStore},
		{"power cut", touchesStore | touchesDatabase},
	}
	for i := range minutes * 10 {
		k := kinds[i%len(kinds)]
		p := s.timeline.begin(k.kind, fmt.Sprintf("n%d", i%5+1), k.of)
		p.from = s.timeline.start.Add(time.Duration(i) * 6 * time.Second)
		p.end()
		p.to = p.from.Add(time.Duration(3+i%7) * time.Second)
	}
	l, c := newLoad(s, loadConfig{}), newChecker(s, true)
	for i := range int(length.Seconds()) * 10 {
		one := sample{at: time.Duration(i) * 100 * time.Millisecond, took: time.Duration(2+i%50) * time.Millisecond, kind: readKind(i % 5)}
		switch {
		case i%211 == 0:
			one.outcome, one.took = savedRead, 5*time.Second
		case i > 300 && i < 380:
			one.outcome = stormStore
		case i == 500:
			one.outcome = failedRead
		}
		l.samples = append(l.samples, one)
	}
	for at := 3 * time.Second; at < length; at += 3 * time.Second {
		c.rows.archived = append(c.rows.archived, moment{s.timeline.start.Add(at), int(20 + 19*math.Sin(at.Seconds()/20))})
	}
	l.wrote = written{files: minutes * 700, changes: minutes * 150, bytes: int64(minutes) << 25, retries: 12}
	s.verdict.breach(failedReads, "GET %q at 50.0s; n2: 503 <unavailable>; n4: no answer & nothing else", "a/b\"c.bin")
	s.verdict.hold(true, "processes killed", "at least 2", "%d", minutes*2)
	setting := []figure{{"desnode", "v1.2.3"}, {"processor", "one, 2 used"}}
	return newReport(s, l, c, setting, s.timeline.start.Add(length), nil)
}

func TestGoldenReport(t *testing.T) {
	dir := t.TempDir()
	r := madeUp(t, 1)
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	r.print(&text)
	if err := os.WriteFile(filepath.Join(dir, "report.txt"), text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"report.json", "report.html", "report.txt"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from %s; -update writes it anew", name, golden)
		}
	}
}

// TestPageNeedsNothingElse: no scripts, nothing that is fetched, well-formed
// as far as the picture goes, and below a megabyte for an hour.
func TestPageNeedsNothingElse(t *testing.T) {
	page, err := madeUp(t, 60).html()
	if err != nil {
		t.Fatal(err)
	}
	if len(page) >= 1_000_000 {
		t.Errorf("the page of an hour has %d bytes", len(page))
	}
	for _, word := range []string{"<script", "http:", "https:", "url(", "@import", "src=", "ZgotmplZ", "NaN", "Inf"} {
		if bytes.Contains(page, []byte(word)) {
			t.Errorf("the page holds %q", word)
		}
	}
	from, to := bytes.Index(page, []byte("<svg")), bytes.Index(page, []byte("</svg>"))
	if from < 0 || to < 0 {
		t.Fatal("the page has no picture")
	}
	shapes := map[string]int{}
	for dec := xml.NewDecoder(bytes.NewReader(page[from : to+len("</svg>")])); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			shapes[e.Name.Local]++
		}
	}
	if shapes["rect"] != 600 || shapes["path"] != 6 {
		t.Errorf("%d faults and %d lines are drawn, want 600 and 6", shapes["rect"], shapes["path"])
	}
}

func TestReportOfARunThatCouldNotGoOn(t *testing.T) {
	s, _ := newScene(t, 1)
	r := newReport(s, newLoad(s, loadConfig{}), newChecker(s, true), nil, s.timeline.start.Add(time.Second), errors.New("no <disk>"))
	if r.OK || r.Error != "no <disk>" {
		t.Errorf("%t: %s", r.OK, r.Error)
	}
	page, err := r.html()
	if err != nil || !bytes.Contains(page, []byte("no &lt;disk&gt;")) || !bytes.Contains(page, []byte("FAILED")) {
		t.Errorf("the page does not say so: %v", err)
	}
	var text bytes.Buffer
	if r.print(&text); !strings.Contains(text.String(), "no <disk>") {
		t.Errorf("%s", text.String())
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestNothingDoneIsNotPassed(t *testing.T) {
	s, _ := newScene(t, 1)
	if r := newReport(s, newLoad(s, loadConfig{}), newChecker(s, true), nil, s.timeline.start.Add(time.Minute), nil); r.OK {
		t.Error("a run without a read or a file has passed")
	}
}

func TestArchivedFilesAreSpreadOverTheTimeSinceTheLookBefore(t *testing.T) {
	start := time.Unix(0, 0)
	p := picture{Step: 2, Points: make([]point, 5)}
	p.spread([]moment{{start.Add(4 * time.Second), 8}, {start.Add(5 * time.Second), 0}, {start.Add(8 * time.Second), 6}}, start)
	for i, want := range []float64{4, 4, 2, 4, 0} {
		if got := p.Points[i].Archived; math.Abs(got-want) > 1e-9 {
			t.Errorf("step %d: %g archived, want %g", i, got, want)
		}
	}
}
