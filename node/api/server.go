package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
)

// Files answers reads. *retriever.Retriever is one; the errors are its own.
// All methods may be called at once.
type Files interface {
	Open(ctx context.Context, name string, q retriever.Query) (retriever.File, error)
	OpenID(ctx context.Context, source, id string, q retriever.Query) (retriever.File, error)
	Locate(ctx context.Context, name string) (*retriever.Place, error)
}

// Operator does what the operator asks for. The functions handed in receive
// events while the work goes on, from one goroutine at a time; when one returns
// an error, the client is gone: the work may end or go on, and returns. Errors
// that wrap ErrInvalidRequest or ErrConflict, a *Problem, and the errors of
// Files are answered as such, any other as internal.
type Operator interface {
	Import(ctx context.Context, req ImportRequest, event func(ImportEvent) error) error
	Archive(ctx context.Context, req ArchiveRequest, event func(ArchiveEvent) error) error
	Verify(ctx context.Context, req VerifyRequest, event func(VerifyEvent) error) error
	Retry(ctx context.Context, req RetryRequest) (RetryResponse, error)
	Failed(ctx context.Context, q FailedQuery) (FailedPage, error)
}

// Observer tells how the node is. Errors as Operator's.
type Observer interface {
	Status(ctx context.Context) (Status, error)
	Packs(ctx context.Context) (PackList, error)
	Leases(ctx context.Context) (LeaseList, error)
	Backlog(ctx context.Context) (Backlog, error)
}

// FailedQuery asks for a page of rows with an archive_error.
type FailedQuery struct {
	Source string // empty: all sources
	Code   string // empty: whatever the failure code
	After  string // the Next of the page before; empty: the first page
	Limit  int    // 1 to MaxFailed
}

// MaxFailed is the largest page of failed rows.
const MaxFailed = 1000

// Errors that an Operator or Observer may wrap.
var (
	// ErrInvalidRequest: what the request asks for makes no sense; answered 400.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrConflict: such work is under way already, or the present state forbids
	// it; answered 409.
	ErrConflict = errors.New("conflict")
)

// Config says what a Server answers for. Files, Operator, Observer and Node are
// needed; the zero value of everything else is the default named beside it.
type Config struct {
	Files    Files
	Operator Operator
	Observer Observer
	Node     raftmeta.NodeID
	Shared   []string // folders and files in the data dir that other nodes use too
	// Throttler answers PathThrottle, PathPause and PathResume; nil: nothing does.
	Throttler Throttler
	// Cluster answers PathMembers, PathRing and so on; nil: nothing does.
	Cluster Cluster
	// Recoverer answers PathUnfinished, PathRecover and PathCompare; nil: nothing does.
	Recoverer Recoverer
	// Backups answers PathBackup and PathBackups; nil: nothing does.
	Backups Backups
	// ShardBits is the length of a shard's prefix; nil: the default of 10.
	ShardBits func() uint8
	// Ready says why the node can't answer yet; nil: it always can.
	Ready func(ctx context.Context) error
	// Quorum reports whether a leader is known; nil: always. Without one, hits
	// are marked as unconfirmed.
	Quorum func() bool

	Gatherer   prometheus.Gatherer   // behind /metrics; nil: prometheus.DefaultGatherer
	Registerer prometheus.Registerer // nil: the metrics are kept but not registered
	Logger     *slog.Logger          // nil: slog.Default
	Now        func() time.Time      // nil: time.Now

	HeaderTimeout   time.Duration // to receive a request's header; default 10 s
	BodyTimeout     time.Duration // to receive a request's body; default 30 s
	IdleTimeout     time.Duration // of a connection between requests; default 2 min
	StallTimeout    time.Duration // of one write to the client; default 60 s
	ShutdownTimeout time.Duration // for answers under way when the node stops; default 10 s
}

func (c Config) validate() error {
	switch {
	case c.Files == nil, c.Operator == nil, c.Observer == nil, c.Node == "":
		return errors.New("api: Files, Operator, Observer and Node are needed")
	case c.HeaderTimeout < 0, c.BodyTimeout < 0, c.IdleTimeout < 0, c.StallTimeout < 0, c.ShutdownTimeout < 0:
		return errors.New("api: a time limit is negative")
	}
	return nil
}

func or[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}

func (c Config) withDefaults() Config {
	if c.ShardBits == nil {
		c.ShardBits = func() uint8 { return 10 }
	}
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.Quorum == nil {
		c.Quorum = func() bool { return true }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Gatherer == nil {
		c.Gatherer = prometheus.DefaultGatherer
	}
	c.Logger = or(c.Logger, slog.Default())
	c.HeaderTimeout = or(c.HeaderTimeout, 10*time.Second)
	c.BodyTimeout = or(c.BodyTimeout, 30*time.Second)
	c.IdleTimeout = or(c.IdleTimeout, 2*time.Minute)
	c.StallTimeout = or(c.StallTimeout, time.Minute)
	c.ShutdownTimeout = or(c.ShutdownTimeout, 10*time.Second)
	return c
}

// maxHeaderBytes bounds a request's header: a name of 1024 bytes takes 3 KiB
// when every byte is escaped.
const maxHeaderBytes = 32 << 10

// Server is the HTTP face of a node.
type Server struct {
	cfg     Config
	metrics *metrics
	ids     *requestIDs
	node    []string // X-Des-Node, shared by all answers
	scrape  http.Handler

	describe func(*retriever.Record) any // recordEntity, bound once: it is handed over with each read
}

// New makes a Server and starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), node: []string{string(cfg.Node)}}
	s.describe = s.recordEntity
	var err error
	if s.ids, err = newRequestIDs(); err != nil {
		return nil, fmt.Errorf("request ids: %w", err)
	}
	if s.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s.scrape = promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{})
	return s, nil
}

// Run answers on l until ctx ends, then lets answers under way finish within
// ShutdownTimeout. It closes l. It returns nil when ctx has ended.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := s.httpServer(ctx)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(limited)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close() // the rest is cut
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// httpServer is the standard server with our limits. Requests end when the
// server is closed, not when ctx ends: what is under way may finish.
func (s *Server) httpServer(ctx context.Context) *http.Server {
	return &http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            s.cfg.HeaderTimeout,
		IdleTimeout:                  s.cfg.IdleTimeout,
		WriteTimeout:                 s.cfg.StallTimeout, // moved on by each write of a stream
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
}
