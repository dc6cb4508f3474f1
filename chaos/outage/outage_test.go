package outage

import (
	"flag"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// outage is how long each thing is taken away.
var outage = flag.Duration("outage", 4*time.Second, "how long each outage lasts")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m,
		// Connections of the readers' pool.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		// toxiproxy waits for ever to hand over what a cut connection left behind.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}

// patience is how long the rest of the work may take once all is well again.
const patience = 3 * time.Minute

func TestPostgresStopsInMidRun(t *testing.T) {
	w := newWorld(t)
	early := w.add("early", 1000)
	w.command(w.bin, "--addr", w.base, "archive")
	w.packed(patience)
	stop := w.readers(early, 4)
	w.add("late", 3000)
	time.Sleep(500 * time.Millisecond) // into the middle of marking and packing
	w.check(w.pg.Stop())
	time.Sleep(*outage)
	w.check(w.pg.Start(t.Context()))
	w.packed(patience)
	answers := stop()
	for _, a := range answers {
		if !a.right {
			t.Errorf("a read of an archived file by name: %+v", a)
		}
	}
	t.Logf("%d reads, all right", len(answers))
	w.whole()
}

// readLimit is how long a read may take to be refused: the retriever's time
// limit and what a slow machine adds.
const readLimit = 45 * time.Second

func TestStoreFails(t *testing.T) {
	w := newWorld(t)
	early := w.add("early", 1000)
	w.command(w.bin, "--addr", w.base, "archive")
	w.packed(patience)
	for _, fault := range []struct {
		name  string
		begin func() (heal func())
	}{
		{"answers 503", func() func() {
			w.s3.busy.Store(true)
			return func() { w.s3.busy.Store(false) }
		}},
		{"hangs", func() func() { return w.s3.toxic(`{"type": "timeout", "attributes": {"timeout": 0}}`) }},
		{"resets", func() func() { return w.s3.toxic(`{"type": "reset_peer", "attributes": {"timeout": 20}}`) }},
		{"is slow to answer", func() func() {
			return w.s3.toxic(`{"type": "latency", "attributes": {"latency": 700, "jitter": 300}}`)
		}},
		{"drips", func() func() { return w.s3.toxic(`{"type": "bandwidth", "attributes": {"rate": 64}}`) }},
		{"cuts answers short", func() func() { return w.s3.toxic(`{"type": "limit_data", "attributes": {"bytes": 20000}}`) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			w.add(strings.ReplaceAll(fault.name, " ", "-"), 300)
			stop := w.readers(early, 4)
			time.Sleep(200 * time.Millisecond)
			heal := fault.begin()
			time.Sleep(*outage)
			heal()
			w.packed(patience)
			count := map[int]int{}
			for _, a := range stop() {
				count[a.status]++
				switch {
				case a.right:
				case a.status == http.StatusServiceUnavailable && a.retry != "" && a.err == nil && a.took < readLimit:
				default:
					t.Errorf("%+v", a)
				}
			}
			t.Logf("reads by status: %v", count)
		})
	}
	w.whole()
}
