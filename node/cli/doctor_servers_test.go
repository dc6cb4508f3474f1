package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/config"
)

// servers are a real Postgres and a real S3 server with what a source and a
// store need.
type servers struct {
	pg *dev.Postgres
	s3 *dev.S3
}

func startServers(t *testing.T) servers {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out Postgres and S3")
	}
	dir, err := os.MkdirTemp("", "desnode-doctor-*") // t.TempDir lets no other user in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	pg, err := dev.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, pg) })
	s3, err := dev.StartS3(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s3) })
	if err := s3.MakeBucket("packs"); err != nil {
		t.Fatal(err)
	}
	if err := s3.MakeBucket("originals"); err != nil {
		t.Fatal(err)
	}
	if _, err := migrations.Apply(t.Context(), pg.URL, migrations.Mapping{Source: "documents"}, migrations.ScriptOptions{Login: true}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCTORTEST_ACCESS_KEY_ID", dev.S3AccessKey)
	t.Setenv("DOCTORTEST_SECRET_ACCESS_KEY", dev.S3SecretKey)
	return servers{pg, s3}
}

func stop(t *testing.T, s interface{ Stop() error }) {
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// as returns the database's URL for one of desnode's roles.
func (s servers) as(role string) string {
	u, err := url.Parse(s.pg.URL)
	if err != nil {
		panic(err) // it is ours
	}
	u.User = url.UserPassword("desnode_"+role, "hush")
	return u.String()
}

// node writes a configuration for these servers and returns its file.
func (s servers) node(t *testing.T, change *strings.Replacer) string {
	t.Helper()
	text := fmt.Sprintf(`
http: 127.0.0.1:0
data_dir: %s
store:
  url: s3://packs/des?endpoint=%s&region=%s
  credentials: {read: "env:DOCTORTEST", write: "env:DOCTORTEST", collect: "env:DOCTORTEST"}
sources:
  documents:
    urls: {marker: "%s", packer: "%s", reader: "%s"}
    roots: ["%s", "s3://originals/in/"]
    s3: {read: "env:DOCTORTEST"}
`, filepath.Join(t.TempDir(), "data"), url.QueryEscape(s.s3.Endpoint), dev.S3Region, s.as("marker"), s.as("packer"), s.as("reader"), t.TempDir())
	if change != nil {
		text = change.Replace(text)
	}
	file := filepath.Join(t.TempDir(), "desnode.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// doctor runs the command and returns its findings by check, the worst of each.
func doctor(t *testing.T, args ...string) (map[string]finding, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Main(append([]string{"doctor", "-o", "json"}, args...), strings.NewReader(""), &stdout, &stderr)
	var all []finding
	if err := json.Unmarshal(stdout.Bytes(), &all); err != nil {
		t.Fatalf("%v: %s%s", err, &stdout, &stderr)
	}
	if strings.Contains(stdout.String()+stderr.String(), "hush") {
		t.Errorf("the password is printed: %s%s", &stdout, &stderr)
	}
	bad := map[string]int{resultOK: 0, resultUntold: 1, resultWarn: 2, resultFail: 3}
	worst := map[string]finding{}
	for _, f := range all {
		if w, ok := worst[f.Check]; !ok || bad[f.Result] > bad[w.Result] {
			worst[f.Check] = f
		}
	}
	return worst, code
}

func TestDoctorAsksTheServers(t *testing.T) {
	s := startServers(t)
	stopped := s.as("marker")
	for _, tc := range []struct {
		name   string
		change *strings.Replacer
		args   []string
		code   int
		want   map[string]string // check → result
		lacks  string            // a check that is not made
	}{
		{name: "as it should be", code: exitOK, want: map[string]string{
			"store: read credentials": resultOK, "store: conditional create": resultOK, "store: ranges": resultOK,
			"store: transport": resultOK, "store: versioning": resultWarn, "store: lifecycle": resultUntold, "store: clock": resultOK,
			`source "documents": role marker`: resultOK, `source "documents": role reader`: resultOK, `source "documents": clock`: resultOK,
			`source "documents": server`: resultOK, `source "documents": root`: resultOK,
			`source "documents": root s3://originals/in/: read credentials`: resultOK,
			"http": resultOK,
		}, lacks: "store: tidying up"},
		{name: "reading only", args: []string{"--read-only"}, code: exitOK, want: map[string]string{
			"store: read credentials": resultOK, "store: versioning": resultWarn,
		}, lacks: "store: conditional create"},
		{name: "a node that only marks", change: strings.NewReplacer("data_dir:", "work: [mark]\ndata_dir:"), code: exitOK, want: map[string]string{
			"store: read credentials": resultOK, `source "documents": role marker`: resultOK,
		}, lacks: `source "documents": role packer`},
		{name: "no such bucket", change: strings.NewReplacer("s3://packs/", "s3://absent/"), code: exitFailed, want: map[string]string{
			"store: read credentials": resultFail, `source "documents": role marker`: resultOK,
		}, lacks: "store: conditional create"},
		{name: "no such bucket of originals", change: strings.NewReplacer("s3://originals/", "s3://absent/"), code: exitFailed, want: map[string]string{
			`source "documents": root s3://absent/in/: read credentials`: resultFail, "store: read credentials": resultOK,
		}},
		{name: "no such user", change: strings.NewReplacer("desnode_packer", "stranger"), code: exitFailed, want: map[string]string{
			`source "documents": role packer`: resultFail, `source "documents": role marker`: resultOK, `source "documents": table`: resultUntold,
		}, lacks: `source "documents": server`},
		{name: "a root that is not there", change: strings.NewReplacer(`roots: ["`, `roots: ["/absent-root", "`), code: exitFailed, want: map[string]string{
			`source "documents": root`: resultFail,
		}},
		{name: "too few rights", change: strings.NewReplacer(s.as("packer"), s.as("reader")), code: exitFailed, want: map[string]string{
			`source "documents": role packer`: resultFail,
		}},
		{name: "no database", change: strings.NewReplacer(stopped, strings.Replace(stopped, fmt.Sprint(s.pg.Port), "1", 1)), code: exitFailed, want: map[string]string{
			`source "documents": role marker`: resultFail,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, code := doctor(t, append([]string{"--config", s.node(t, tc.change)}, tc.args...)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for check, result := range tc.want {
				if got[check].Result != result {
					t.Errorf("%s: got %q, %s; want %s", check, got[check].Result, got[check].Detail, result)
				}
			}
			if f, ok := got[tc.lacks]; ok {
				t.Errorf("made the check %+v", f)
			}
			if t.Failed() {
				for _, f := range got {
					t.Logf("%+v", f)
				}
			}
		})
	}
}

func TestDoctorSaysWhatFindingsMean(t *testing.T) {
	var b bytes.Buffer
	err := writeFindings(&b, []finding{
		{"store: clock", resultOK, "ours", "not printed", ""},
		{"store: versioning", resultWarn, "off", "packs can vanish", "switch it on"},
		plain("http", resultFail, "in use"),
	})
	want := `ok    store: clock       ours
warn  store: versioning  off
fail  http               in use

warn store: versioning: off
  means: packs can vanish
  set:   switch it on
`
	if err != nil || b.String() != want {
		t.Errorf("got %s, %v\nwant %s", b.String(), err, want)
	}
}

// TestDoctorTakesTheRolesOfTheWork: a node asks for no more than it needs.
func TestDoctorTakesTheRolesOfTheWork(t *testing.T) {
	c := config.Default(t.TempDir())
	c.Store.URL, c.Work = "s3://packs/?endpoint=http%3A%2F%2F127.0.0.1%3A1", []string{config.WorkKeep}
	c.Store.Credentials.Write = "nonsense" // not asked for
	c.Store.Credentials.Read, c.Store.Credentials.Collect = "env:DOCTORTEST_UNSET", "env:DOCTORTEST_UNSET"
	for _, f := range bucketStore(t.Context(), c, false) {
		if strings.Contains(f.Check, "write") || strings.Contains(f.Detail, "nonsense") {
			t.Errorf("asked for the credentials to write: %+v", f)
		}
	}
}
