package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key is one key of the configuration.
type Key struct {
	Name string // dotted; "sources.*.url" stands for every source
	Doc  string

	set func(c *Config, source string, v any) error
	get func(c Config, source string) string
}

// Env returns the variable that sets the key.
func (k Key) Env() string { return envName(k.Name) }

// keys lists every key in the order of the operator's guide.
var keys = [...]Key{
	{
		Name: "data_dir", Doc: "folder of all that the node keeps",
		set: text(func(c *Config, s string) { c.DataDir = s }),
		get: func(c Config, _ string) string { return c.DataDir },
	},
	{
		Name: "http", Doc: "address that the HTTP face listens on; port 0 takes a free one",
		set: text(func(c *Config, s string) { c.HTTP = s }),
		get: func(c Config, _ string) string { return c.HTTP },
	},
	{
		Name: "store.url", Doc: "where packs are kept: file:///folder",
		set: text(func(c *Config, s string) { c.Store.URL = s }),
		get: func(c Config, _ string) string { return c.Store.URL },
	},
	{
		Name: "sources.*.url", Doc: "the source system's table: sqlite:///file.db",
		set: func(c *Config, source string, v any) error {
			s, err := asString(v)
			src := c.Sources[source]
			src.URL = s
			c.Sources[source] = src
			return err
		},
		get: func(c Config, source string) string { return c.Sources[source].URL },
	},
	{
		Name: "sources.*.roots", Doc: "folders below which the source's files may be read; an import adds its own",
		set: func(c *Config, source string, v any) error {
			list, err := asList(v)
			src := c.Sources[source]
			src.Roots = list
			c.Sources[source] = src
			return err
		},
		get: func(c Config, source string) string { return strings.Join(c.Sources[source].Roots, ",") },
	},
	{
		Name: "archive.min_age", Doc: "how long ago a file was modified before it is archived; imported files are eligible at once",
		set: duration(func(c *Config, d time.Duration) { c.Archive.MinAge = d }),
		get: func(c Config, _ string) string { return formatDuration(c.Archive.MinAge) },
	},
	{
		Name: "archive.pack_size", Doc: "payload aimed at in one pack",
		set: size(func(c *Config, s Size) { c.Archive.PackSize = s }),
		get: func(c Config, _ string) string { return c.Archive.PackSize.String() },
	},
	{
		Name: "archive.max_wait", Doc: "longest wait for more files before a small pack is built",
		set: duration(func(c *Config, d time.Duration) { c.Archive.MaxWait = d }),
		get: func(c Config, _ string) string { return formatDuration(c.Archive.MaxWait) },
	},
	{
		Name: "archive.delete_source", Doc: "delete originals once that is proven safe; needs a store.url outside the data dir",
		set: func(c *Config, _ string, v any) (err error) {
			c.Archive.DeleteSource, err = asBool(v)
			return err
		},
		get: func(c Config, _ string) string { return strconv.FormatBool(c.Archive.DeleteSource) },
	},
	{
		Name: "archive.delete_grace", Doc: "how long ago a file was packed before its original is deleted",
		set: duration(func(c *Config, d time.Duration) { c.Archive.DeleteGrace = d }),
		get: func(c Config, _ string) string { return formatDuration(c.Archive.DeleteGrace) },
	},
	{
		Name: "archive.attempts", Doc: "failed attempts after which a file is FAILED and waits for `desnode retry`",
		set: func(c *Config, _ string, v any) (err error) {
			c.Archive.Attempts, err = asInt(v)
			return err
		},
		get: func(c Config, _ string) string { return strconv.Itoa(c.Archive.Attempts) },
	},
	{
		Name: "work", Doc: "what this node takes part in: mark, pack, keep",
		set: func(c *Config, _ string, v any) (err error) {
			c.Work, err = asList(v)
			return err
		},
		get: func(c Config, _ string) string { return strings.Join(c.Work, ",") },
	},
	{
		Name: "cache.index", Doc: "memory for the indexes of packs, a hard cap",
		set: size(func(c *Config, s Size) { c.Cache.Index = s }),
		get: func(c Config, _ string) string { return c.Cache.Index.String() },
	},
	{
		Name: "cache.data", Doc: "memory for hot files of up to 1 MiB, a hard cap",
		set: size(func(c *Config, s Size) { c.Cache.Data = s }),
		get: func(c Config, _ string) string { return c.Cache.Data.String() },
	},
	{
		Name: "log.level", Doc: "least level that is logged: debug, info, warn, error",
		set: text(func(c *Config, s string) { c.Log.Level = s }),
		get: func(c Config, _ string) string { return c.Log.Level },
	},
}

// laterKeys are keys of the design that this version does not have yet.
var laterKeys = [...]string{
	"cluster", "gossip", "advertise", "zone",
	"sources.*.table", "sources.*.columns", "sources.*.states", "sources.*.filter", "sources.*.naming",
	"archive.files_per_day", "archive.bytes_per_day", "archive.windows",
}

// Keys returns every key, in the order of the operator's guide.
func Keys() []Key { return slices.Clone(keys[:]) }

// Value is what is in effect for one key.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Values returns what is in effect for every key, sources by name.
func (c Config) Values() []Value {
	var vs []Value
	for _, k := range keys {
		if !strings.HasPrefix(k.Name, sourcesPrefix) {
			vs = append(vs, Value{k.Name, k.get(c, "")})
			continue
		}
		for _, source := range slices.Sorted(maps.Keys(c.Sources)) {
			vs = append(vs, Value{strings.Replace(k.Name, "*", source, 1), k.get(c, source)})
		}
	}
	return vs
}

func text(assign func(*Config, string)) func(*Config, string, any) error {
	return func(c *Config, _ string, v any) error {
		s, err := asString(v)
		assign(c, s)
		return err
	}
}

func duration(assign func(*Config, time.Duration)) func(*Config, string, any) error {
	return func(c *Config, _ string, v any) error {
		d, err := asDuration(v)
		assign(c, d)
		return err
	}
}

func size(assign func(*Config, Size)) func(*Config, string, any) error {
	return func(c *Config, _ string, v any) error {
		s, err := ParseSize(fmt.Sprint(v))
		assign(c, s)
		return err
	}
}

func asString(v any) (string, error) {
	s, ok := v.(string)
	if !ok || s == "" {
		return "", invalidf("%v is not a text", v)
	}
	return s, nil
}

// asList reads a YAML list, or one text with commas.
func asList(v any) ([]string, error) {
	list := []string{}
	switch v := v.(type) {
	case string:
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
	case []any:
		for _, e := range v {
			s, err := asString(e)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
	default:
		return nil, invalidf("%v is not a list", v)
	}
	return list, nil
}

func asBool(v any) (bool, error) {
	switch fmt.Sprint(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, invalidf("%v is neither true nor false", v)
}

func asInt(v any) (int, error) {
	n, err := strconv.Atoi(fmt.Sprint(v))
	if err != nil {
		return 0, invalidf("%v is not a whole number", v)
	}
	return n, nil
}

func asDuration(v any) (time.Duration, error) {
	d, err := time.ParseDuration(fmt.Sprint(v))
	if err != nil {
		return 0, invalidf("%q is not a duration; write a number and a unit, such as 2160h or 30m", fmt.Sprint(v))
	}
	return d, nil
}

// formatDuration writes whole hours and minutes without the zeros behind them.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
