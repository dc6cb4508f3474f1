package safety

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// The errors of a schedule's making.
var (
	errInjected = errors.New("injected fault")
	errDead     = errors.New("the node is dead")
)

// mode says what becomes of an effect.
type mode uint8

const (
	errBefore   mode = iota // not applied, and errored
	errAfter                // applied, and errored: the answer was lost
	crashBefore             // the node dies before it
	crashAfter              // the node dies after it
)

var modeNames = []string{"not applied and errored", "applied and errored", "crash before", "crash after"}

func (m mode) String() string { return modeNames[m] }

// Every effect there is, and whether it changes anything outside the node. To
// one that does not, two modes are the other two: nothing was applied.
const (
	reads  = false
	writes = true
)

// effects lists the effects by name; complete_test.go holds the list against
// the interfaces that lead out of the write path.
func effects() map[string]bool {
	return map[string]bool{
		"source.Eligible": reads, "source.Mark": writes, "source.Refuse": writes,
		"source.Backlog": reads, "source.Marked": reads, "source.Attempt": writes, "source.Acknowledge": writes,
		"source.Deletable": reads, "source.Claim": writes, "source.Unclaim": writes, "source.Deleted": writes, "source.Sharing": reads,
		"source.Unidentified": reads, "source.Identify": writes, "source.ForgetMissing": writes, "source.ForgetFiles": writes,
		"source.ByName": reads, "source.ByID": reads, "source.Rows": reads, "source.ByIDs": reads, "source.Restore": writes,

		"files.Open": reads, "files.Read": reads, "files.Same": reads, "files.FileID": reads, "files.RootID": reads,
		"files.Hide": writes, "files.OpenHidden": reads, "files.PutBack": writes, "files.Remove": writes,

		"store.Get": reads, "store.Head": reads, "store.List": reads, "store.Put": writes, "store.Move": writes,
		"store.Delete": writes, "store.ConditionalCreate": reads, "store.Uploads": reads, "store.Abort": writes,

		"meta.confirm": reads, "meta.grant": writes, "meta.release": writes, "meta.begin-upload": writes,
		"meta.add-pack": writes, "meta.ack-pack": writes, "meta.verify-pack": writes, "meta.forget-upload": writes,
		"meta.set": writes, "meta.adopt": writes,

		"audit.Open": writes, "audit.Read": reads, "audit.Create": writes, "audit.Link": writes, "audit.Rename": writes,
		"audit.SyncDir": writes, "audit.Write": writes, "audit.Truncate": writes, "audit.Sync": writes,

		"spool.Clean": writes, "spool.Create": writes, "spool.Remove": writes, "spool.Write": writes, "spool.Read": reads,
		"spool.Truncate": writes, "spool.Sync": writes,
	}
}

// effect is the n-th call of that name in a run, from 1.
type effect struct {
	name string
	n    int
}

func (e effect) String() string { return fmt.Sprintf("%s#%d", e.name, e.n) }

// fault says what becomes of one effect.
type fault struct {
	effect
	mode mode
}

func (f fault) String() string { return f.effect.String() + " " + f.mode.String() }

// schedule is the faults of a run, in the order in which they come to pass.
type schedule []fault

func (s schedule) String() string {
	if len(s) == 0 {
		return "no fault"
	}
	text := make([]string, len(s))
	for i, f := range s {
		text[i] = f.String()
	}
	return strings.Join(text, ", then ")
}

// gate is what every effect of a run passes, in all lives of the node.
type gate struct {
	known    map[string]bool
	boundary func(e effect, wrote bool) // after each effect that was applied
	strange  func(name string)          // an effect that effects does not list

	mu     sync.Mutex // guards what follows
	open   bool       // nothing is counted, and nothing fails
	refuse bool       // everything fails, and nothing is applied
	plan   schedule
	fired  int
	calls  map[string]int
	trace  []effect
	cut    int // length of the trace when the last fault of the plan came
}

func newGate(known map[string]bool, plan schedule) *gate {
	return &gate{known: known, plan: plan, calls: map[string]int{}}
}

// next counts a call and returns the fault that it meets, or nil.
func (g *gate) next(name string) (e effect, f *fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return effect{name, 0}, nil
	}
	defer func() {
		if g.refuse {
			f = &fault{e, errBefore}
		}
	}()
	g.calls[name]++
	e = effect{name, g.calls[name]}
	g.trace = append(g.trace, e)
	i := slices.IndexFunc(g.plan, func(f fault) bool { return f.effect == e })
	if i < 0 {
		return e, nil
	}
	g.fired++
	g.cut = len(g.trace)
	return e, &g.plan[i]
}

// done reports whether all faults of the plan came to pass.
func (g *gate) done() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open || g.fired == len(g.plan)
}

// stand opens the gate for what comes before the first effect that counts, or
// closes it.
func (g *gate) stand(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
}

// life is one process of the node. When it is dead nothing of it has an effect.
type life struct {
	gate   *gate
	cancel context.CancelFunc
	died   func() // loses what no flush has promised to keep
	dead   atomic.Bool
}

func (l *life) kill() {
	if l.dead.CompareAndSwap(false, true) {
		l.died()
		l.cancel()
	}
}

// do carries out an effect as the schedule says.
func (l *life) do(name string, apply func() error) error {
	if l.dead.Load() {
		return errDead
	}
	wrote, known := l.gate.known[name]
	if !known {
		l.gate.strange(name)
	}
	e, f := l.gate.next(name)
	switch {
	case f == nil:
	case f.mode == crashBefore:
		l.kill()
		return errDead
	case f.mode == errBefore:
		return errInjected
	}
	err := apply()
	if err == nil && l.gate.boundary != nil {
		l.gate.boundary(e, wrote)
	}
	switch {
	case l.dead.Load(), f == nil:
		return err
	case f.mode == crashAfter:
		l.kill()
		return errDead
	case err == nil:
		err = errInjected
	}
	return err
}

// ask is do of a call that answers; after an error there is no answer.
func ask[T any](l *life, name string, apply func() (T, error)) (T, error) {
	var answer T
	err := l.do(name, func() (err error) {
		answer, err = apply()
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return answer, nil
}
