package router

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// wantRoutes fails the test unless the node's reads since the last call went
// these ways.
func (n *node) wantRoutes(t testing.TB, want map[string]int) {
	t.Helper()
	for i := range routes {
		name := routeNames[i]
		if got := routed(n, i); got != want[name] {
			t.Errorf("node %s: %d reads went by %s, want %d", n.id, got, name, want[name])
		}
	}
}

func (n *node) fallbacks(r reason) int { return int(testutil.ToFloat64(n.router.metrics.fallbacks[r])) }

// spent returns the requests to the store that a node makes during f.
func (n *node) spent(f func()) int64 {
	before := n.gets.Load()
	f()
	return n.gets.Load() - before
}

// big is the content of a record whose content does not come with the answer.
var big = long("big", 3<<20)

func TestSmallRecordComesFromItsOwnerAndIsKept(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	a, b := w.nodes["a"], w.nodes["b"]

	if got := a.spent(func() { b.wantRead(t, "x", "hello") }); got != 2 {
		t.Errorf("a cold read costs the owner %d requests, want 2", got)
	}
	b.wantRoutes(t, map[string]int{"owner": 1})
	b.wantRead(t, "x", "hello")
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 1})
	if got := a.asked.Load(); got != 1 {
		t.Errorf("the owner was asked %d times, want once", got)
	}
	if got := b.gets.Load(); got != 0 {
		t.Errorf("the other node made %d requests to the store, want none", got)
	}
}

func TestOwnerAnswersItself(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	w.nodes["a"].wantRead(t, "x", "hello")
	w.nodes["a"].wantRoutes(t, map[string]int{"local": 1})
	if w.nodes["b"].asked.Load() != 0 {
		t.Error("the owner asked another node")
	}
}

func TestWithoutARingTheNodeAnswersItself(t *testing.T) {
	w := newWorld(t)
	n := w.start("a", func(c *Config) { c.Ring = owners{} })
	w.add(version{name: "x", seq: 1, content: "hello"})
	n.wantRead(t, "x", "hello")
	n.wantRoutes(t, map[string]int{"local": 1})
}

func TestNameThatNoPackCoversMakesNoHop(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.rows.set(row("unpacked", "1"))
	w.files["/unpacked"] = "from the source"
	b := w.nodes["b"]
	b.wantRead(t, "unpacked", "from the source")
	b.wantError(t, "nothing", retriever.ErrNotFound)
	b.wantError(t, "not/../fit", desformat.ErrInvalidName)
	b.wantRoutes(t, map[string]int{"local": 2})
	if got := w.nodes["a"].asked.Load(); got != 0 {
		t.Errorf("the owner was asked %d times for what no pack can hold", got)
	}
}

func TestLargeRecordIsReadWhereItsOwnerSays(t *testing.T) {
	for _, test := range []struct {
		name       string
		want       retriever.Want
		off, n     int64
		cold, next int64 // requests of the reading node
	}{
		{"the whole", retriever.WantWhole, 0, int64(len(big)), 1, 1},
		{"a range", retriever.WantPart, 1<<20 + 5, 100, 2, 1},
		{"an empty range", retriever.WantPart, int64(len(big)), 0, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.add(version{name: "big", seq: 1, content: big})
			b := w.nodes["b"]
			read := func() {
				f, err := b.router.Open(t.Context(), "big", retriever.Query{Want: test.want})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				got, err := contentOf(t.Context(), &f, test.off, test.n)
				if err != nil || got != big[test.off:test.off+test.n] {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
			}
			if got := b.spent(read); got != test.cold {
				t.Errorf("the first read costs %d requests, want %d", got, test.cold)
			}
			if got := w.nodes["a"].gets.Load(); got != 2 {
				t.Errorf("the owner made %d requests, want 2: index and header", got)
			}
			if got := b.spent(read); got != test.next {
				t.Errorf("the next read costs %d requests, want %d", got, test.next)
			}
			b.wantRoutes(t, map[string]int{"location": 1, "hot": 1})
		})
	}
}

func TestHeaderOfALargeRecordCostsTheReaderNothing(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "big", seq: 1, content: big})
	b := w.nodes["b"]
	for range 2 {
		f, err := b.router.Open(t.Context(), "big", retriever.Query{Want: retriever.WantHeader})
		if err != nil {
			t.Fatal(err)
		}
		if f.Size() != int64(len(big)) {
			t.Errorf("size %d", f.Size())
		}
		f.Close()
	}
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 1})
	b.wantRead(t, "big", big) // the kept header alone does not serve content
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 1, "location": 1})
}

func TestEmptyRecordIsKept(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "empty", seq: 1})
	b := w.nodes["b"]
	b.wantRead(t, "empty", "")
	b.wantRead(t, "empty", "")
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 1})
	if b.gets.Load() != 0 {
		t.Error("the reading node went to the store")
	}
}

// The least index is that of the newest pack that covers the name, which need
// not be the one that holds it.
func TestTheOwnerIsToldWhatTheReadIsAbout(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	w.commit(func(p []*raftmeta.Pack, _ uint64) []*raftmeta.Pack { return p })
	w.add(version{name: "y", seq: 9, content: "later"})
	b := w.nodes["b"]
	for _, test := range []struct {
		want retriever.Want
		kind transport.Kind
	}{{retriever.WantHeader, transport.KindStat}, {retriever.WantWhole, transport.KindOpen}} {
		var q transport.Request
		b.asking(func(_ context.Context, _ ring.NodeID, asked *transport.Request) error {
			q = *asked
			return nil
		})
		f, err := b.router.Open(t.Context(), "x", retriever.Query{Want: test.want, RequestID: "r-1", Traceparent: "00-ab"})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		want := transport.Request{
			Kind: test.kind, Name: "x", MinIndex: 3, Hops: 1, RequestID: "r-1", Traceparent: "00-ab", MaxPayload: 1 << 20,
		}
		if q != want {
			t.Errorf("asked %+v, want %+v", q, want)
		}
	}
}

func TestOpenIDServesTheRowsOwnRecordOnly(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello", id: "7"}, version{name: "y", seq: 1, content: "of another", id: "8"})
	w.rows.set(row("x", "7"), row("y", "9"))
	w.files["/y"] = "of the row itself"
	b := w.nodes["b"]
	for _, test := range []struct {
		name, id, want string
		route          string
	}{
		{"the row's record", "7", "hello", "owner"},
		{"the record of another id under that name", "9", "of the row itself", "owner"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := b.router.OpenID(t.Context(), "", test.id, retriever.Query{})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := contentOf(t.Context(), &f, 0, f.Size()); err != nil || got != test.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	before := w.rows.questions()
	if _, err := b.router.OpenID(t.Context(), "", "10", retriever.Query{}); !errors.Is(err, retriever.ErrNotFound) {
		t.Errorf("an id that no row has: %v", err)
	}
	if got := w.rows.questions() - before; got != 1 {
		t.Errorf("the source was asked %d times for an id that it does not have, want once", got)
	}
}

func TestLocateNamesTheOwners(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.add(version{name: "x", seq: 1, content: "hello"})
	for id, n := range w.nodes {
		p, err := n.router.Locate(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if p.Owner != "a" || !slices.Equal(p.Fallbacks, []string{"b", "c"}) {
			t.Errorf("node %s: owner %q, fallbacks %q", id, p.Owner, p.Fallbacks)
		}
	}
	if _, err := w.nodes["b"].router.Locate(t.Context(), "nothing"); !errors.Is(err, retriever.ErrNotFound) {
		t.Errorf("a name that does not exist: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t, "a")
	good := w.nodes["a"].router.cfg
	for _, test := range []struct {
		name string
		edit func(*Config)
	}{
		{"no self", func(c *Config) { c.Self = "" }},
		{"no ring", func(c *Config) { c.Ring = nil }},
		{"no peers", func(c *Config) { c.Peers = nil }},
		{"no retriever", func(c *Config) { c.Local = nil }},
		{"a negative time", func(c *Config) { c.HopTimeout = -1 }},
		{"too many hedges", func(c *Config) { c.HedgePercent = 101 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := good
			test.edit(&c)
			if _, err := New(c); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestMetricsAreRegistered(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	reg := prometheus.NewPedanticRegistry()
	n := w.start("b", func(c *Config) { c.Registerer = reg })
	n.wantRead(t, "x", "hello")
	got, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, family := range got {
		names = append(names, family.GetName())
	}
	want := []string{"des_router_fallbacks_total", "des_router_hedges_total", "des_router_hop_seconds", "des_router_routes_total", "des_router_served_total"}
	if !slices.Equal(names, want) {
		t.Errorf("metrics %q, want %q", names, want)
	}
	if _, err := New(Config{Self: "b", Ring: w.order, Peers: n, Local: n.local, Registerer: reg}); err == nil {
		t.Error("two routers share one registry")
	}
}
