package retriever

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// gathered returns every metric of reg as name{label} → value; a histogram is
// its count.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += "{" + label.GetValue() + "}"
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestMetricsCountWhatTheySay(t *testing.T) {
	w := newWorld(t)
	content := long("small", 1000)
	damagedPack := w.pack(version{name: "corrupt", seq: 1, content: "C"})
	p := w.pack(
		version{name: "small", seq: 2, content: content}, version{name: "large", seq: 2, content: long("l", 3<<20)},
		version{name: "gone", seq: 2, kind: desformat.TypeTombstone},
	)
	w.manifest.set(damagedPack, p)
	w.rows.set(row("unpacked", source.Active), row("lost", source.DeletedSource), row("small", source.Packed))
	w.files.content["/unpacked"] = []byte("U")
	at := places(t, w, damagedPack)["corrupt"]
	w.store.Damage(damagedPack.Copies[0].Key, func(b []byte) []byte { b[at.Offset+at.Length-1] ^= 1; return b })

	reg := prometheus.NewRegistry()
	clock := epoch
	r := w.retriever(func(c *Config) {
		c.Registerer = reg
		c.Now = func() time.Time { clock = clock.Add(time.Millisecond); return clock }
		c.Misses = &limiter{forbidden: "guesser", missed: map[string]int{}}
	})
	before := gathered(t, reg)
	step := func(name string, do func(), want map[string]float64) {
		t.Run(name, func(t *testing.T) {
			do()
			now := gathered(t, reg)
			changed := map[string]float64{}
			for k, v := range now {
				if v != before[k] && k != "des_retriever_cache_bytes{data}" && k != "des_retriever_cache_bytes{index}" && k != "des_retriever_locate_seconds" {
					changed[k] = v - before[k]
				}
			}
			before = now
			if !maps.Equal(changed, want) {
				t.Errorf("changed: %v\nwant:    %v", changed, want)
			}
		})
	}
	open := func(name string, q Query) func() {
		return func() {
			ctx := t.Context()
			if q.Client == "cancelled" {
				cancelled, cancel := context.WithCancel(ctx)
				cancel()
				ctx = cancelled
			}
			f, err := r.Open(ctx, name, q)
			if err != nil {
				return
			}
			defer f.Close()
			if _, err := contentOf(ctx, &f); err != nil && q.Want != WantHeader {
				t.Error(err)
			}
		}
	}
	// Expectations are written as what follows des_retriever_.
	m := func(pairs ...any) map[string]float64 {
		out := map[string]float64{}
		for i := 0; i < len(pairs); i += 2 {
			out["des_retriever_"+fmt.Sprint(pairs[i])] = float64(pairs[i+1].(int)) //nolint:forcetypeassert // written right here
		}
		return out
	}
	index, record := int(p.Index.Length), int(places(t, w, p)["small"].Length)
	largeAt := places(t, w, p)["large"]
	step("cold", open("small", Query{}), m(
		"reads_total{store}", 1, "store_requests_total{index}", 2, "store_requests_total{record}", 1,
		"store_bytes_total{index}", index+int(damagedPack.Index.Length), "store_bytes_total{record}", record,
		"cache_entries{index}", 2, "cache_entries{data}", 1, "cache_misses_total{index}", 1, "cache_misses_total{data}", 1,
	))
	step("hot", open("small", Query{}), m("reads_total{hot}", 1, "cache_hits_total{index}", 1, "cache_hits_total{data}", 1))
	step("header of a hot record", open("small", Query{Want: WantHeader}), m("reads_total{hot}", 1, "cache_hits_total{index}", 1, "cache_hits_total{data}", 1))
	step("large", open("large", Query{}), m(
		"reads_total{store}", 1, "store_requests_total{record}", 1, "store_bytes_total{record}", int(largeAt.Length),
		"cache_hits_total{index}", 1, "cache_misses_total{data}", 1, "cache_entries{data}", 1,
	))
	h, err := desformat.ReadHeader(t.Context(), direct(w, p), largeAt)
	if err != nil {
		t.Fatal(err)
	}
	step("large, header known", open("large", Query{}), m(
		"reads_total{store}", 1, "store_requests_total{content}", 1, "store_bytes_total{content}", int(h.StoredLen),
		"cache_hits_total{index}", 1, "cache_hits_total{data}", 1,
	))
	step("corrupt", open("corrupt", Query{}), m(
		"reads_total{corrupt}", 1, "corrupt_total{flipped}", 1, "store_requests_total{record}", 1, "store_bytes_total{record}", int(at.Length),
		"cache_hits_total{index}", 2, "cache_misses_total{data}", 1,
	))
	step("not found", open("never", Query{}), m("reads_total{not-found}", 1, "cache_hits_total{index}", 4))
	step("gone", open("gone", Query{}), m(
		"reads_total{gone}", 1, "store_requests_total{record}", 1, "store_bytes_total{record}", int(places(t, w, p)["gone"].Length),
		"cache_entries{data}", 1, "cache_hits_total{index}", 2, "cache_misses_total{data}", 1, "cache_hits_total{data}", 1,
	))
	step("not packed yet", open("unpacked", Query{}), m("reads_total{source}", 1, "cache_hits_total{index}", 4))
	step("by id", func() {
		if got, err := readID(t.Context(), r, "", idOf("small")); err != nil || got != content {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}, m("reads_total{by-id}", 1, "cache_hits_total{index}", 1, "cache_hits_total{data}", 1))
	step("lost", open("lost", Query{}), m("reads_total{unavailable}", 1, "lost_records_total", 1, "cache_hits_total{index}", 6))
	step("invalid name", open("a//b", Query{}), m("reads_total{invalid-name}", 1))
	step("forbidden client", open("never", Query{Client: "guesser"}), m("reads_total{busy}", 1, "cache_hits_total{index}", 2))
	step("client left", open("never", Query{Client: "cancelled"}), m("reads_total{canceled}", 1, "cache_hits_total{index}", 2))
	w.manifest.confirming(withoutQuorum)
	step("without a quorum", open("never", Query{}), m("reads_total{unconfirmed}", 1, "cache_hits_total{index}", 2))
	w.manifest.confirming(nil)

	w.store.Lose(p.Copies[0].Key)
	step("object missing", func() {
		f, err := r.Open(t.Context(), "large", Query{Want: WantPart})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = part(t.Context(), &f, 0, 10)
		wantOnly(t, err, desformat.ErrCorrupt)
	}, m("reads_total{store}", 1, "store_requests_total{content}", 1, "corrupt_total{missing}", 1, "missing_objects_total", 1, "cache_hits_total{index}", 1, "cache_hits_total{data}", 1))

	if n := before["des_retriever_locate_seconds"]; n != 16 {
		t.Errorf("%v reads timed, want 16", n)
	}
	if s := r.Stats(); float64(s.DataBytes) != before["des_retriever_cache_bytes{data}"] || float64(s.IndexBytes) != before["des_retriever_cache_bytes{index}"] ||
		float64(s.IndexCap) != before["des_retriever_cache_cap_bytes{index}"] || float64(s.DataCap) != before["des_retriever_cache_cap_bytes{data}"] ||
		float64(s.StoreRequests) != float64(w.store.Counts().Get) {
		t.Errorf("%+v and the collectors differ, or %d GETs", s, w.store.Counts().Get)
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	w.retriever(func(c *Config) { c.Registerer = reg })
	_, err := New(Config{Manifest: w.manifest, Store: w.store, Sources: func() []Source { return nil }, Registerer: reg})
	if err == nil {
		t.Error("a second retriever registered the same metrics")
	}
}
