package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
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
	fixed  []source.Root
	log    *slog.Logger
	known  atomic.Pointer[knownRoots]
}

type knownRoots struct {
	modIndex uint64 // of the setting
	roots    []source.Root
}

// list returns the roots as of the newest view. It is called for every file
// that is opened, so it parses the setting only when that has changed.
func (r *rootSet) list() []source.Root {
	_, modIndex, _ := r.meta.View().Setting(rootsKey(r.source))
	if k := r.known.Load(); k != nil && k.modIndex == modIndex {
		return k.roots
	}
	imported, modIndex, err := listSetting(r.meta.View(), rootsKey(r.source))
	if err != nil {
		r.log.Error("imported roots are not known; their files can't be read", "source", r.source, "err", err)
		return r.fixed
	}
	k := &knownRoots{modIndex: modIndex, roots: slices.Clone(r.fixed)}
	for _, folder := range imported {
		k.roots = append(k.roots, source.FolderRoot(folder))
	}
	r.known.Store(k)
	return k.roots
}

// settings are the replicated settings as package pace asks for them.
type settings struct{ meta *raftmeta.Meta }

func (s settings) Setting(key string) (value []byte, modIndex uint64, ok bool) {
	return s.meta.View().Setting(key)
}

func (s settings) Changed() <-chan struct{} { return s.meta.Changed() }

func (s settings) Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error {
	return s.meta.Set(ctx, key, value, ifModIndex)
}

// limits puts the configured pace into the words of package pace.
func limits(c config.Pace) pace.Limits {
	return pace.Limits{
		FilesPerSecond: c.FilesPerSecond, FilesPerDay: c.FilesPerDay,
		BytesPerSecond: int64(c.BytesPerSecond), BytesPerDay: int64(c.BytesPerDay), Windows: c.Windows,
	}
}

// objects is a bucket as originals need it.
type objects struct{ s3 *store.S3 }

// causeOriginal is the cause of the requests for originals.
const causeOriginal = "original"

func (o objects) Head(ctx context.Context, key string) (source.ObjectInfo, error) {
	found, err := o.s3.Head(store.WithCause(ctx, causeOriginal), key, "")
	if err != nil {
		return source.ObjectInfo{}, originalError(err)
	}
	return source.ObjectInfo{Size: found.Size, ModTime: found.Modified, Version: found.Version}, nil
}

func (o objects) Get(ctx context.Context, key, version string, off, size int64) (io.ReadCloser, error) {
	r, err := o.s3.Get(store.WithCause(ctx, causeOriginal), key, version, off, size)
	return r, originalError(err)
}

func (o objects) Delete(ctx context.Context, key, version string) error {
	return originalError(o.s3.DeleteVersion(store.WithCause(ctx, causeOriginal), key, version))
}

// originalError puts a store's answer about an object into package source's
// words: replaced before missing, since a replaced version is missing too.
func originalError(err error) error {
	switch {
	case errors.Is(err, store.ErrReplaced):
		return fmt.Errorf("%w: %w", source.ErrChanged, err)
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w: %w", source.ErrNoFile, err)
	case errors.Is(err, store.ErrFrozen):
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	case errors.Is(err, store.ErrAccess):
		return fmt.Errorf("%w: %w", source.ErrDenied, err)
	}
	return err
}

// storeCollector shows the requests made of the store. Where the store counts
// what it really sends, each attempt and part, that is shown; else its calls.
type storeCollector struct{ store *store.Counted }

var (
	storeRequests = prometheus.NewDesc("des_store_requests_total",
		"Requests sent to the object store, by kind, what they were for, and class of cost (put, get, free).",
		[]string{"kind", "cause", "class"}, nil)
	storeCalls  = prometheus.NewDesc("des_store_calls_total", "Calls of the object store, by kind; each is one or more requests.", []string{"kind"}, nil)
	storeErrors = prometheus.NewDesc("des_store_errors_total", "Calls of the object store that returned an error.", nil, nil)
	storeBytes  = prometheus.NewDesc("des_store_bytes_total", "Bytes moved to (put) and from (get) the object store.", []string{"kind"}, nil)
)

func (c storeCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- storeRequests
	ch <- storeCalls
	ch <- storeErrors
	ch <- storeBytes
}

func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	show := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	for _, r := range c.store.Requests() {
		show(storeRequests, r.Count, r.Kind.String(), r.Cause, r.Class.String())
	}
	counts := c.store.Counts()
	for _, kind := range store.Kinds() {
		show(storeCalls, counts.Of(kind), kind.String())
	}
	show(storeErrors, counts.Failed)
	show(storeBytes, counts.BytesPut, store.KindPut.String())
	show(storeBytes, counts.BytesGot, store.KindGet.String())
}
