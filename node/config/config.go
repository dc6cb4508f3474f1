// Package config reads a node's configuration: one YAML file, then the
// environment (DESNODE_…), then flags; the later outranks the earlier.
//
// Every key is listed once, in keys.go, with what it means and how it is read;
// the operator's guide is held against that list. A key of the file that is
// not in the list is an error that names the nearest known one. Variables DESNODE_… that are not in the list are ignored,
// since container platforms invent some.
//
// Not for: opening what the configuration names. Load and Validate read the
// one file and touch nothing else; `desnode doctor` looks at the machine.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrInvalid is what every error of this package about a configuration's
// content is, by errors.Is.
var ErrInvalid = errors.New("invalid configuration")

// invalidError is a sentence about a configuration. It is ErrInvalid without
// saying so, since every sentence would.
type invalidError string

func (e invalidError) Error() string        { return string(e) }
func (e invalidError) Is(target error) bool { return target == ErrInvalid }

// keyError is what is wrong with the value of one key, or of a section.
type keyError struct {
	key string
	err error
}

func (e keyError) Error() string { return e.key + ": " + e.err.Error() }
func (e keyError) Unwrap() error { return e.err }

func invalidf(format string, args ...any) error {
	return invalidError(fmt.Sprintf(format, args...))
}

// Config is what one node runs with. It comes from Default or Load and holds
// what is in effect, so an explicit 0 is a 0.
type Config struct {
	DataDir string // absolute
	HTTP    string // host:port; port 0 takes a free one

	// Where the other nodes find this one: see ClusterAddr and GossipAddr, which
	// say what an empty Cluster and Gossip stand for.
	Cluster   string
	Gossip    string
	Advertise string   // host that the others call; empty: that of Cluster and Gossip
	Zone      string   // where the node stands; voters are spread over zones
	Seeds     []string // cluster addresses of members, asked when no saved one answers
	// DeadAfter is how long a member may be unheard of before the leader removes
	// it for ever.
	DeadAfter time.Duration

	Store   Store
	Sources map[string]Source // by short name
	Archive Archive
	Work    []string // what this node takes part in, of AllWork
	Backup  Backup
	Scrub   Scrub
	Cache   Cache
	Log     Log
	Joined  bool // what is left out comes from the cluster that the node joined
}

// Store is the object store.
type Store struct {
	URL    string // file:///folder, or s3://bucket/prefix?endpoint=…&region=…
	CAFile string // PEM certificates that an https endpoint is checked against; empty: the system's
	// Credentials name where the credentials for what the node does with the
	// store come from: "profile:NAME" (of the shared AWS configuration),
	// "file:PATH" (JSON) or "env:PREFIX" (PREFIX_ACCESS_KEY_ID and so on). Empty:
	// the SDK's usual chain.
	Credentials StoreCredentials
}

// StoreCredentials are the credentials by what they are for.
type StoreCredentials struct {
	Read    string // every node: get, head
	Write   string // nodes that pack: put
	Collect string // nodes that keep: move, delete, list
}

// Source is one source system.
type Source struct {
	URL string // sqlite:///file.db or postgres://…
	// URLs are connection strings by role (marker, packer, deleter, reader), each
	// before URL.
	URLs map[string]string
	// Roots are where its files may be read: absolute folders and
	// s3://bucket/prefix, or "PREFIX => ROOT" for rows whose paths begin with
	// PREFIX and stand below ROOT.
	Roots []string

	// S3 says how the buckets among Roots are reached, by the words S3Endpoint to
	// S3Delete.
	S3 map[string]string

	// The rest is of Postgres sources; see migrations.Mapping.
	Table    string
	Binding  string            // "table" (default) or "side"
	Columns  map[string]string // the contract's word → column
	States   map[string]string // the contract's word → the table's
	Metadata map[string]string // key → column
	Filter   string
	Naming   string // "column" (default) or "generated"
}

// Archive is how files become packs.
type Archive struct {
	MinAge       time.Duration // since modification, before a file is marked
	PackSize     Size          // payload aimed at in one pack
	MaxWait      time.Duration // longest wait of a range that stays small
	DeleteSource bool          // delete originals once that is proven safe
	DeleteGrace  time.Duration // since packing, before an original is deleted
	Attempts     int           // failed attempts after which a row is FAILED
	Pace         Pace          // until `desnode throttle set` says otherwise
}

// Pace limits marking for the whole cluster; 0 and empty: no limit.
type Pace struct {
	FilesPerSecond int64
	FilesPerDay    int64
	BytesPerSecond Size
	BytesPerDay    Size
	Windows        []string // when work is allowed: "Mon-Fri 22:00-06:00 Europe/Warsaw"
}

// Backup is how often the manifest is written to the store, and for how long.
type Backup struct {
	Every    time.Duration // 0: never by itself
	Keep     int           // of the newest
	KeepDays int           // days for which one a day is kept beside them
}

// Scrub is how packs are read back again and again.
type Scrub struct {
	Interval    time.Duration // since a pack was verified, before it is again
	BytesPerDay Size          // in the whole cluster
}

// Cache caps memory. Both are hard.
type Cache struct {
	Index Size // indexes of packs
	Data  Size // hot small records
}

// Log is what is logged.
type Log struct {
	Level string // debug, info, warn or error
}

// The kinds of work that a node takes part in.
const (
	WorkMark = "mark"
	WorkPack = "pack"
	WorkKeep = "keep"
)

// AllWork returns every kind of work.
func AllWork() []string { return []string{WorkMark, WorkPack, WorkKeep} }

// Defaults of start.
const (
	DefaultDataDir = "desnode-data"
	DefaultHTTP    = "127.0.0.1:8080"
	DefaultSource  = "files"
)

// Default returns the documented defaults for a node whose data dir, an
// absolute path, is dataDir.
func Default(dataDir string) Config {
	return Config{
		DataDir:   dataDir,
		HTTP:      DefaultHTTP,
		DeadAfter: DefaultDeadAfter,
		Store:     Store{URL: DefaultStore(dataDir)},
		Sources:   map[string]Source{DefaultSource: {URL: fileURL("sqlite", filepath.Join(dataDir, "files.db"))}},
		Archive: Archive{
			MinAge:      2160 * time.Hour,
			PackSize:    256 * MiB,
			MaxWait:     24 * time.Hour,
			DeleteGrace: 720 * time.Hour,
			Attempts:    5,
		},
		Work:   AllWork(),
		Backup: Backup{Every: time.Hour, Keep: 48, KeepDays: 30},
		Scrub:  Scrub{Interval: 30 * 24 * time.Hour, BytesPerDay: 256 * GiB},
		Cache:  Cache{Index: 256 * MiB, Data: 256 * MiB},
		Log:    Log{Level: "info"},
	}
}

// DefaultStore returns the URL of the store that a node has when none is
// configured: a folder inside its data dir.
func DefaultStore(dataDir string) string {
	return fileURL("file", filepath.Join(dataDir, "store"))
}

// HasDefaultStore reports whether the store is the folder inside the data dir,
// on which originals are never deleted: one rm -r would take both.
func (c Config) HasDefaultStore() bool {
	path, err := c.Store.Path()
	return err == nil && Within(path, c.DataDir)
}

// Does reports whether the node takes part in that kind of work.
func (c Config) Does(work string) bool { return slices.Contains(c.Work, work) }

// S3 reports whether the store is a bucket rather than a folder.
func (s Store) S3() bool { return strings.HasPrefix(s.URL, "s3://") }

// Path returns the folder of a file:// store.
func (s Store) Path() (string, error) { return urlPath(s.URL, "file") }

// Path returns the database file of a sqlite:// source.
func (s Source) Path() (string, error) { return urlPath(s.URL, "sqlite") }

func fileURL(scheme, path string) string {
	return (&url.URL{Scheme: scheme, Path: filepath.ToSlash(path)}).String()
}

// urlPath returns the absolute path that a URL of that scheme names.
func urlPath(raw, scheme string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", invalidf("not a URL") // err would repeat a password
	}
	if u.Scheme != scheme {
		return "", invalidf("%s is not a %s:// URL", Redacted(raw), scheme)
	}
	if u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return "", invalidf("%s must hold an absolute path and nothing else, as in %s:///srv/des", Redacted(raw), scheme)
	}
	return filepath.Clean(u.Path), nil
}
