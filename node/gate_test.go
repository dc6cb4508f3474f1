package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/source"
)

// secondsTable has times of whole seconds and nothing to mark.
type secondsTable struct{ source.Table }

func (secondsTable) TimePrecision() time.Duration { return time.Second }

func (secondsTable) Eligible(context.Context, time.Time, string, int) ([]source.Row, error) {
	return nil, nil
}

// A proof is asked for again after a while; until it is given again no work
// passes. What the table tells of its times passes always.
func TestGateAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var unfit error
		asked := 0
		var table source.Table = &gate{heed: func(err error) error { return err }, Table: secondsTable{}, prove: func(context.Context) error { asked++; return unfit }}
		look := func(want error, times int) {
			t.Helper()
			if _, err := table.Eligible(t.Context(), time.Time{}, "", 1); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			if asked != times {
				t.Errorf("asked for a proof %d times, want %d", asked, times)
			}
		}
		unfit = source.ErrUnfit
		look(source.ErrUnfit, 1)
		look(source.ErrUnfit, 1)
		unfit = nil
		time.Sleep(gatePause)
		look(nil, 2)
		unfit = source.ErrUnfit // the table was altered
		time.Sleep(gateHolds - 1)
		look(nil, 2)
		time.Sleep(time.Nanosecond)
		look(source.ErrUnfit, 3)
		unfit = nil
		time.Sleep(gatePause)
		look(nil, 4)
		if unit := table.(interface{ TimePrecision() time.Duration }).TimePrecision(); unit != time.Second {
			t.Errorf("times have a unit of %v", unit)
		}
	})
}
