package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// finder is the retriever as the packer asks it.
type finder struct{ r *retriever.Retriever }

func (f finder) Find(ctx context.Context, name string) (*packer.Found, error) {
	found, err := f.r.Find(ctx, name)
	if errors.Is(err, retriever.ErrNotFound) {
		return nil, packer.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	h := found.Header
	return &packer.Found{
		Pack: found.Pack, Ordinal: found.Ordinal, Source: h.Source, ID: h.ID,
		Size: h.Size, ModTime: h.ModTime, Version: h.Version, SHA256: h.SHA256,
	}, nil
}

// rootSet is the roots of one source: those of the configuration and those
// that imports have added for the whole cluster.
type rootSet struct {
	meta   *raftmeta.Meta
	source string
	fixed  []string
	log    *slog.Logger
	known  atomic.Pointer[knownRoots]
}

type knownRoots struct {
	modIndex uint64 // of the setting
	roots    []string
}

// list returns the roots as of the newest view. It is called for every file
// that is opened, so it parses the setting only when that has changed.
func (r *rootSet) list() []string {
	_, modIndex, _ := r.meta.View().Setting(rootsKey(r.source))
	if k := r.known.Load(); k != nil && k.modIndex == modIndex {
		return k.roots
	}
	imported, modIndex, err := listSetting(r.meta.View(), rootsKey(r.source))
	if err != nil {
		r.log.Error("imported roots are not known; their files can't be read", "source", r.source, "err", err)
		return r.fixed
	}
	k := &knownRoots{modIndex: modIndex, roots: slices.Concat(r.fixed, imported)}
	r.known.Store(k)
	return k.roots
}

// storeCollector shows the requests made of the store.
type storeCollector struct{ store *store.Counted }

var (
	storeRequests = prometheus.NewDesc("des_store_requests_total", "Requests made of the object store, by kind.", []string{"kind"}, nil)
	storeErrors   = prometheus.NewDesc("des_store_errors_total", "Requests of the object store that returned an error.", nil, nil)
	storeBytes    = prometheus.NewDesc("des_store_bytes_total", "Bytes moved to (put) and from (get) the object store.", []string{"kind"}, nil)
)

func (c storeCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- storeRequests
	ch <- storeErrors
	ch <- storeBytes
}

func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	show := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	counts := c.store.Counts()
	for _, kind := range store.Kinds() {
		show(storeRequests, counts.Of(kind), kind.String())
	}
	show(storeErrors, counts.Failed)
	show(storeBytes, counts.BytesPut, store.KindPut.String())
	show(storeBytes, counts.BytesGot, store.KindGet.String())
}
