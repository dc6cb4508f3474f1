package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// lane holds faults that come one after the other. Those of different lanes
// come at once.
type lane uint8

const (
	killLane     lane = iota // processes end, again and again
	nodeLane                 // one node in trouble, for longer
	databaseLane             // Postgres
	storeLane                // S3
	clockLane                // clocks, which trouble nobody else
	wholeLane                // everything at once: of the node lane, alone
	laneCount
)

// pick says which node a fault is for.
type pick uint8

const (
	nobody    pick = iota // it is for no node
	anyone                // the one that the plan names
	theLeader             // the one that leads when it begins
	thePacker             // one that holds a packing lease when it begins
)

func (p pick) String() string { return [...]string{"", "any", "the leader", "a packer"}[p] }

// planned is one fault of a plan.
type planned struct {
	at   time.Duration // from the start of the run
	long time.Duration // from when it is injected until it is healed
	kind *kind
	pick pick
	node int    // the member it is for, when pick finds none or is anyone
	luck uint64 // what is left to choose is chosen by it
}

// chance draws from the luck of a fault: a number below n for the draw-th
// question.
func (p planned) chance(draw, n uint64) uint64 {
	return rand.New(rand.NewPCG(p.luck, draw)).Uint64N(n)
}

// plan draws up the faults of a run. It follows from the arguments alone. Each
// lane deals its kinds like a deck of cards, so that all come equally often.
func plan(seed uint64, length time.Duration, nodes int, kinds []*kind) []planned {
	p := &planner{length: length, nodes: nodes, brisk: length < 15*time.Minute}
	decks := [laneCount][]*kind{}
	for _, k := range kinds {
		decks[k.lane] = append(decks[k.lane], k)
	}
	// What hits everything is alone in its time: it goes first, with the node
	// lane's, and the other lanes keep clear of it.
	p.rnd = rand.New(rand.NewPCG(seed, 11))
	p.deal(slices.Concat(decks[nodeLane], decks[wholeLane]), time.Second, 4*time.Second)
	for _, f := range p.faults {
		if f.kind.lane == wholeLane {
			p.alone = append(p.alone, [2]time.Duration{f.at - alone, f.at + f.long + f.kind.after})
		}
	}
	for _, l := range []lane{killLane, databaseLane, storeLane, clockLane} {
		p.rnd = rand.New(rand.NewPCG(seed, 20+uint64(l)))
		if l == killLane {
			p.deal(decks[l], 500*time.Millisecond, 3*time.Second)
			continue
		}
		p.deal(decks[l], 4*time.Second, 15*time.Second)
	}
	slices.SortStableFunc(p.faults, func(a, b planned) int { return int(a.at - b.at) })
	return p.faults
}

// alone is how long before a fault that hits everything no other begins.
const alone = 8 * time.Second

type planner struct {
	rnd    *rand.Rand
	length time.Duration
	nodes  int
	brisk  bool // the shortest of everything, so that each kind finds its place
	alone  [][2]time.Duration
	faults []planned
}

// deal fills the run with the kinds of one lane, in an order anew for each
// round, with a gap between two.
func (p *planner) deal(deck []*kind, least, most time.Duration) {
	if len(deck) == 0 {
		return
	}
	at := 2*time.Second + p.between(0, most)
	for fits := true; fits; {
		fits = false
		var cards []*kind
		for _, k := range deck {
			cards = append(cards, slices.Repeat([]*kind{k}, max(k.share, 1))...)
		}
		p.rnd.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
		for _, k := range cards {
			f := planned{
				kind: k, long: p.between(k.least, k.most), pick: k.picks[p.rnd.IntN(len(k.picks))],
				node: p.rnd.IntN(p.nodes), luck: p.rnd.Uint64(),
			}
			if f.at = p.clear(at, f.long+k.after); f.at+f.long+k.after > p.length {
				continue // a shorter one may
			}
			p.faults = append(p.faults, f)
			at, fits = f.at+f.long+k.after+p.between(least, most), true
		}
	}
}

// between draws a time; in a brisk run one from the shorter end.
func (p *planner) between(least, most time.Duration) time.Duration {
	if p.brisk {
		most = least + (most-least)/4
	}
	if most <= least {
		return least
	}
	return (least + time.Duration(p.rnd.Int64N(int64(most-least)))).Round(100 * time.Millisecond)
}

// clear returns the first moment from at on from which so much time is free.
func (p *planner) clear(at, long time.Duration) time.Duration {
	for _, busy := range p.alone {
		if at < busy[1] && busy[0] < at+long {
			at = busy[1]
		}
	}
	return at
}

// show prints a plan, one fault a line.
func show(w io.Writer, faults []planned) {
	for _, f := range faults {
		who := ""
		switch f.pick {
		case nobody:
		case anyone:
			who = fmt.Sprintf("n%d", f.node+1)
		case theLeader, thePacker:
			who = fmt.Sprintf("%s, else n%d", f.pick, f.node+1)
		}
		say(w, "%8.1fs %6.1fs  %-18s %s\n", f.at.Seconds(), f.long.Seconds(), f.kind.name, who)
	}
}
