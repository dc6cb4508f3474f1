package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// kind is one kind of fault: how it is put on, and how it is taken off again.
type kind struct {
	name string
	lane lane

	// least and most bound how long it lasts, after is what its lane leaves it to
	// recover, share is how often it comes beside the others of its lane.
	least, most, after time.Duration
	share              int

	picks   []pick
	touches touches

	// needs says what is missing here for it; nil: nothing.
	needs func(w *world) error

	// inject puts the fault on. heal takes it off, and is called whenever it is
	// not nil, also when inject has failed half-way. m is the member that the
	// fault is for, claimed for it; nil where it is for none.
	inject func(ctx context.Context, w *world, f planned, m *member) (heal func(context.Context) error, err error)

	// met returns, once the fault is on, what reports whether it has hit anything
	// yet. A fault that has not stays a little longer, and is not counted when it
	// never does. nil: it cannot but hit.
	met func(w *world, m *member) func() bool
}

// kinds lists all there are.
func kinds() []*kind {
	all := slices.Concat(processKinds(), linkKinds(), diskKinds(), serverKinds())
	for _, k := range all {
		if len(k.picks) == 0 {
			k.picks = []pick{nobody}
		}
	}
	return all
}

// choose returns the kinds that a list of names gives, separated by commas;
// none: all of them.
func choose(names string) ([]*kind, error) {
	all := kinds()
	if names == "" {
		return all, nil
	}
	var chosen []*kind
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(k *kind) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no fault is called %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// possible parts the kinds into those that this world allows and, by name, why
// not the others.
func possible(w *world, chosen []*kind) (can []*kind, cannot map[string]error) {
	cannot = map[string]error{}
	for _, k := range chosen {
		if k.needs != nil {
			if err := k.needs(w); err != nil {
				cannot[k.name] = err
				continue
			}
		}
		can = append(can, k)
	}
	return can, cannot
}

// What a kind may need.
var (
	errNoHosts = errors.New("nodes have no hosts of their own: that takes root")
	errNoDisks = errors.New("nodes have no file systems of their own: that takes root")
	errNoClock = errors.New("the binary's clock cannot be stepped: it is built without the tag chaos")
)

func needsHosts(w *world) error {
	if w.network == nil {
		return errNoHosts
	}
	return nil
}
