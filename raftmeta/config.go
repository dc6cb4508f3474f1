package raftmeta

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

const (
	minShardBits     = 4
	maxShardBits     = 16
	defaultShardBits = 10

	defaultLeaseTTL = 30 * time.Second
	defaultTimeout  = 10 * time.Second
	defaultElection = time.Second

	defaultDeadAfter = 72 * time.Hour
)

// Config says where and as whom a Meta runs. A zero field is its default.
type Config struct {
	Dir     string              // folder of the log and snapshots; made when missing. Required
	Node    NodeID              // this node's persistent id. Required
	Cluster desformat.ClusterID // the cluster it belongs to, or forms. Required

	ShardBits  uint8  // 4 to 16; 0: the cluster's own, 10 when it is formed
	Generation uint64 // 0: the cluster's own, 1 when it is formed
	Join       bool   // an empty Dir waits to be added by a member instead of forming a cluster
	Formed     bool   // this node was in the cluster before: an empty Dir is ErrStateLost, nothing is formed

	Transport raft.Transport // nil: in memory, alone. A node's address is its id. Run closes it when it ends
	Peers     Peers          // carries this package's calls to other nodes; nil: alone
	Logger    *slog.Logger   // nil: silent

	LeaseTTL time.Duration // a lease not renewed for that long expires; 0: 30 s
	Timeout  time.Duration // of one command or confirmation whose context allows more; 0: 10 s
	// DeadAfter is how long a leader does not hear of a member until it removes
	// it; 0: 72 h.
	DeadAfter time.Duration
	Election  time.Duration // Raft's heartbeat and election time; 0: 1 s. Nobody to wait for without a Transport: 20 ms
}

func (c Config) validate() error {
	var errs []error
	fail := func(cond bool, text string) {
		if cond {
			errs = append(errs, errors.New(text))
		}
	}
	fail(c.Dir == "", "Dir is empty")
	fail(c.Node == "", "Node is empty")
	fail(c.Cluster == desformat.ClusterID{}, "Cluster is zero")
	fail(c.ShardBits != 0 && (c.ShardBits < minShardBits || c.ShardBits > maxShardBits), "ShardBits is not 4 to 16")
	fail(c.Join && c.Transport == nil, "Join needs a Transport")
	fail(c.Transport != nil && c.Transport.LocalAddr() != raft.ServerAddress(c.Node), "Transport's address is not Node")
	fail(c.LeaseTTL < 0 || c.Timeout < 0 || c.Election < 0 || c.DeadAfter < 0, "a time is negative")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("raftmeta config: %w: %w", ErrInvalid, err)
	}
	return nil
}

func (c Config) leaseTTL() time.Duration { return orDefault(c.LeaseTTL, defaultLeaseTTL) }
func (c Config) timeout() time.Duration  { return orDefault(c.Timeout, defaultTimeout) }

func (c Config) deadAfter() time.Duration { return orDefault(c.DeadAfter, defaultDeadAfter) }

func (c Config) shardBits() uint8   { return orDefault(c.ShardBits, defaultShardBits) }
func (c Config) generation() uint64 { return orDefault(c.Generation, 1) }

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// margin is how long before a lease may expire its holder stops: it covers
// clocks that run at different speeds.
func (c Config) margin() time.Duration { return c.leaseTTL() / 10 }

func (c Config) election() time.Duration {
	if c.Transport == nil {
		return orDefault(c.Election, 20*time.Millisecond)
	}
	return orDefault(c.Election, defaultElection)
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
