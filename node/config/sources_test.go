package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/migrations"
)

const customer = `
store: {url: 's3://archive/des?endpoint=https://s3.example:9000&region=eu', ca_file: /etc/des/s3.pem,
  credentials: {read: 'profile:des-read', write: 'env:DES_WRITE', collect: 'file:/etc/des/collect.json'}}
sources:
  documents:
    url: postgres://des@db/documents?sslmode=verify-full
    urls: {marker: 'postgres://marker@db/documents', reader: 'postgres://reader@replica/documents'}
    roots: [/mnt/docs, '\\share\docs => /mnt/share', '/old => s3://legacy/docs']
    table: public.documents
    binding: table
    columns: {id: doc_id, name: file_name, des_pack: pack}
    states: {ACTIVE: A, DELETED_SOURCE: D}
    metadata: {owner: owner_name, dept-1: department}
    filter: t.tenant = 7
    naming: generated
archive: {files_per_second: 100, files_per_day: 1000000, bytes_per_second: 8MiB, bytes_per_day: 1TiB,
  windows: ['Mon-Fri 22:00-06:00 Europe/Warsaw', 'Sat,Sun 00:00-24:00 Europe/Warsaw'], delete_source: true}
`

var wantDocuments = Source{
	URL:      "postgres://des@db/documents?sslmode=verify-full",
	URLs:     map[string]string{"marker": "postgres://marker@db/documents", "reader": "postgres://reader@replica/documents"},
	Roots:    []string{"/mnt/docs", `\\share\docs => /mnt/share`, "/old => s3://legacy/docs"},
	Table:    "public.documents",
	Binding:  "table",
	Columns:  map[string]string{"id": "doc_id", "name": "file_name", "des_pack": "pack"},
	States:   map[string]string{"ACTIVE": "A", "DELETED_SOURCE": "D"},
	Metadata: map[string]string{"owner": "owner_name", "dept-1": "department"},
	Filter:   "t.tenant = 7",
	Naming:   "generated",
}

func TestAPostgresSourceAndAnS3Store(t *testing.T) {
	c, err := Load(Input{File: write(t, customer)})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Sources["documents"]; !reflect.DeepEqual(got, wantDocuments) || len(c.Sources) != 1 {
		t.Errorf("got  %+v\nwant %+v", c.Sources, wantDocuments)
	}
	wantStore := Store{
		URL: "s3://archive/des?endpoint=https://s3.example:9000&region=eu", CAFile: "/etc/des/s3.pem",
		Credentials: StoreCredentials{"profile:des-read", "env:DES_WRITE", "file:/etc/des/collect.json"},
	}
	if c.Store != wantStore || !c.Store.S3() || c.HasDefaultStore() {
		t.Errorf("got %+v", c.Store)
	}
	wantPace := Pace{
		FilesPerSecond: 100, FilesPerDay: 1000000, BytesPerSecond: 8 * MiB, BytesPerDay: TiB,
		Windows: []string{"Mon-Fri 22:00-06:00 Europe/Warsaw", "Sat,Sun 00:00-24:00 Europe/Warsaw"},
	}
	if !reflect.DeepEqual(c.Archive.Pace, wantPace) {
		t.Errorf("got %+v", c.Archive.Pace)
	}
}

// TestTheEnvironmentSaysTheSame sets by variables all that the file has but
// the metadata, whose keys no variable's name can hold.
func TestTheEnvironmentSaysTheSame(t *testing.T) {
	fromFile, err := Load(Input{File: write(t, customer)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(Input{
		File: write(t, "sources: {documents: {metadata: {owner: owner_name, dept-1: department}}}"),
		Environ: []string{
			"DESNODE_STORE_URL=" + fromFile.Store.URL, "DESNODE_STORE_CA_FILE=/etc/des/s3.pem",
			"DESNODE_STORE_CREDENTIALS_READ=profile:des-read", "DESNODE_STORE_CREDENTIALS_WRITE=env:DES_WRITE",
			"DESNODE_STORE_CREDENTIALS_COLLECT=file:/etc/des/collect.json",
			"DESNODE_SOURCES_DOCUMENTS_URL=" + wantDocuments.URL,
			"DESNODE_SOURCES_DOCUMENTS_URLS_MARKER=postgres://marker@db/documents",
			"DESNODE_SOURCES_DOCUMENTS_URLS_READER=postgres://reader@replica/documents",
			`DESNODE_SOURCES_DOCUMENTS_ROOTS=/mnt/docs, \\share\docs => /mnt/share, /old => s3://legacy/docs`,
			"DESNODE_SOURCES_DOCUMENTS_TABLE=public.documents", "DESNODE_SOURCES_DOCUMENTS_BINDING=table",
			"DESNODE_SOURCES_DOCUMENTS_COLUMNS_ID=doc_id", "DESNODE_SOURCES_DOCUMENTS_COLUMNS_NAME=file_name",
			"DESNODE_SOURCES_DOCUMENTS_COLUMNS_DES_PACK=pack",
			"DESNODE_SOURCES_DOCUMENTS_STATES_ACTIVE=A", "DESNODE_SOURCES_DOCUMENTS_STATES_DELETED_SOURCE=D",
			"DESNODE_SOURCES_DOCUMENTS_FILTER=t.tenant = 7", "DESNODE_SOURCES_DOCUMENTS_NAMING=generated",
			"DESNODE_ARCHIVE_FILES_PER_SECOND=100", "DESNODE_ARCHIVE_FILES_PER_DAY=1000000",
			"DESNODE_ARCHIVE_BYTES_PER_SECOND=8MiB", "DESNODE_ARCHIVE_BYTES_PER_DAY=1TiB",
			"DESNODE_ARCHIVE_WINDOWS=Mon-Fri 22:00-06:00 Europe/Warsaw; Sat,Sun 00:00-24:00 Europe/Warsaw",
			"DESNODE_ARCHIVE_DELETE_SOURCE=true",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, fromFile) {
		t.Errorf("got  %+v\nwant %+v", c, fromFile)
	}
}

func TestVariablesOfSources(t *testing.T) {
	cases := []struct{ variable, want string }{
		{"DESNODE_SOURCES_DOCS_URL", "sources.docs.url"},
		{"DESNODE_SOURCES_MY_DOCS_URL", "sources.my_docs.url"},
		{"DESNODE_SOURCES_URL_URL", "sources.url.url"},
		{"DESNODE_SOURCES_DOCS_URLS_DELETER", "sources.docs.urls.deleter"},
		{"DESNODE_SOURCES_DOCS_COLUMNS_NAME", "sources.docs.columns.name"},
		{"DESNODE_SOURCES_DOCS_COLUMNS_DES_NAME", "sources.docs.columns.des_name"},
		{"DESNODE_SOURCES_DOCS_STATES_DELETED_SOURCE", "sources.docs.states.DELETED_SOURCE"},
		{"DESNODE_SOURCES_DOCS_COLUMNS_WHATEVER", ""},
		{"DESNODE_SOURCES_DOCS_METADATA_OWNER", ""},
		{"DESNODE_SOURCES__URL", ""},
		{"DESNODE_SOURCES_URL", ""},
		{"DESNODE_SOURCES_docs_URL", ""},
	}
	for _, c := range cases {
		if got, _ := sourceVariable(c.variable); got != c.want {
			t.Errorf("%s sets %q, want %q", c.variable, got, c.want)
		}
	}
}

func TestMapping(t *testing.T) {
	got := wantDocuments.Mapping("documents")
	want := migrations.Mapping{
		Source: "documents", Table: "public.documents", Columns: wantDocuments.Columns, States: wantDocuments.States,
		Metadata: wantDocuments.Metadata, Filter: "t.tenant = 7", Generated: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !(Source{URL: "postgres://h/d", Binding: BindingSide}).Mapping("a").Side {
		t.Error("the side binding got lost")
	}
	if got := (Source{URL: "postgres://h/d"}).Mapping("a"); !reflect.DeepEqual(got, migrations.Mapping{Source: "a"}) {
		t.Errorf("nothing mapped: got %+v", got)
	}
	if !wantDocuments.Generated() || (Source{}).Generated() {
		t.Error("generated names are those of naming: generated")
	}
}

func TestRolesFollowTheWork(t *testing.T) {
	cases := []struct {
		name     string
		work     []string
		deleting bool
		want     []string
	}{
		{"only serving", nil, true, []string{"reader"}},
		{"marking", []string{WorkMark}, true, []string{"reader", "marker"}},
		{"packing", []string{WorkPack}, true, []string{"reader", "packer"}},
		{"keeping", []string{WorkKeep}, false, []string{"reader", "packer"}},
		{"keeping with deletion", []string{WorkKeep}, true, []string{"reader", "packer", "deleter"}},
		{"everything", AllWork(), true, []string{"reader", "marker", "packer", "deleter"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := Config{Work: tc.work, Archive: Archive{DeleteSource: tc.deleting}}
			if got := c.Roles(); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestRefusedSources(t *testing.T) {
	pg := func(rest string) string {
		return "sources: {d: {url: 'postgres://u:secret@h/db', roots: [/mnt/docs]" + rest + "}}"
	}
	cases := []struct {
		name string
		yaml string
		want string // the whole error
	}{
		{"no roots", "sources: {d: {url: 'postgres://u:secret@h/db'}}", "sources.d.roots: missing: say where the rows' files may be read"},
		{"unknown column", pg(", columns: {modified: m}"), "sources.d.columns.modified: unknown key; the nearest known one is sources.d.columns.modified_at"},
		{"unknown state", pg(", states: {active: m}"), "sources.d.states.active: unknown key; the nearest known one is sources.d.states.ACTIVE"},
		{"unknown role", pg(", urls: {packet: 'postgres://h/d'}"), "sources.d.urls.packet: unknown key; the nearest known one is sources.d.urls.packer"},
		{"state that is a number", pg(", states: {ACTIVE: 01}"), "sources.d.states.ACTIVE: 1 is not a text; put it in quotes"},
		{"nested column", pg(", columns: {id: {name: x}}"), "sources.d.columns.id.name: unknown key; the nearest known one is sources.d.columns.name"},
		{"nested metadata", pg(", metadata: {owner: {column: x}}"), `sources.d.metadata: the key "owner.column" is not 1 to 64 letters, digits, - and _`},
		{"value for columns", pg(", columns: id"), "sources.d.columns: holds keys of its own, not a value"},
		{"no value for a column", pg(", columns: {id: }"), "sources.d.columns.id: it has no value"},
		{"two states, one word", pg(", states: {ACTIVE: A, MARKED: A}"), `sources.d.states: ACTIVE and MARKED are both "A"`},
		{"another state's own word", pg(", states: {ACTIVE: PACKED}"), `sources.d.states: ACTIVE and PACKED are both "PACKED"`},
		{"table in three parts", pg(", table: a.b.c"), ""},
		{"one column for two words", pg(", columns: {des_pack: x, des_claim: x}"), `sources.d.columns: des_pack and des_claim are both column "x"`},
		{"states of a side binding", pg(", table: a.b, binding: side, states: {ACTIVE: A}"), "sources.d.states: the side binding keeps the state itself, in the contract's words"},
		{"filter with two statements", pg(", filter: 'true; drop table x'"), ""},
		{"binding", pg(", binding: views"), `sources.d.binding: "views" is neither table nor side`},
		{"side binding of the reference table", pg(", binding: side"), "sources.d.table: the side binding is for a table of the customer's, name it"},
		{"naming", pg(", naming: random"), `sources.d.naming: "random" is neither column nor generated`},
		{"role of another database", pg(", urls: {packer: 'mysql://u:secret@h/db'}"), "sources.d.urls.packer: mysql:// is not supported; write postgres://user@host/database"},
		{"unreadable URL", pg(", urls: {packer: 'postgres://u:secret%zz@h/db'}"), "sources.d.urls.packer: not a URL; write postgres://user@host/database; #, /, ?, @ and % in a password are written %23, %2F, %3F, %40 and %25"},
		{"password with a #", "sources: {d: {url: 'postgres://u:secret#1@h/db', roots: [/mnt]}}", ""},
		{"password with a ?", "sources: {d: {url: 'postgres://u:12?secret@h/db', roots: [/mnt]}}", "sources.d.url: #, /, ?, @ and % in a password are written %23, %2F, %3F, %40 and %25"},
		{"password with an @", "sources: {d: {url: 'postgres://u:12@secret@h/db', roots: [/mnt]}}", "sources.d.url: #, /, ?, @ and % in a password are written %23, %2F, %3F, %40 and %25"},
		{
			"password with a %", "sources: {d: {url: 'postgres://u:12%secret@h/db', roots: [/mnt]}}",
			"sources.d.url: not a URL; write postgres://user@host/database; #, /, ?, @ and % in a password are written %23, %2F, %3F, %40 and %25",
		},
		{"keywords instead of a URL", "sources: {d: {url: 'host=h password=secret', roots: [/mnt]}}", "sources.d.url: not a URL; write sqlite:///file.db or postgres://user@host/database"},
		{"list instead of a URL", "sources: {d: {url: ['postgres://u:secret@h/db']}}", "sources.d.url: not a text"},
		{
			"a role without connection", "sources: {d: {urls: {reader: 'postgres://h/d', marker: 'postgres://h/d'}, roots: [/mnt]}}",
			"sources.d.url: missing: this node's work needs the packer too, and there is no urls.packer",
		},
		{"mapped prefix of nothing", pg(", roots: [' => /mnt']"), ""},
		{
			"postgres words for an embedded source", "sources: {d: {url: 'sqlite:///d.db', table: a.b, columns: {id: x}, naming: generated}}",
			"sources.d.table: only a postgres:// source has it\nsources.d.columns: only a postgres:// source has it\nsources.d.naming: only a postgres:// source has it",
		},
		{
			"mapped prefix of an embedded source", "sources: {d: {url: 'sqlite:///d.db', roots: ['/a => /b']}}",
			`sources.d.roots: "/a => /b": only a postgres:// source maps prefixes of paths`,
		},
		{
			"one table twice", "sources: {a: {url: 'postgres://a@h/db', roots: [/mnt]}, b: {url: 'postgres://b@h/db', roots: [/mnt]}}",
			"sources.b.url: source a has the same table",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			file := write(t, tc.yaml)
			_, err := Load(Input{File: file})
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			got := strings.ReplaceAll(err.Error(), file+": ", "")
			if tc.want != "" && got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("%q repeats a password", got)
			}
		})
	}
}

func TestRefusedRootsAndStores(t *testing.T) {
	roots := func(root string) string {
		return fmt.Sprintf("data_dir: /srv/d\nstore: {url: 's3://archive/des'}\nsources: {d: {url: 'postgres://h/db', roots: ['%s']}}", root)
	}
	store := func(url, rest string) string { return fmt.Sprintf("store: {url: '%s'%s}", url, rest) }
	cases := []struct {
		name string
		yaml string
		want string
	}{
		{"prefix below nothing", roots("/a => docs"), `sources.d.roots: "docs" is not an absolute path`},
		{"no prefix", roots("=> /docs"), `sources.d.roots: " => /docs" maps no prefix`},
		{"mapped onto the data dir", roots("/a => /srv/d/raft"), "sources.d.roots: /srv/d/raft and the node's own folder /srv/d overlap"},
		{"bucket of the store", roots("/a => s3://archive/des/x"), "sources.d.roots: s3://archive/des/x and the store s3://archive/des overlap"},
		{"whole bucket of the store", roots("s3://archive"), "sources.d.roots: s3://archive and the store s3://archive/des overlap"},
		{"another scheme", roots("gs://docs"), "sources.d.roots: gs:// is not supported; write a folder, or s3://bucket/prefix"},
		{"no bucket", roots("s3:///docs"), "sources.d.roots: s3:///docs names no bucket; write s3://bucket/prefix?endpoint=…&region=…"},

		{"store of another kind", store("gs://b", ""), "store.url: gs:// is not supported; write file:///folder or s3://bucket/prefix"},
		{"store without bucket", store("s3://", ""), "store.url: s3:// names no bucket; write s3://bucket/prefix?endpoint=…&region=…"},
		{"store with credentials", store("s3://key:secret@b/p", ""), "store.url: credentials do not stand in the URL; see store.credentials"},
		{"store with a bad endpoint", store("s3://b/p?endpoint=localhost:9000", ""), "store.url: the endpoint is not an http:// or https:// URL"},
		{"CA file of a folder", store("file:///srv/s", ", ca_file: /ca.pem"), "store.ca_file: only an s3:// store has it"},
		{"credentials of a folder", store("file:///srv/s", ", credentials: {read: 'env:A'}"), "store.credentials: only an s3:// store has them"},
		{"relative CA file", store("s3://b", ", ca_file: ca.pem"), `store.ca_file: "ca.pem" is not an absolute path`},
		{"a secret as credentials", store("s3://b", ", credentials: {write: secret}"), "store.credentials.write: write profile:NAME, file:PATH or env:PREFIX"},
		{"relative credentials", store("s3://b", ", credentials: {collect: 'file:c.json'}"), `store.credentials.collect: "c.json" is not an absolute path`},

		{"unknown parameter", store("s3://b/p?endpoint=https://h&path_style=1", ""), "store.url: what stands behind the ? is endpoint and region, each once and not empty"},
		{"parameter twice", store("s3://b/p?region=a&region=b", ""), "store.url: what stands behind the ? is endpoint and region, each once and not empty"},
		{"window", "archive: {windows: ['Mon-Fri 22:00 Europe/Warsaw']}", `archive.windows: window "Mon-Fri 22:00 Europe/Warsaw": hours are two times with a - between; write it as in "Mon-Fri 22:00-06:00 Europe/Warsaw"`},
		{"window's zone", "archive: {windows: ['22:00-06:00 Europe/Warszawa']}", `archive.windows: window "22:00-06:00 Europe/Warszawa": "Europe/Warszawa" is no zone of the IANA database; write it as in "Mon-Fri 22:00-06:00 Europe/Warsaw"`},
		{"negative pace", "archive: {files_per_second: -1, files_per_day: -1}", "archive.files_per_second: -1 is negative\narchive.files_per_day: -1 is negative"},
		{"pace in words", "archive: {files_per_day: many}", "archive.files_per_day: many is not a whole number"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			file := write(t, tc.yaml)
			_, err := Load(Input{File: file})
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			if got := strings.ReplaceAll(err.Error(), file+": ", ""); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestAcceptedSources(t *testing.T) {
	cases := []struct{ name, yaml string }{
		{"socket", "sources: {d: {url: 'postgres:///db?host=/run/postgresql', roots: [/mnt]}}"},
		{"postgresql scheme", "sources: {d: {url: 'postgresql://h/db', roots: [/mnt]}}"},
		{"every role has its own", "sources: {d: {urls: {reader: 'postgres://h/d', marker: 'postgres://h/d', packer: 'postgres://h/d'}, roots: [/mnt]}}"},
		{"only serving", "work: []\nsources: {d: {urls: {reader: 'postgres://h/d'}, roots: [/mnt]}}"},
		{"side by side", "sources: {a: {url: 'postgres://h/db', roots: [/mnt], table: x.a}, b: {url: 'postgres://h/db', roots: [/mnt], table: x.b}, c: {url: 'sqlite:///c.db'}}"},
		{"one table in two parts", "sources: {a: {url: 'postgres://h/db', roots: [/mnt], filter: t.x = 1}, b: {url: 'postgres://h/db', roots: [/mnt], filter: t.x = 2}}"},
		{"side table", "sources: {a: {url: 'postgres://h/db', roots: [/mnt], table: x.a, binding: side, columns: {}}}"},
		{"prefix beside the store's", "store: {url: 's3://b/packs'}\nsources: {a: {url: 'postgres://h/db', roots: ['s3://b/packs-of-old']}}"},
		{"same bucket elsewhere", "store: {url: 's3://b'}\nsources: {a: {url: 'postgres://h/db', roots: ['s3://b'], s3: {endpoint: 'https://other'}}}"},
		{"states swapped", "sources: {a: {url: 'postgres://h/db', roots: [/mnt], states: {ACTIVE: MARKED, MARKED: ACTIVE}}}"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Load(Input{File: write(t, tc.yaml)}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValuesOfAPostgresSource(t *testing.T) {
	c, err := Load(Input{File: write(t, "sources: {d: {url: 'postgres://u:secret@h/db', urls: {reader: 'postgres://h/db?password=secret&x=1'}, roots: [/mnt], columns: {id: i}}}")})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range c.Values() {
		if strings.HasPrefix(v.Key, sourcesPrefix) {
			got[strings.TrimPrefix(v.Key, "sources.d.")] = v.Value
		}
	}
	want := map[string]string{
		"url": "postgres://u:xxxxx@h/db", "urls.reader": "postgres://h/db?password=xxxxx&x=1", "roots": "/mnt",
		"table": "desnode.files", "binding": "table", "naming": "column", "filter": "", "columns.id": "i",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestPasswordsAreNeverShown draws passwords, puts them wherever a URL may
// have one and looks for them in all that is printed.
func TestPasswordsAreNeverShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		password := "Pw" + rapid.StringMatching(`[A-Za-z0-9@:/?#%&= ]{6,20}`).Draw(t, "password")
		escaped := url.QueryEscape(password)
		raw := rapid.SampledFrom([]string{
			"postgres://" + url.UserPassword("u", password).String() + "@h/db",
			"postgres://u:" + password + "@h/db",
			"postgres://h/db?password=" + escaped,
			"postgres://h/db?sslpassword=" + escaped + "&sslmode=require",
			"postgres://h/db?Pass%77ord=" + escaped,
			"mysql://u:" + escaped + "@h/db",
			"host=h password=" + password,
			"host=h password=" + password + "://",
		}).Draw(t, "url")
		c := Default("/D")
		c.Sources = map[string]Source{"d": {URL: raw, URLs: map[string]string{"reader": raw}, Roots: []string{"/mnt"}}}
		if strings.Contains(raw, "@h/") { // not every text is a URL, and other roots are shown
			s := c.Sources["d"]
			s.Roots = []string{raw, "/a => " + raw, "=> " + raw}
			c.Sources["d"] = s
		}
		c.Store.URL = strings.Replace(raw, "postgres", "s3", 1)
		shown := fmt.Sprint(c.Values(), Redacted(raw), c.Validate())
		for _, secret := range []string{password, escaped, url.PathEscape(password)} {
			if strings.Contains(shown, secret) {
				t.Fatalf("%q shows %q", shown, secret)
			}
		}
	})
}

func TestRedactedLeavesTheRest(t *testing.T) {
	for _, raw := range []string{
		"", "file:///srv/a b", "s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=x", "postgres://u@h/db?sslmode=verify-full",
	} {
		if got := Redacted(raw); got != raw {
			t.Errorf("got %q, want %q", got, raw)
		}
	}
}
