package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Level says what a finding asks of whoever runs the store.
type Level uint8

// The levels, from harmless to bad.
const (
	LevelOK     Level = iota // as it should be
	LevelUntold              // the server or the credentials do not tell; nothing speaks against it
	LevelWarn                // works, at the price that Means names
	LevelBad                 // does not work, or files are at risk
)

// String returns the level in lower case.
func (l Level) String() string { return [...]string{"ok", "untold", "warn", "bad"}[l] }

// MarshalText is String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is what a probe found out about one property of a store.
type Finding struct {
	Check string `json:"check"` // fixed words: "conditional create"
	Level Level  `json:"level"`
	Seen  string `json:"seen"`            // what the server did
	Means string `json:"means,omitempty"` // what follows from that for desnode
	Set   string `json:"set,omitempty"`   // what to change; empty when nothing is to be
}

// ProbeRole is what credentials are for.
type ProbeRole string

// The roles of credentials.
const (
	ProbeRead    ProbeRole = "read"
	ProbeWrite   ProbeRole = "write"
	ProbeCollect ProbeRole = "collect"
)

// ProbeConfig says which bucket Probe looks at, and as whom.
type ProbeConfig struct {
	S3 S3Config
	// Roles are those whose credentials the node uses; the one to read always
	// is. nil: all. What takes another role is left out.
	Roles []ProbeRole
	// Now is our clock; nil: time.Now.
	Now func() time.Time
}

// Bounds of a probe.
const (
	probeRequestTimeout = 30 * time.Second
	probeTidyTimeout    = 60 * time.Second
	probeRacers         = 16 // writers that race for one key
	probeForeignAge     = time.Hour
)

// Probe tries the real bucket and says what it found, in a fixed order.
//
// It writes a few dozen small objects below <prefix>/probe/<time>-<random>/,
// nowhere else, and removes them. Those of a probe that was cut are removed by
// a later one, an hour on. Without credentials to collect it can't remove what
// it wrote, and says so.
//
// An unreachable or refusing server is a finding; an error is a configuration
// that makes no sense, or the end of ctx.
func Probe(ctx context.Context, c ProbeConfig) ([]Finding, error) {
	t, err := openProbeTarget(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	defer t.close()
	if c.Now == nil {
		c.Now = time.Now
	}
	return runProbe(ctx, t, c.Now)
}

// probeTarget is the bucket that is probed, with a client for each role.
type probeTarget struct {
	bucket string
	prefix string // "" or ends with "/"
	// clients by role; ProbeRead is there always.
	clients  map[ProbeRole]*s3.Client
	keyIDs   map[ProbeRole]string // access key ids; "" when there are none
	endpoint string               // "": Amazon's
	ownCA    bool
	wire     *probeWire
	close    func()
}

// probing is one run of Probe.
type probing struct {
	probeTarget
	folder   string // ends with "/"
	now      func() time.Time
	findings []Finding

	mu   sync.Mutex // guards made
	made []probeMade
}

// probeMade is one version of an object that a probe wrote.
type probeMade struct{ key, version string }

func runProbe(ctx context.Context, t probeTarget, now func() time.Time) ([]Finding, error) {
	folder, err := probeFolder(t.prefix, now())
	if err != nil {
		return nil, err
	}
	p := &probing{probeTarget: t, folder: folder, now: now}
	p.add(judgeTransport(p.endpoint, p.ownCA))
	defer p.tidyAfter(ctx)
	if p.reach(ctx) {
		for _, check := range p.checks() {
			if ctx.Err() != nil {
				return p.findings, ctx.Err()
			}
			check(ctx)
		}
	}
	p.tidy(ctx)
	p.clock()
	return p.findings, ctx.Err()
}

// checks returns what is to be tried with the roles that there are.
func (p *probing) checks() []func(context.Context) {
	checks := []func(context.Context){}
	if p.has(ProbeWrite) {
		checks = append(checks, p.rights, p.versions, p.ranges, p.checksums, p.trailers,
			p.conditionalCreate, p.conditionalComplete, p.uploads, p.keys, p.latency)
	}
	if p.has(ProbeWrite) && p.has(ProbeCollect) {
		checks = append(checks, p.listing, p.moving, p.conditionalDelete)
	}
	return append(checks, p.versioning, p.objectLock, p.lifecycle, p.encryption)
}

func (p *probing) has(r ProbeRole) bool { return p.clients[r] != nil }

func (p *probing) add(f Finding) { p.findings = append(p.findings, f) }

// failed adds what is found when a request failed that should have worked.
func (p *probing) failed(check, what string, err error) {
	p.add(Finding{
		Check: check, Level: LevelBad, Seen: fmt.Sprintf("%s: %s", what, probeExplain(err)),
		Means: "desnode can't rely on this store", Set: probeRemedy(err),
	})
}

// worst returns the highest level found for a check so far.
func (p *probing) worst(check string) Level {
	var levels []Level
	for _, f := range p.findings {
		if f.Check == check {
			levels = append(levels, f.Level)
		}
	}
	return slices.Max(append(levels, LevelOK))
}

const (
	probePrefix     = "probe/"
	probeTimeLayout = "20060102T150405Z"
)

// probeFolder returns the folder of a probe that begins now, a name nobody else
// has.
func probeFolder(prefix string, now time.Time) (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return prefix + probePrefix + now.UTC().Format(probeTimeLayout) + "-" + hex.EncodeToString(b[:]) + "/", nil
}
