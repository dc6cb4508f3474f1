// Command study prints how the ring places shards, at 3 to 100 nodes and for
// candidate parameters, each figure a mean over seeded sets of members:
//
//   - moved: share of the shards that change their owner when one more node
//     joins, and, in multiples of it, what an ideal placement would move
//   - skew: the largest share in multiples of the average
//   - lost: share of the surviving nodes' shards that change their owner when
//     one node dies, which an ideal placement would leave alone
//   - build: time to compute a ring
//
// ring/DESIGN.md keeps the result: `make ring-study`.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/datavision/desnode/ring"
)

// sizes are the cluster sizes of the study.
var sizes = []int{3, 4, 5, 8, 16, 32, 64, 100}

func main() {
	sets := flag.Int("sets", 100, "seeded sets of members for each figure of the first table")
	bits := flag.Uint("bits", 10, "shard bits")
	flag.Parse()
	if err := study(os.Stdout, *sets, uint8(*bits)); err != nil {
		fmt.Fprintln(os.Stderr, "study:", err)
		os.Exit(1)
	}
}

func study(out io.Writer, sets int, bits uint8) error {
	table := fmt.Appendf(nil, "One node more, 8 to 9, mean of %d sets of members, %d shards\n\n", sets, 1<<bits)
	table = append(table, "vnodes\tload\tmoved\t/ideal\tskew at 8\tskew at 9\tlost at 9\tbuild\t\n"...)
	for _, vnodes := range []int{20, 50, 100, 200, 400} {
		for _, load := range []float64{1.1, 1.15, 1.2, 1.24, 1.5} {
			f, err := measure(ring.Config{ShardBits: bits, Vnodes: vnodes, Load: load}, 8, sets)
			if err != nil {
				return err
			}
			table = fmt.Appendf(table, "%d\t%.2f\t%.2f %%\t%.2f\t%.3f\t%.3f\t%.2f %%\t%v\t\n", vnodes, load,
				100*f.moved, f.moved*9, f.skewBefore, f.skewAfter, 100*f.lost, f.build)
		}
	}
	if err := show(out, table); err != nil {
		return err
	}
	table = []byte("\nOne node more at each size, the chosen parameters\n\n")
	table = append(table, "nodes\tsets\tmoved\t/ideal\tskew\tlost\tbuild\t\n"...)
	for _, n := range sizes {
		some := max(1, min(sets, 400/n))
		f, err := measure(ring.Config{ShardBits: bits}, n, some)
		if err != nil {
			return err
		}
		table = fmt.Appendf(table, "%d to %d\t%d\t%.2f %%\t%.2f\t%.3f\t%.2f %%\t%v\t\n", n, n+1, some,
			100*f.moved, f.moved*float64(n+1), f.skewAfter, 100*f.lost, f.build)
	}
	return show(out, table)
}

// show prints lines of cells that end in tabs, the cells aligned.
func show(out io.Writer, table []byte) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if _, err := w.Write(table); err != nil {
		return err
	}
	return w.Flush()
}

// figures are means over sets of members.
type figures struct {
	moved, lost           float64
	skewBefore, skewAfter float64
	build                 time.Duration
}

// measure lets one node join n others in each of the sets.
func measure(cfg ring.Config, n, sets int) (f figures, err error) {
	started := time.Now()
	for seed := range sets {
		members := memberSet(seed, n+1)
		before, err := ring.New(cfg, members[:n])
		if err != nil {
			return f, err
		}
		after, err := ring.New(cfg, members)
		if err != nil {
			return f, err
		}
		shards := float64(before.Shards())
		f.moved += float64(ring.Moved(before, after)) / shards
		f.skewBefore += before.Skew()
		f.skewAfter += after.Skew()
		// The other way round the joiner dies: its own shards have to move.
		own := after.Share(members[n].ID)
		f.lost += float64(ring.Moved(before, after)-own) / (shards - float64(own))
	}
	f.moved /= float64(sets)
	f.lost /= float64(sets)
	f.skewBefore /= float64(sets)
	f.skewAfter /= float64(sets)
	f.build = (time.Since(started) / time.Duration(2*sets)).Round(10 * time.Microsecond)
	return f, nil
}

// memberSet returns n members whose ids depend on the seed alone.
func memberSet(seed, n int) []ring.Member {
	members := make([]ring.Member, n)
	for i := range members {
		id := uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "set %d member %d", seed, i))
		members[i] = ring.Member{ID: ring.NodeID(id.String())}
	}
	return members
}
