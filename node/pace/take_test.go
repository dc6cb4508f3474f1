package pace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// take takes and ends a grant, all of it done.
func take(t *testing.T, w *Work, want Want) Amount {
	t.Helper()
	g, err := w.Take(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	g.End(g.Amount)
	return g.Amount
}

func files(n int64) Want { return Want{Amount: Amount{Files: n}} }

func wantHeld(t *testing.T, err error, cause Cause, until string) {
	t.Helper()
	h := AsHeld(err)
	if h == nil || !errors.Is(err, ErrHeld) {
		t.Fatalf("error %v, want held for %s", err, cause)
	}
	got := ""
	if !h.Until.IsZero() {
		got = h.Until.UTC().Format(time.RFC3339)
	}
	if h.Cause != cause || got != until || h.Error() == "" {
		t.Errorf("held for %s until %q (%v), want %s until %q", h.Cause, got, h, cause, until)
	}
}

func TestWithoutLimitsNothingWaitsAndNothingIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		p := newPacer(t, m, Limits{})
		began := time.Now()
		for _, k := range Kinds() {
			w := p.Work(k)
			for range 100 {
				if got := take(t, w, Want{Amount: Amount{1000, 1 << 30}, First: 1}); got != (Amount{1000, 1 << 30}) {
					t.Fatalf("granted %+v", got)
				}
			}
			if err := w.Held(); err != nil || w.Parallel(3) != 3 || w.Waiting() {
				t.Errorf("held %v, %d of 3 at once, waiting %v", err, w.Parallel(3), w.Waiting())
			}
		}
		if m.count(usedKey) != 0 || !time.Now().Equal(began) {
			t.Errorf("%d records in %s", m.count(usedKey), time.Since(began))
		}
	})
}

func TestTheRateHoldsOverTime(t *testing.T) {
	for _, tt := range []struct {
		name     string
		limits   Limits
		step     Want
		duration time.Duration
		want     Amount // within a burst of a second
	}{
		{"files", Limits{FilesPerSecond: 100}, files(1000), time.Minute, Amount{Files: 6000}},
		{"few files", Limits{FilesPerSecond: 1}, files(1000), time.Minute, Amount{Files: 60}},
		{"more than a step a second", Limits{FilesPerSecond: 5000}, files(1000), time.Minute, Amount{Files: 300_000}},
		{"bytes", Limits{BytesPerSecond: 1 << 20}, Want{Amount: Amount{1000, 64 << 20}, First: 1 << 10}, time.Minute, Amount{Files: 60_000, Bytes: 60 << 20}},
		{"packs are not cut", Limits{FilesPerSecond: 100, For: []Kind{Mark}}, Want{Amount: Amount{Files: 1500}, Whole: true}, time.Minute, Amount{Files: 6000}},
		{"files larger than the rate", Limits{BytesPerSecond: 1 << 20}, Want{Amount: Amount{1, 30 << 20}, First: 30 << 20}, 2 * time.Minute, Amount{Files: 4, Bytes: 120 << 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPacer(t, newMemory(t), tt.limits).Work(Mark)
				began := time.Now()
				var done Amount
				for time.Since(began) < tt.duration {
					got := take(t, w, tt.step)
					if tt.step.Whole && got != tt.step.Amount {
						t.Fatalf("a pack was cut to %+v", got)
					}
					done = done.plus(got)
				}
				// The burst at the beginning, and the last step's debt.
				if slack := max(tt.limits.FilesPerSecond, tt.step.Files); tt.limits.FilesPerSecond > 0 && (done.Files < tt.want.Files || done.Files > tt.want.Files+2*slack) {
					t.Errorf("%d files in %s, want about %d", done.Files, tt.duration, tt.want.Files)
				}
				if slack := max(tt.limits.BytesPerSecond, tt.step.First); tt.limits.BytesPerSecond > 0 && (done.Bytes < tt.want.Bytes || done.Bytes > tt.want.Bytes+2*slack) {
					t.Errorf("%d bytes in %s, want about %d", done.Bytes, tt.duration, tt.want.Bytes)
				}
			})
		})
	}
}

func TestWhatWasNotDoneIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPacer(t, newMemory(t), Limits{FilesPerSecond: 10, FilesPerDay: 100}).Work(Mark)
		for range 50 {
			g, err := w.Take(t.Context(), files(10))
			if err != nil {
				t.Fatal(err)
			}
			g.End(Amount{})
			g.End(Amount{Files: 10}) // ended already
		}
		for range 10 {
			take(t, w, files(10))
		}
		_, err := w.Take(t.Context(), files(1))
		wantHeld(t, err, CauseDay, "2000-01-02T00:00:00Z")
	})
}

func TestADaysBudgetEndsAtLocalMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		w := newPacer(t, m, Limits{FilesPerDay: 2500, Zone: "America/New_York"}).Work(Mark)
		for _, want := range []int64{1000, 1000, 500} {
			if got := take(t, w, files(1000)); got.Files != want {
				t.Fatalf("granted %d, want %d", got.Files, want)
			}
		}
		_, err := w.Take(t.Context(), files(1000))
		wantHeld(t, err, CauseDay, "2000-01-01T05:00:00Z")
		wantHeld(t, w.Held(), CauseDay, "2000-01-01T05:00:00Z")
		time.Sleep(5*time.Hour - time.Second)
		wantHeld(t, w.Held(), CauseDay, "2000-01-01T05:00:00Z")
		time.Sleep(time.Second)
		if got := take(t, w, files(1000)); got.Files != 1000 || w.Held() != nil {
			t.Errorf("granted %d on the next day, held %v", got.Files, w.Held())
		}
	})
}

func TestADaysBudgetCostsOneCommandAThousandFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		w := newPacer(t, m, Limits{FilesPerSecond: 10, FilesPerDay: 1 << 40}).Work(Mark)
		for left := int64(5000); left > 0; {
			left -= take(t, w, files(min(1000, left))).Files
		}
		if got := m.count(usedKey); got > 5 {
			t.Errorf("%d commands for 5000 files", got)
		}
	})
}

// A crash between the grant and the end of a step counts the step; it never
// gives the same budget out twice.
func TestADaysBudgetSurvivesRestartsAndMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		limits := Limits{FilesPerDay: 3000, BytesPerDay: 1 << 30}
		step := Want{Amount: Amount{1000, 1 << 20}, First: 1}
		take(t, newPacer(t, m, limits).Work(Mark), step)
		if _, err := newPacer(t, m, limits).Work(Mark).Take(t.Context(), step); err != nil { // dies before it ends
			t.Fatal(err)
		}
		other := newPacer(t, m, limits)
		take(t, other.Work(Mark), step)
		_, err := other.Work(Mark).Take(t.Context(), step)
		wantHeld(t, err, CauseDay, "2000-01-02T00:00:00Z")
		take(t, other.Work(Pack), step) // which the limits do not hold for
	})
}

func TestEachKindOfWorkHasItsOwnBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		p := newPacer(t, m, Limits{FilesPerDay: 10, For: Kinds()})
		for _, k := range Kinds() {
			take(t, p.Work(k), files(10))
			_, err := p.Work(k).Take(t.Context(), files(1))
			wantHeld(t, err, CauseDay, "2000-01-02T00:00:00Z")
		}
		var u usage
		b, _, _ := m.Setting(usedKey)
		if err := json.Unmarshal(b, &u); err != nil || u.Used[Mark].Files != 10 || u.Used[Pack].Files != 10 || u.Used[Delete].Files != 10 {
			t.Errorf("recorded %s, %v", b, err)
		}
	})
}

func TestTheFirstFileOfADayGoesWhateverItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPacer(t, newMemory(t), Limits{BytesPerDay: 1000}).Work(Mark)
		huge := Want{Amount: Amount{2, 5005}, First: 5000}
		g, err := w.Take(t.Context(), huge)
		if err != nil || g.Bytes < 5000 {
			t.Fatalf("granted %+v, %v", g, err)
		}
		g.End(Amount{1, 5000})
		_, err = w.Take(t.Context(), Want{Amount: Amount{1, 5}, First: 5})
		wantHeld(t, err, CauseDay, "2000-01-02T00:00:00Z")
		time.Sleep(24 * time.Hour)
		take(t, w, Want{Amount: Amount{1, 5}, First: 5})
		_, err = w.Take(t.Context(), huge) // not the first any more
		wantHeld(t, err, CauseDay, "2000-01-03T00:00:00Z")
		if got := take(t, w, Want{Amount: Amount{2, 2000}, First: 10}); got.Bytes != 995 {
			t.Errorf("granted %+v of what is left", got)
		}
	})
}

func TestARivalsReservationCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		limits := Limits{FilesPerDay: 1500}
		rival := newPacer(t, m, limits).Work(Mark)
		w := newPacer(t, m, limits).Work(Mark)
		m.rival = func(string) { take(t, rival, files(1000)) }
		if got := take(t, w, files(1000)); got.Files != 500 {
			t.Errorf("granted %d, want what the rival left", got.Files)
		}
	})
}

func TestFailedReservationsGrantNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		w := newPacer(t, m, Limits{FilesPerDay: 1500}).Work(Mark)
		m.err = errors.New("no quorum")
		if g, err := w.Take(t.Context(), files(10)); !errors.Is(err, m.err) || g != nil || AsHeld(err) != nil {
			t.Errorf("granted %+v, %v", g, err)
		}
	})
}

func TestDaysThatAreNotToday(t *testing.T) {
	today := date{2026, 3, 29}
	for _, tt := range []struct {
		stored string
		counts bool
		err    error
	}{
		{`{"day":"2026-03-29","used":{"mark":{"files":7}}}`, true, nil},
		{`{"day":"2026-03-30","used":{"mark":{"files":7}}}`, true, nil}, // another zone, or a clock ahead
		{`{"day":"2026-03-28","used":{"mark":{"files":7}}}`, false, nil},
		{`{"day":"2031-03-29","used":{"mark":{"files":7}}}`, false, nil}, // a clock that was wrong
		{`{"day":"2026-03-29"}`, false, nil},
		{``, false, nil},
		{`{"day":"soon","used":{}}`, false, ErrInvalid},
		{`{`, false, ErrInvalid},
	} {
		u, err := readUsage([]byte(tt.stored), today)
		if !errors.Is(err, tt.err) || u.Used == nil || (u.Used[Mark].Files == 7) != tt.counts {
			t.Errorf("%s: %+v, %v", tt.stored, u, err)
		}
	}
}

func TestAPauseStopsWhatItNamesUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		p, other := newPacer(t, m, Limits{}), newPacer(t, m, Limits{})
		until := time.Now().Add(time.Hour)
		if err := p.Pause(t.Context(), []Kind{Mark, Delete}, Pause{Reason: "backup", By: "anna", Until: until}); err != nil {
			t.Fatal(err)
		}
		_, err := other.Work(Mark).Take(t.Context(), files(1))
		wantHeld(t, err, CausePause, "2000-01-01T01:00:00Z")
		if h := AsHeld(err); h.Text != "backup" || h.By != "anna" || h.Kind != Mark {
			t.Errorf("%+v", h)
		}
		wantHeld(t, other.Work(Delete).Held(), CausePause, "2000-01-01T01:00:00Z")
		take(t, other.Work(Pack), files(1))
		if err := other.Resume(t.Context(), []Kind{Delete}); err != nil {
			t.Fatal(err)
		}
		take(t, p.Work(Delete), files(1))
		wantHeld(t, p.Work(Mark).Held(), CausePause, "2000-01-01T01:00:00Z")
		time.Sleep(time.Hour)
		take(t, p.Work(Mark), files(1))

		if err := p.Pause(t.Context(), nil, Pause{Reason: "for good"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		for _, k := range Kinds() {
			wantHeld(t, p.Work(k).Held(), CausePause, "")
		}
		if err := p.Resume(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		take(t, p.Work(Mark), files(1))
	})
}

func TestAPauseEndsAWaitForTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(t, newMemory(t), Limits{BytesPerSecond: 1})
		w := p.Work(Mark)
		take(t, w, Want{Amount: Amount{1, 100_000}, First: 100_000})
		ended := make(chan error, 1)
		go func() {
			_, err := w.Take(t.Context(), Want{Amount: Amount{1, 1}, First: 1})
			ended <- err
		}()
		synctest.Wait()
		if !w.Waiting() {
			t.Error("it does not wait for the rate")
		}
		if err := p.Pause(t.Context(), nil, Pause{Reason: "enough"}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		wantHeld(t, <-ended, CausePause, "")
		if !time.Now().Equal(began) || w.Waiting() {
			t.Errorf("noticed after %s, waiting %v", time.Since(began), w.Waiting())
		}
	})
}

func TestAWindowThatClosesEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is midnight
		w := newPacer(t, newMemory(t), Limits{BytesPerSecond: 1, Windows: []string{"00:00-00:01"}}).Work(Mark)
		take(t, w, Want{Amount: Amount{1, 100_000}, First: 100_000})
		began := time.Now()
		_, err := w.Take(t.Context(), Want{Amount: Amount{1, 1}, First: 1})
		wantHeld(t, err, CauseWindow, "2000-01-02T00:00:00Z")
		if took := time.Since(began); took < time.Minute || took > time.Minute+longestWait {
			t.Errorf("noticed after %s", took)
		}
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPacer(t, newMemory(t), Limits{FilesPerSecond: 1}).Work(Mark)
		take(t, w, files(1))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if g, err := w.Take(ctx, files(1)); !errors.Is(err, context.DeadlineExceeded) || g != nil {
			t.Errorf("granted %+v, %v", g, err)
		}
	})
}

func TestLimitsAreSetAndCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		p := newPacer(t, m, Limits{FilesPerDay: 5})
		if st := p.Status(); !st.Configured || st.Limits.FilesPerDay != 5 || !st.Work[0].Limited || st.Work[1].Limited {
			t.Errorf("status %+v", st)
		}
		take(t, p.Work(Mark), files(5))
		wantHeld(t, p.Work(Mark).Held(), CauseDay, "2000-01-02T00:00:00Z")
		if err := p.SetLimits(t.Context(), Limits{FilesPerDay: 8, For: []Kind{Mark, Pack}}); err != nil {
			t.Fatal(err)
		}
		if got := take(t, p.Work(Mark), files(9)); got.Files != 3 {
			t.Errorf("granted %d, want what the raised budget left", got.Files)
		}
		if st := p.Status(); st.Configured || st.Work[0].Used.Files != 8 || st.Work[0].Held == nil || !st.Work[1].Limited {
			t.Errorf("status %+v", st)
		}
		if err := p.ClearLimits(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := p.Status(); !st.Configured || st.Limits.FilesPerDay != 5 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestWhatMakesNoSenseIsNotStored(t *testing.T) {
	m := newMemory(t)
	p := newPacer(t, m, Limits{})
	for name, err := range map[string]error{
		"negative":     p.SetLimits(t.Context(), Limits{FilesPerDay: -1}),
		"bad window":   p.SetLimits(t.Context(), Limits{Windows: []string{"always"}}),
		"bad zone":     p.SetLimits(t.Context(), Limits{Zone: "Mars"}),
		"bad kind":     p.SetLimits(t.Context(), Limits{For: []Kind{"read"}}),
		"kind twice":   p.SetLimits(t.Context(), Limits{For: []Kind{Mark, Mark}}),
		"many windows": p.SetLimits(t.Context(), Limits{Windows: make([]string, maxWindows+1)}),
		"no reason":    p.Pause(t.Context(), nil, Pause{Reason: " "}),
		"two lines":    p.Pause(t.Context(), nil, Pause{Reason: "a\nb"}),
		"over already": p.Pause(t.Context(), nil, Pause{Reason: "a", Until: time.Now().Add(-time.Second)}),
		"pause kind":   p.Pause(t.Context(), []Kind{"x"}, Pause{Reason: "a"}),
		"resume kind":  p.Resume(t.Context(), []Kind{"x"}),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m.count(settingsKey) != 0 {
		t.Error("stored all the same")
	}
	if _, err := New(Config{Settings: m, Limits: Limits{Zone: "Mars"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bad configuration: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no Settings are needed")
	}
}

func TestSettingsThatCannotBeReadHoldAllWork(t *testing.T) {
	m := newMemory(t)
	p := newPacer(t, m, Limits{})
	for i, broken := range []string{"{", `{"limits":{"windows":["x"]}}`} {
		m.write(settingsKey, broken)
		for _, k := range Kinds() {
			_, err := p.Work(k).Take(t.Context(), files(1))
			wantHeld(t, err, CauseSettings, "")
		}
		if err := p.ClearLimits(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.Work(Mark).Held(); err != nil {
			t.Errorf("%d: held after the settings were set anew: %v", i, err)
		}
	}
	m.write(usedKey, "{")
	if err := p.SetLimits(t.Context(), Limits{FilesPerDay: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := p.Work(Mark).Take(t.Context(), files(1))
	wantHeld(t, err, CauseSettings, "")
}

func TestMetricsTellThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		p := newPacer(t, newMemory(t), Limits{FilesPerDay: 10}, func(c *Config) { c.Registerer = reg })
		take(t, p.Work(Mark), files(4))
		if err := p.Pause(t.Context(), []Kind{Pack}, Pause{Reason: "x"}); err != nil {
			t.Fatal(err)
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetGauge().GetValue()
			}
		}
		for name, want := range map[string]float64{
			"des_pace_factor": 1, "des_pace_held pause pack": 1, "des_pace_held pause mark": 0, "des_pace_used files mark": 4,
			"des_pace_limit day files mark": 10, "des_pace_limit day files pack": 0, "des_pace_reason replica-lag": 0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v (%v), want %v; all: %s", name, v, ok, want, fmt.Sprint(got))
			}
		}
	})
}
