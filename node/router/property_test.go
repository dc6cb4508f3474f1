package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// model is a world with what is in its packs, of which it tells what a name is
// at an index.
type model struct {
	*world
	ids    []ring.NodeID
	inPack map[desformat.PackID][]version // by ordinal
	seq    uint64
}

// names of the model; few, so that versions meet.
var modelNames = []string{"x", "y", "z", "bigger/than/the/payload"}

func newModel(t *testing.T) *model {
	m := &model{seq: 10, ids: []ring.NodeID{"a", "b", "c"}, inPack: map[desformat.PackID][]version{}}
	m.world = newWorld(t, m.ids...)
	for _, id := range m.ids {
		m.restart(id)
	}
	return m
}

func (m *model) restart(id ring.NodeID) {
	at := m.nodes[id].at.Load()
	m.start(id, func(c *Config) { c.MaxPayload = 64 }).at.Store(at)
}

// newest is the newest live record of a name at an index; nil: none.
func (m *model) newest(name string, index uint64) (best *version) {
	for _, p := range m.state(index).packs {
		if !p.ReplacedBy.IsZero() {
			continue
		}
		for ordinal, v := range m.inPack[p.ID] {
			if v.name == name && !p.IsDead(uint32(ordinal)) && (best == nil || v.seq > best.seq) {
				best = &v
			}
		}
	}
	return best
}

func (m *model) live() []*raftmeta.Pack {
	packs := slices.Clone(m.state(m.head()).packs)
	return slices.DeleteFunc(packs, func(p *raftmeta.Pack) bool { return !p.ReplacedBy.IsZero() })
}

func (m *model) remember(p *raftmeta.Pack, versions []version) {
	sorted := slices.Clone(versions)
	slices.SortStableFunc(sorted, func(a, b version) int {
		x, y := desformat.HashName(a.name), desformat.HashName(b.name)
		return slices.Compare(x[:], y[:])
	})
	m.inPack[p.ID] = sorted
}

// Whatever the other nodes answer, refuse or say wrongly, and however far nodes
// are behind, a read gives a version that was the newest of the name at some
// index that the node had applied or later, or an error that is true: 404 and
// 410 only of what is absent or removed at the newest index, and nothing but an
// unconfirmed miss when there is no quorum.
func TestAnswersAreRightWhateverOtherNodesDo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t)
		rt.Repeat(map[string]func(*rapid.T){
			"add":      m.doAdd,
			"merge":    m.doMerge,
			"kill":     m.doKill,
			"remove":   m.doRemove,
			"catch up": m.doCatchUp,
			"restart":  func(rt *rapid.T) { m.restart(rapid.SampledFrom(m.ids).Draw(rt, "node")) },
			"quorum":   func(rt *rapid.T) { m.quorum.Store(rapid.Bool().Draw(rt, "quorum")) },
			"trouble":  m.doTrouble,
			"read":     m.doRead,
			"again":    m.doRead, // more often than all else
			"and once": m.doRead,
		})
	})
}

// deaf draws nodes that do not hear of a commit.
func (m *model) deaf(rt *rapid.T) []ring.NodeID {
	return slices.DeleteFunc(slices.Clone(m.ids), func(ring.NodeID) bool { return rapid.Bool().Draw(rt, "hears") })
}

func (m *model) doAdd(rt *rapid.T) {
	var versions []version
	for _, name := range modelNames {
		if !rapid.Bool().Draw(rt, "has "+name) {
			continue
		}
		m.seq++
		v := version{name: name, seq: m.seq * 10}
		if rapid.IntRange(0, 4).Draw(rt, "order") == 0 {
			v.seq -= min(v.seq-1, 25) // an older version is committed later
		}
		if rapid.IntRange(0, 4).Draw(rt, "kind") == 0 {
			v.kind = desformat.TypeTombstone
		} else {
			v.content = fmt.Sprintf("%s in version %d", name, v.seq)
			if name == modelNames[3] {
				v.content = long(v.content, 100)
			}
		}
		versions = append(versions, v)
	}
	if len(versions) == 0 {
		rt.Skip("an empty pack")
	}
	m.remember(m.addBut(m.deaf(rt), versions...), versions)
}

func (m *model) doMerge(rt *rapid.T) {
	inputs := slices.DeleteFunc(m.live(), func(*raftmeta.Pack) bool { return rapid.Bool().Draw(rt, "stays") })
	var versions []version
	for _, p := range inputs {
		for ordinal, v := range m.inPack[p.ID] {
			if !p.IsDead(uint32(ordinal)) {
				versions = append(versions, v)
			}
		}
	}
	if len(versions) == 0 {
		rt.Skip("nothing to merge")
	}
	m.remember(m.merge(m.deaf(rt), inputs, versions...), versions)
}

func (m *model) doKill(rt *rapid.T) {
	live := slices.DeleteFunc(m.live(), func(p *raftmeta.Pack) bool { return p.Dead != nil }) // the first word counts
	if len(live) == 0 {
		rt.Skip("no pack to acknowledge")
	}
	p := rapid.SampledFrom(live).Draw(rt, "pack")
	m.kill(m.deaf(rt), p, rapid.Uint32Range(0, p.Records-1).Draw(rt, "ordinal"))
}

func (m *model) doRemove(rt *rapid.T) {
	live := m.live()
	if len(live) == 0 {
		rt.Skip("no pack to remove")
	}
	m.remove(m.deaf(rt), rapid.SampledFrom(live).Draw(rt, "pack"))
}

func (m *model) doCatchUp(rt *rapid.T) {
	n := m.nodes[rapid.SampledFrom(m.ids).Draw(rt, "node")]
	n.at.Store(rapid.Uint64Range(n.at.Load(), m.head()).Draw(rt, "index"))
}

// doTrouble draws what becomes of a node's questions from now on.
func (m *model) doTrouble(rt *rapid.T) {
	n := m.nodes[rapid.SampledFrom(m.ids).Draw(rt, "node")]
	n.asking(nil)
	n.editing(nil)
	switch all, lies := failures(), lies(); rapid.IntRange(0, 2).Draw(rt, "trouble") {
	case 1:
		all = slices.DeleteFunc(all, func(f struct {
			name   string
			fail   func(ctx context.Context) error
			reason reason
		},
		) bool {
			return f.name == "silent"
		})
		f := rapid.SampledFrom(all).Draw(rt, "failure")
		n.asking(func(ctx context.Context, _ ring.NodeID, _ *transport.Request) error { return f.fail(ctx) })
	case 2:
		// Only what can be known without the pack: a node that is behind has to
		// believe what it is told of seq and ordinal.
		lies = slices.DeleteFunc(lies, func(l struct {
			name string
			edit func(*transport.Answer)
		},
		) bool {
			return l.name == "a seq that the pack can't have" || l.name == "an ordinal that the pack can't have"
		})
		lie := rapid.SampledFrom(lies).Draw(rt, "lie")
		n.editing(func(a *transport.Answer) {
			// Nor can a header that comes alone be held against anything.
			if a.Body != nil || a.Location != nil || lie.name != "another size" && lie.name != "another hash" {
				lie.edit(a)
			}
		})
	}
}

func (m *model) doRead(rt *rapid.T) {
	n := m.nodes[rapid.SampledFrom(m.ids).Draw(rt, "node")]
	name := rapid.SampledFrom(modelNames).Draw(rt, "name")
	want := rapid.SampledFrom([]retriever.Want{retriever.WantWhole, retriever.WantPart, retriever.WantHeader}).Draw(rt, "want")
	from, to := n.at.Load(), m.head()
	f, err := n.router.Open(rt.Context(), name, retriever.Query{Want: want})
	if err != nil {
		m.checkMiss(rt, name, from, err)
		return
	}
	defer f.Close()
	sum, got := f.Record.Header.SHA256, ""
	if want != retriever.WantHeader {
		if got, err = contentOf(rt.Context(), &f, 0, f.Size()); err != nil {
			// Its pack has left since: told, and not by wrong bytes.
			rt.Fatalf("content of %q: %v", name, err)
		}
		sum = desformat.HashName(got)
	}
	for i := from; i <= to; i++ {
		if v := m.newest(name, i); v != nil && v.kind == 0 && desformat.HashName(v.content) == desformat.NameHash(sum) {
			return
		}
	}
	rt.Fatalf("node %s at index %d of %d reads %q as %q, which it was at none of them", n.id, from, to, name, got)
}

func (m *model) checkMiss(rt *rapid.T, name string, from uint64, err error) {
	now, then := m.newest(name, m.head()), m.newest(name, from)
	switch {
	case !m.quorum.Load() && errors.Is(err, retriever.ErrUnconfirmed) && (then == nil || then.kind != 0):
	case m.quorum.Load() && errors.Is(err, retriever.ErrNotFound) && now == nil:
	case m.quorum.Load() && errors.Is(err, retriever.ErrGone) && now != nil && now.kind != 0:
	default:
		rt.Fatalf("%q: %v, while it is %+v and was %+v at index %d, quorum %v", name, err, now, then, from, m.quorum.Load())
	}
}
