package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/source"
)

// slowRows counts as a large table does: it takes its time.
type slowRows struct {
	source.OperatorRows
	takes  time.Duration
	err    error
	counts int
}

func (s *slowRows) Counts(ctx context.Context) (map[source.State]source.Tally, error) {
	s.counts++
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.err != nil {
		return nil, s.err
	}
	return map[source.State]source.Tally{source.Packed: {Rows: int64(s.counts)}}, nil
}

// counting runs test beside a counter that runs.
func counting(t *testing.T, rows *slowRows, test func(t *testing.T, c *rowCounter)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		c := newRowCounter(rows)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(ctx)
		}()
		test(t, c)
		stop()
		<-done
	})
}

// wantCount asks, and wants the n-th count (0: none) within the time.
func wantCount(t *testing.T, c *rowCounter, n int64, within time.Duration) {
	t.Helper()
	begin := time.Now()
	got := c.counts(t.Context())
	if took := time.Since(begin); took > within {
		t.Errorf("the answer took %s, want at most %s", took, within)
	}
	switch {
	case n == 0 && got != nil:
		t.Errorf("got %+v before anything was counted", got)
	case n > 0 && (got == nil || got.states[source.Packed].Rows != n):
		t.Errorf("got %+v, want count %d", got, n)
	}
}

func TestSmallTablesAreCountedWhenAsked(t *testing.T) {
	counting(t, &slowRows{takes: 5 * time.Millisecond}, func(t *testing.T, c *rowCounter) {
		for n := range int64(3) {
			wantCount(t, c, n+1, 10*time.Millisecond)
		}
	})
}

func TestLargeTablesAreCountedForATwentiethOfTheTime(t *testing.T) {
	const takes = time.Minute
	rows := &slowRows{takes: takes}
	counting(t, rows, func(t *testing.T, c *rowCounter) {
		wantCount(t, c, 0, countWait)
		wantCount(t, c, 0, countWait)
		time.Sleep(takes)
		wantCount(t, c, 1, 0)
		begin, before := time.Now(), rows.counts
		for time.Since(begin) < 10*time.Hour {
			c.counts(t.Context())
			time.Sleep(10 * time.Second)
		}
		spent := time.Duration(rows.counts-before) * takes
		if share := spent.Seconds() / time.Since(begin).Seconds(); share > 1.0/countRest || share < 0.5/countRest {
			t.Errorf("%d counts took %.3f of the time, want about 1/%d", rows.counts-before, share, countRest)
		}
		if age := time.Since(c.counts(t.Context()).at); age > (countRest+3)*takes {
			t.Errorf("the count is %s old", age)
		}
	})
}

func TestACountThatFailsLeavesTheOneBefore(t *testing.T) {
	rows := &slowRows{takes: time.Millisecond}
	counting(t, rows, func(t *testing.T, c *rowCounter) {
		wantCount(t, c, 1, time.Second)
		at := c.counts(t.Context()).at
		time.Sleep(time.Second)
		rows.err = errors.New("down")
		got := c.counts(t.Context())
		if !errors.Is(got.err, rows.err) || got.states[source.Packed].Rows != 2 || !got.at.Equal(at) {
			t.Errorf("got %+v, want the count of %s and the error", got, at)
		}
		time.Sleep(time.Second)
		rows.err = nil
		wantCount(t, c, 4, time.Second)
	})
}

func TestAnAnswerWaitsForNoCounterThatIsNotRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wantCount(t, newRowCounter(&slowRows{}), 0, countWait)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := newRowCounter(&slowRows{}).counts(ctx); got != nil {
			t.Errorf("got %+v", got)
		}
	})
}
