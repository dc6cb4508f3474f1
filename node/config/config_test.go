package config

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write puts a YAML file into a fresh folder.
func write(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "desnode.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNothingConfiguredIsTheDocumentedDefault(t *testing.T) {
	c, err := Load(Input{})
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(wd, "desnode-data")
	want := map[string]string{
		"data_dir": dir, "http": "127.0.0.1:8080",
		"cluster": "127.0.0.1:7947", "gossip": "127.0.0.1:7946", "advertise": "", "zone": "", "seeds": "", "dead_after": "72h",
		"store.url":     "file://" + dir + "/store",
		"store.ca_file": "", "store.credentials.read": "", "store.credentials.write": "", "store.credentials.collect": "",
		"sources.files.url": "sqlite://" + dir + "/files.db", "sources.files.roots": "",
		"archive.min_age": "2160h", "archive.pack_size": "256MiB", "archive.max_wait": "24h",
		"archive.delete_source": "false", "archive.delete_grace": "720h", "archive.attempts": "5",
		"archive.files_per_second": "0", "archive.files_per_day": "0", "archive.bytes_per_second": "0B", "archive.bytes_per_day": "0B",
		"archive.windows": "",
		"work":            "mark,pack,keep",
		"backup.every":    "1h", "backup.keep": "48", "backup.keep_days": "30", "scrub.interval": "720h", "scrub.bytes_per_day": "256GiB",
		"cache.index": "256MiB", "cache.data": "256MiB", "log.level": "info",
	}
	got := map[string]string{}
	for _, v := range c.Values() {
		got[v.Key] = v.Value
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestFileEnvironmentAndFlagsInRisingOrder(t *testing.T) {
	file := write(t, "data_dir: /srv/a\nhttp: 127.0.0.1:1\narchive: {pack_size: 1MiB, attempts: 7, min_age: 0s, delete_source: false}\n")
	c, err := Load(Input{
		File: file,
		Environ: []string{
			"DESNODE_HTTP=127.0.0.1:2", "DESNODE_ARCHIVE_PACK_SIZE=2MiB", "DESNODE_STORE_URL=file:///srv/store",
			"DESNODE_SOURCES_DOCUMENTS_URL=sqlite:///srv/d.db", "DESNODE_SOURCES_DOCUMENTS_ROOTS=/mnt/a, /mnt/b",
			"DESNODE_WORK=pack", "DESNODE_LOG_LEVEL=", "DESNODE_PORT_8080_TCP=tcp://10.0.0.1:8080", "OTHER=1",
		},
		Flags: map[string]string{"http": "127.0.0.1:3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default("/srv/a")
	want.HTTP = "127.0.0.1:3"
	want.Store.URL = "file:///srv/store"
	want.Sources = map[string]Source{"documents": {URL: "sqlite:///srv/d.db", Roots: []string{"/mnt/a", "/mnt/b"}}}
	want.Archive.PackSize, want.Archive.Attempts, want.Archive.MinAge = 2*MiB, 7, 0
	want.Work = []string{"pack"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestDefaultsFollowTheDataDirWhoeverSetsIt(t *testing.T) {
	for name, in := range map[string]Input{
		"file":  {File: write(t, "data_dir: /srv/x y\n")},
		"env":   {Environ: []string{"DESNODE_DATA_DIR=/srv/x y"}},
		"flags": {File: write(t, "data_dir: /srv/other\n"), Flags: map[string]string{"data_dir": "/srv/x y"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Load(in)
			if err != nil {
				t.Fatal(err)
			}
			if path, err := c.Store.Path(); err != nil || path != "/srv/x y/store" || !c.HasDefaultStore() {
				t.Errorf("store at %q, %v", path, err)
			}
			if path, err := c.Sources["files"].Path(); err != nil || path != "/srv/x y/files.db" {
				t.Errorf("source at %q, %v", path, err)
			}
		})
	}
}

// A node that joins has the cluster's store, wherever that is.
func TestDeletingWithTheClustersStore(t *testing.T) {
	in := Input{File: write(t, "data_dir: /srv/a\narchive: {delete_source: true}"), Joined: func(dir string) bool { return dir == "/srv/a" }}
	if c, err := Load(in); err != nil || !c.Joined {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestEveryMistakeIsToldOnce(t *testing.T) {
	cases := []struct {
		name string
		yaml string
		want []string // the whole error, file name left out
	}{
		{"unknown key and bad value", "archive: {min_aeg: 1h, attempts: 0}\nlog: {level: loud}", []string{
			"archive.min_aeg: unknown key; the nearest known one is archive.min_age",
			"archive.attempts: 0 is not between 1 and 1000",
			`log.level: "loud" is none of debug, info, warn, error`,
		}},
		{"unreadable value", "archive: {pack_size: 8 mebi}\nhttp: nowhere", []string{
			`archive.pack_size: "8 mebi" is not a size; write a whole number and a unit, such as 256MiB`,
			`http: "nowhere" is not an address; write host:port, such as 127.0.0.1:8080`,
		}},
		{"store that is not read", "store: {ulr: 'file:///srv/store'}\narchive: {delete_source: true}", []string{
			"store.ulr: unknown key; the nearest known one is store.url",
		}},
		{"one source of two", "sources: {a: {ulr: 'sqlite:///a.db'}, b: {roots: [docs]}}", []string{
			"sources.a.ulr: unknown key; the nearest known one is sources.a.url",
			`sources.b.roots: "docs" is not an absolute path`,
			"sources.b.url: missing",
		}},
		{"data dir that is not read", "data_dir: [a]\nstore: {url: 'file:///'}", []string{"data_dir: [a] is not a text"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			file := write(t, tc.yaml)
			_, err := Load(Input{File: file})
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			if got, want := strings.ReplaceAll(err.Error(), file+": ", ""), strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	cases := []struct {
		name string
		yaml string
		want []string // each stands in the error
	}{
		{"unknown key", "archive: {min_aeg: 1h}", []string{"archive.min_aeg: ", "unknown key; the nearest known one is archive.min_age"}},
		{"unknown top key", "htpp: 127.0.0.1:1", []string{"htpp: ", "the nearest known one is http"}},
		{"unknown key of a source", "sources: {docs: {url: 'sqlite:///a.db', rots: [/mnt]}}", []string{"the nearest known one is sources.docs.roots"}},
		{"value for a section", "store: file:///srv", []string{"store: ", "holds keys of its own"}},
		{"unknown section", "sorces: {d: {url: x}}", []string{"sorces", "unknown key; the nearest known one is sources"}},
		{"section for a value", "http: {port: 1}", []string{"http.port: ", "unknown key; the nearest known one is http"}},
		{"no value", "http:", []string{"http: ", "has no value"}},
		{"list for a text", "http: [a, b]", []string{"is not a text"}},
		{"not YAML", "a: b: c", []string{"desnode.yaml: not readable as YAML"}},
		{"a key twice", "http: 127.0.0.1:1\nhttp: 127.0.0.1:2", []string{"already defined"}},
		{"not a map", "- a\n- b", []string{"desnode.yaml: not readable as YAML"}},
		{"bad size", "archive: {pack_size: 256MBit}", []string{`archive.pack_size: `, `"256MBit" is not a size; write a whole number and a unit, such as 256MiB`}},
		{"small pack", "archive: {pack_size: 1KiB}", []string{"1KiB is not between 64KiB and 64GiB"}},
		{"bad duration", "archive: {min_age: 90d}", []string{`"90d" is not a duration; write a number and a unit, such as 2160h`}},
		{"duration without unit", "archive: {max_wait: 24}", []string{`"24" is not a duration`}},
		{"negative duration", "archive: {delete_grace: -1h}", []string{"archive.delete_grace: ", "is negative"}},
		{"bad bool", "archive: {delete_source: maybe}", []string{"maybe is neither true nor false"}},
		{"no attempts", "archive: {attempts: 0}", []string{"0 is not between 1 and 1000"}},
		{"bad attempts", "archive: {attempts: many}", []string{"many is not a whole number"}},
		{"deleting with the default store", "archive: {delete_source: true}", []string{"archive.delete_source: ", "set store.url"}},
		{"store without scheme", "store: {url: /srv/store}", []string{"store.url: ", "not a URL"}},
		{"store with a relative path", "store: {url: 'file://srv/store'}", []string{"must hold an absolute path"}},
		{"store around the data dir", "data_dir: /srv/des/data\nstore: {url: 'file:///srv/des'}", []string{"holds the data dir"}},
		{"another database", "sources: {d: {url: 'mysql://u:secret@h/db'}}", []string{"sources.d.url: ", "mysql:// is not supported; write sqlite:///file.db or postgres://"}},
		{"source without URL", "sources: {d: {roots: [/mnt]}}", []string{"sources.d.url: ", "missing"}},
		{"empty source", "sources: {d: }", []string{"sources.d.url: ", "missing"}},
		{"source's name", "sources: {Big: {url: 'sqlite:///a.db'}}", []string{"sources.Big: ", "lower-case letters"}},
		{"two sources, one database", "sources: {a: {url: 'sqlite:///a.db'}, b: {url: 'sqlite:///x/../a.db'}}", []string{"sources.b.url: ", "source a has the same database"}},
		{"relative root", "sources: {a: {url: 'sqlite:///a.db', roots: [docs]}}", []string{`"docs" is not an absolute path`}},
		{"s3 root of an embedded source", "sources: {a: {url: 'sqlite:///a.db', roots: ['s3://b/p']}}", []string{"only a postgres:// source has files in buckets"}},
		{"root around the data dir", "data_dir: /srv/d\nsources: {a: {url: 'sqlite:///a.db', roots: [/srv]}}", []string{"overlap"}},
		{"root around the store", "data_dir: /srv/d\nstore: {url: 'file:///mnt/store'}\nsources: {a: {url: 'sqlite:///a.db', roots: [/mnt]}}", []string{"/mnt/store overlap"}},
		{"http without port", "http: localhost", []string{"http: ", "write host:port"}},
		{"http with a huge port", "http: localhost:65536", []string{"http: ", "write host:port"}},
		{"unknown work", "work: [mark, play]", []string{`"play" is none of mark, pack, keep`}},
		{"work twice", "work: [mark, mark]", []string{"stands there twice"}},
		{"log level", "log: {level: loud}", []string{`"loud" is none of debug, info, warn, error`}},
		{"all errors at once", "http: x\nwork: [play]\nlog: {level: loud}", []string{"http: ", "work: ", "log.level: "}},
		{"all unreadable values at once", "archive: {min_age: x, pack_size: y}\nfoo: 1", []string{"archive.min_age: ", "archive.pack_size: ", "foo: "}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load(Input{File: write(t, tc.yaml)})
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q repeats a password", err)
			}
		})
	}
}

func TestErrorsNameWhereTheValueComesFrom(t *testing.T) {
	_, err := Load(Input{
		File:    write(t, "archive: {attempts: x}"),
		Environ: []string{"DESNODE_ARCHIVE_MAX_WAIT=y", "DESNODE_DEAD_AFTER=z"},
		Flags:   map[string]string{"http": ""},
	})
	for _, want := range []string{"desnode.yaml: archive.attempts: ", "DESNODE_ARCHIVE_MAX_WAIT: archive.max_wait: ", "DESNODE_DEAD_AFTER: dead_after: ", "--http: http: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestAcceptedForms(t *testing.T) {
	cases := []struct {
		name  string
		yaml  string
		check func(Config) bool
	}{
		{"empty file", "", func(c Config) bool { return c.HTTP == DefaultHTTP }},
		{"empty section", "archive:\nsources: {}\n", func(c Config) bool { return c.Archive.Attempts == 5 && len(c.Sources) == 1 }},
		{"size in bytes", "archive: {pack_size: 1048576}", func(c Config) bool { return c.Archive.PackSize == MiB }},
		{"no cache", "cache: {index: 0, data: 0}", func(c Config) bool { return c.Cache == Cache{} }},
		{"no work", "work: []", func(c Config) bool { return len(c.Work) == 0 && !c.Does(WorkMark) }},
		{"no grace", "archive: {delete_grace: 0s, max_wait: 0s}", func(c Config) bool { return c.Archive.DeleteGrace == 0 && c.Archive.MaxWait == 0 }},
		{"roots of the default source", "sources: {files: {roots: [/mnt]}}", func(c Config) bool {
			return c.Sources["files"].URL == Default(c.DataDir).Sources["files"].URL && slices.Equal(c.Sources["files"].Roots, []string{"/mnt"})
		}},
		{"deleting with a store of its own", "store: {url: 'file:///srv/s'}\narchive: {delete_source: true}", func(c Config) bool { return c.Archive.DeleteSource }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Load(Input{File: write(t, tc.yaml)})
			if err != nil {
				t.Fatal(err)
			}
			if !tc.check(c) {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestMissingFileIsItsOwnError(t *testing.T) {
	_, err := Load(Input{File: filepath.Join(t.TempDir(), "absent.yaml")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestValidateChangesNothing(t *testing.T) {
	c := Default("/srv/d")
	c.HTTP, c.Work, c.Archive.Attempts = "nonsense", []string{"play"}, -1
	before := c.Values()
	if err := c.Validate(); err == nil {
		t.Fatal("got nil, want errors")
	}
	if !slices.Equal(c.Values(), before) {
		t.Error("Validate changed the configuration")
	}
}

func TestEveryKeyHasItsOwnVariable(t *testing.T) {
	seen := map[string]string{"DESNODE_ADDR": "the client's", "DESNODE_CONFIG": "the file's"}
	for _, k := range Keys() {
		if other, taken := seen[k.Env()]; taken {
			t.Errorf("%s and %s share %s", k.Name, other, k.Env())
		}
		seen[k.Env()] = k.Name
		if k.Doc == "" {
			t.Errorf("%s is not explained", k.Name)
		}
	}
}

func TestSizesAndDurationsReadWhatTheyWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Size(rapid.Int64Min(0).Draw(t, "size"))
		if got, err := ParseSize(s.String()); err != nil || got != s {
			t.Fatalf("%q: got %d, %v, want %d", s, got, err, s)
		}
		d := time.Duration(rapid.Int64().Draw(t, "duration"))
		if got, err := time.ParseDuration(formatDuration(d)); err != nil || got != d {
			t.Fatalf("%q: got %s, %v, want %s", formatDuration(d), got, err, d)
		}
	})
}

func TestParseSize(t *testing.T) {
	cases := []struct {
		text string
		want Size // -1: refused
	}{
		{"0", 0},
		{"1", 1},
		{"1B", 1},
		{"3 KiB", 3072},
		{"2kB", 2000},
		{"2KB", 2000},
		{"1GB", 1e9},
		{"8TiB", 8 * TiB},
		{"8388607TiB", 8388607 * TiB},
		{"8388608TiB", -1},
		{"-1", -1},
		{"1.5GiB", -1},
		{"", -1},
		{"MiB", -1},
		{"1 MiB MiB", -1},
		{"1mib", -1},
	}
	for _, tc := range cases {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParseSize(tc.text)
			if (err != nil) != (tc.want < 0) || err == nil && got != tc.want {
				t.Errorf("got %d, %v, want %d", got, err, tc.want)
			}
		})
	}
}
