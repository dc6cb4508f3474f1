package config

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/migrations"
)

// Key is one key of the configuration.
type Key struct {
	Name string // dotted; "sources.*.url" stands for every source, a "*" at the end for every word
	Doc  string

	set func(c *Config, at place, v any) error
	// get returns what is in effect; of a key for every word there is words.
	get   func(c Config, at place) string
	words func(s Source) map[string]string
	// known are the words that may take the place of a "*" at the end; nil: any.
	known []string
	// postgres: the key is of Postgres sources only.
	postgres bool
}

// place is what the stars of a key's name stand for.
type place struct {
	source string // short name
	word   string
}

// Env returns the variable that sets the key.
func (k Key) Env() string { return envName(k.Name) }

// keys lists every key in the order of the operator's guide.
var keys = slices.Concat(nodeKeys(), storeKeys(), sourceKeys(), archiveKeys(), otherKeys())

func nodeKeys() []Key {
	return []Key{
		{
			Name: "data_dir", Doc: "folder of all that the node keeps",
			set: text(func(c *Config) *string { return &c.DataDir }),
			get: func(c Config, _ place) string { return c.DataDir },
		},
		{
			Name: "http", Doc: "address that the HTTP face listens on; port 0 takes a free one",
			set: text(func(c *Config) *string { return &c.HTTP }),
			get: func(c Config, _ place) string { return c.HTTP },
		},
		{
			Name: "cluster", Doc: "address for the other nodes, QUIC (UDP) and Raft (TCP); beside an `http` with port 0 a free port",
			set: text(func(c *Config) *string { return &c.Cluster }),
			get: func(c Config, _ place) string { return c.ClusterAddr() },
		},
		{
			Name: "gossip", Doc: "address for gossip, UDP and TCP; likewise",
			set: text(func(c *Config) *string { return &c.Gossip }),
			get: func(c Config, _ place) string { return c.GossipAddr() },
		},
		{
			Name: "advertise", Doc: "host, without a port, by which the other nodes know this one; none: that of `cluster` and `gossip`",
			set: text(func(c *Config) *string { return &c.Advertise }),
			get: func(c Config, _ place) string { return c.Advertise },
		},
		{
			Name: "zone", Doc: "where the node stands (a room, a data centre), up to 64 bytes; voters are spread over zones",
			set: text(func(c *Config) *string { return &c.Zone }),
			get: func(c Config, _ place) string { return c.Zone },
		},
		{
			Name: "seeds", Doc: "cluster addresses of members, host:port, for a node whose saved ones no longer answer",
			set: func(c *Config, _ place, v any) (err error) {
				c.Seeds, err = asList(v, ",")
				return err
			},
			get: func(c Config, _ place) string { return strings.Join(c.Seeds, ",") },
		},
		{
			Name: "dead_after", Doc: "how long a member may be unheard of before the leader removes it for ever",
			set: duration(func(c *Config) *time.Duration { return &c.DeadAfter }),
			get: func(c Config, _ place) string { return formatDuration(c.DeadAfter) },
		},
	}
}

func storeKeys() []Key {
	const sources = "`profile:NAME`, `file:PATH`, `env:PREFIX`; none: the SDK's usual chain"
	return []Key{
		{
			Name: "store.url", Doc: "where packs are kept: file:///folder, or s3://bucket/prefix?endpoint=…&region=…",
			set: withoutValue(text(func(c *Config) *string { return &c.Store.URL })),
			get: func(c Config, _ place) string { return Redacted(c.Store.URL) },
		},
		{
			Name: "store.ca_file", Doc: "PEM certificates that an https endpoint of the store is checked against; none: the system's",
			set: text(func(c *Config) *string { return &c.Store.CAFile }),
			get: func(c Config, _ place) string { return c.Store.CAFile },
		},
		{
			Name: "store.credentials.read", Doc: "credentials of every node, for reading an S3 store: " + sources,
			set: text(func(c *Config) *string { return &c.Store.Credentials.Read }),
			get: func(c Config, _ place) string { return c.Store.Credentials.Read },
		},
		{
			Name: "store.credentials.write", Doc: "credentials of nodes that pack, for writing",
			set: text(func(c *Config) *string { return &c.Store.Credentials.Write }),
			get: func(c Config, _ place) string { return c.Store.Credentials.Write },
		},
		{
			Name: "store.credentials.collect", Doc: "credentials of nodes that keep, for moving, deleting and listing",
			set: text(func(c *Config) *string { return &c.Store.Credentials.Collect }),
			get: func(c Config, _ place) string { return c.Store.Credentials.Collect },
		},
	}
}

func sourceKeys() []Key {
	return []Key{
		{
			Name: "sources.*.url", Doc: "the source system's table: sqlite:///file.db, or postgres://…",
			set: withoutValue(sourceText(func(s *Source) *string { return &s.URL })),
			get: func(c Config, at place) string { return Redacted(c.Sources[at.source].URL) },
		},
		{
			Name: "sources.*.urls.*", Doc: "connection of one role alone, before url: " + strings.Join(AllRoles(), ", "),
			set:   withoutValue(sourceWord(func(s *Source) *map[string]string { return &s.URLs })),
			words: func(s Source) map[string]string { return mapped(s.URLs, Redacted) },
			known: AllRoles(), postgres: true,
		},
		{
			Name: "sources.*.roots", Doc: "where the source's files may be read: folders and, of Postgres sources, s3://bucket/prefix and `PREFIX => ROOT`; an import adds its own",
			set: func(c *Config, at place, v any) error {
				list, err := asList(v, ",")
				c.source(at.source, func(s *Source) { s.Roots = list })
				return err
			},
			get: func(c Config, at place) string {
				return strings.Join(mappedList(c.Sources[at.source].Roots, redactedRoot), ",")
			},
		},
		{
			Name: "sources.*.s3.*", Doc: "how the buckets among roots are reached: " + strings.Join(s3Words(), ", ") + "; what is left out is the store's",
			set:   sourceWord(func(s *Source) *map[string]string { return &s.S3 }),
			words: func(s Source) map[string]string { return s.S3 },
			known: s3Words(), postgres: true,
		},
		{
			Name: "sources.*.table", Doc: "the table or updatable view that lists the files, schema.table", postgres: true,
			set: sourceText(func(s *Source) *string { return &s.Table }),
			get: func(c Config, at place) string { return cmp.Or(c.Sources[at.source].Table, DefaultTable) },
		},
		{
			Name: "sources.*.binding", Doc: "where desnode's columns are: in the table (table), or beside it, in desnode.entry (side)", postgres: true,
			set: sourceText(func(s *Source) *string { return &s.Binding }),
			get: func(c Config, at place) string { return cmp.Or(c.Sources[at.source].Binding, BindingTable) },
		},
		{
			Name: "sources.*.columns.*", Doc: "the table's column for a word of the contract; a word left out stands for itself",
			set:   sourceWord(func(s *Source) *map[string]string { return &s.Columns }),
			words: func(s Source) map[string]string { return s.Columns },
			known: columnWords(), postgres: true,
		},
		{
			Name: "sources.*.states.*", Doc: "the table's word for a state: " + strings.Join(migrations.States(), ", "),
			set:   sourceWord(func(s *Source) *map[string]string { return &s.States }),
			words: func(s Source) map[string]string { return s.States },
			known: migrations.States(), postgres: true,
		},
		{
			Name: "sources.*.metadata.*", Doc: "a column that is kept with the file, under that key",
			set:   sourceWord(func(s *Source) *map[string]string { return &s.Metadata }),
			words: func(s Source) map[string]string { return s.Metadata }, postgres: true,
		},
		{
			Name: "sources.*.filter", Doc: "SQL condition over the table's own columns, as t.column; other rows are never touched", postgres: true,
			set: sourceText(func(s *Source) *string { return &s.Filter }),
			get: func(c Config, at place) string { return c.Sources[at.source].Filter },
		},
		{
			Name: "sources.*.naming", Doc: "where a file's served name comes from: its row (column), or desnode makes one (generated)", postgres: true,
			set: sourceText(func(s *Source) *string { return &s.Naming }),
			get: func(c Config, at place) string { return cmp.Or(c.Sources[at.source].Naming, NamingColumn) },
		},
	}
}

func archiveKeys() []Key {
	pace := func(name, doc string, field func(*Pace) *int64) Key {
		return Key{
			Name: "archive." + name, Doc: doc,
			set: func(c *Config, _ place, v any) (err error) {
				*field(&c.Archive.Pace), err = asInt64(v)
				return err
			},
			get: func(c Config, _ place) string { return strconv.FormatInt(*field(&c.Archive.Pace), 10) },
		}
	}
	return []Key{
		{
			Name: "archive.min_age", Doc: "how long ago a file was modified before it is archived; imported files are eligible at once",
			set: duration(func(c *Config) *time.Duration { return &c.Archive.MinAge }),
			get: func(c Config, _ place) string { return formatDuration(c.Archive.MinAge) },
		},
		{
			Name: "archive.pack_size", Doc: "payload aimed at in one pack",
			set: size(func(c *Config) *Size { return &c.Archive.PackSize }),
			get: func(c Config, _ place) string { return c.Archive.PackSize.String() },
		},
		{
			Name: "archive.max_wait", Doc: "longest wait for more files before a small pack is built",
			set: duration(func(c *Config) *time.Duration { return &c.Archive.MaxWait }),
			get: func(c Config, _ place) string { return formatDuration(c.Archive.MaxWait) },
		},
		{
			Name: "archive.delete_source", Doc: "delete originals once that is proven safe; needs a store.url outside the data dir",
			set: func(c *Config, _ place, v any) (err error) {
				c.Archive.DeleteSource, err = asBool(v)
				return err
			},
			get: func(c Config, _ place) string { return strconv.FormatBool(c.Archive.DeleteSource) },
		},
		{
			Name: "archive.delete_grace", Doc: "how long ago a file was packed before its original is deleted",
			set: duration(func(c *Config) *time.Duration { return &c.Archive.DeleteGrace }),
			get: func(c Config, _ place) string { return formatDuration(c.Archive.DeleteGrace) },
		},
		{
			Name: "archive.attempts", Doc: "failed attempts after which a file is FAILED and waits for `desnode retry`",
			set: func(c *Config, _ place, v any) (err error) {
				c.Archive.Attempts, err = asInt(v)
				return err
			},
			get: func(c Config, _ place) string { return strconv.Itoa(c.Archive.Attempts) },
		},
		pace("files_per_second", "files marked a second in the whole cluster, 0: no limit; until `desnode throttle set` says otherwise",
			func(p *Pace) *int64 { return &p.FilesPerSecond }),
		pace("files_per_day", "files marked a day in the whole cluster, likewise", func(p *Pace) *int64 { return &p.FilesPerDay }),
		{
			Name: "archive.bytes_per_second", Doc: "bytes marked a second in the whole cluster, likewise",
			set: size(func(c *Config) *Size { return &c.Archive.Pace.BytesPerSecond }),
			get: func(c Config, _ place) string { return c.Archive.Pace.BytesPerSecond.String() },
		},
		{
			Name: "archive.bytes_per_day", Doc: "bytes marked a day in the whole cluster, likewise",
			set: size(func(c *Config) *Size { return &c.Archive.Pace.BytesPerDay }),
			get: func(c Config, _ place) string { return c.Archive.Pace.BytesPerDay.String() },
		},
		{
			Name: "archive.windows", Doc: "when files are marked, such as `Mon-Fri 22:00-06:00 Europe/Warsaw`; none: always",
			set: func(c *Config, _ place, v any) (err error) {
				c.Archive.Pace.Windows, err = asList(v, ";") // a window may have commas
				return err
			},
			get: func(c Config, _ place) string { return strings.Join(c.Archive.Pace.Windows, "; ") },
		},
	}
}

func otherKeys() []Key {
	return []Key{
		{
			Name: "work", Doc: "what this node takes part in: mark, pack, keep; `[]`: it serves reads only",
			set: func(c *Config, _ place, v any) (err error) {
				c.Work, err = asList(v, ",")
				return err
			},
			get: func(c Config, _ place) string { return strings.Join(c.Work, ",") },
		},
		{
			Name: "backup.every", Doc: "how often the manifest is written to the store when it has changed, 0: never by itself",
			set: duration(func(c *Config) *time.Duration { return &c.Backup.Every }),
			get: func(c Config, _ place) string { return formatDuration(c.Backup.Every) },
		},
		{
			Name: "backup.keep", Doc: "how many of the newest backups are kept",
			set: func(c *Config, _ place, v any) (err error) {
				c.Backup.Keep, err = asInt(v)
				return err
			},
			get: func(c Config, _ place) string { return strconv.Itoa(c.Backup.Keep) },
		},
		{
			Name: "backup.keep_days", Doc: "for how many days one backup a day is kept beside them",
			set: func(c *Config, _ place, v any) (err error) {
				c.Backup.KeepDays, err = asInt(v)
				return err
			},
			get: func(c Config, _ place) string { return strconv.Itoa(c.Backup.KeepDays) },
		},
		{
			Name: "scrub.interval", Doc: "how long ago a pack was read back whole before it is again",
			set: duration(func(c *Config) *time.Duration { return &c.Scrub.Interval }),
			get: func(c Config, _ place) string { return formatDuration(c.Scrub.Interval) },
		},
		{
			Name: "scrub.bytes_per_day", Doc: "bytes of packs read back again a day in the whole cluster",
			set: size(func(c *Config) *Size { return &c.Scrub.BytesPerDay }),
			get: func(c Config, _ place) string { return c.Scrub.BytesPerDay.String() },
		},
		{
			Name: "cache.index", Doc: "memory for the indexes of packs, a hard cap",
			set: size(func(c *Config) *Size { return &c.Cache.Index }),
			get: func(c Config, _ place) string { return c.Cache.Index.String() },
		},
		{
			Name: "cache.data", Doc: "memory for hot files of up to 1 MiB, a hard cap",
			set: size(func(c *Config) *Size { return &c.Cache.Data }),
			get: func(c Config, _ place) string { return c.Cache.Data.String() },
		},
		{
			Name: "log.level", Doc: "least level that is logged: debug, info, warn, error",
			set: text(func(c *Config) *string { return &c.Log.Level }),
			get: func(c Config, _ place) string { return c.Log.Level },
		},
	}
}

// Keys returns every key, in the order of the operator's guide.
func Keys() []Key { return slices.Clone(keys) }

// Value is what is in effect for one key.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Values returns what is in effect for every key, sources by name. It holds no
// password.
func (c Config) Values() []Value {
	var vs []Value
	for _, k := range keys {
		if !strings.HasPrefix(k.Name, sourcesPrefix) {
			vs = append(vs, Value{k.Name, k.get(c, place{})})
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
			s, key := c.Sources[name], strings.Replace(k.Name, "*", name, 1)
			switch {
			case k.postgres && !s.Postgres():
			case k.words == nil:
				vs = append(vs, Value{key, k.get(c, place{source: name})})
			default:
				words := k.words(s)
				for _, word := range slices.Sorted(maps.Keys(words)) {
					vs = append(vs, Value{strings.TrimSuffix(key, "*") + word, words[word]})
				}
			}
		}
	}
	return vs
}

func mapped(m map[string]string, by func(string) string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = by(v)
	}
	return out
}

func mappedList(list []string, by func(string) string) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, by(v))
	}
	return out
}
