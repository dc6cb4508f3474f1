package store

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// TestProbeOfARealServer runs against a server that is as it should be, but
// for what it lacks.
func TestProbeOfARealServer(t *testing.T) {
	p := startProbed(t)
	for _, tc := range []struct {
		name       string
		versioning types.BucketVersioningStatus
		want       map[string]Level // the others are ok
	}{
		{"plain", "", map[string]Level{checkVersioning: LevelWarn, checkOverwrite: LevelWarn}},
		{"versioned", types.BucketVersioningStatusEnabled, nil},
		{"suspended", types.BucketVersioningStatusSuspended, map[string]Level{checkVersioning: LevelWarn, checkOverwrite: LevelWarn}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := p.bucket(t, tc.name)
			if tc.versioning != "" {
				_, err := p.client(t, p.root).PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
					Bucket: &tc.name, VersioningConfiguration: &types.VersioningConfiguration{Status: tc.versioning},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			all := run(t, c)
			want := map[string]Level{
				checkRoles:     LevelWarn,                                 // root does everything
				checkLifecycle: LevelUntold, checkEncryption: LevelUntold, // 501
			}
			for check, level := range tc.want {
				want[check] = level
			}
			for _, f := range all {
				if f.Level != want[f.Check] {
					t.Errorf("%s: %s: %s, want %s", f.Check, f.Level, f.Seen, want[f.Check])
				}
			}
			if len(all) < 20 {
				t.Errorf("only %d findings", len(all))
			}
			if left := p.keysOf(t, tc.name, ""); len(left) > 0 {
				t.Errorf("the probe left %v", left)
			}
		})
	}
}

func TestProbeOfWhatCannotBeReached(t *testing.T) {
	p := startProbed(t)
	good := p.bucket(t, "good")
	if err := p.MakeBucket("other"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	secure := httptest.NewUnstartedServer(p.proxy(t, fault{}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the client that does not trust it
	secure.StartTLS()
	t.Cleanup(secure.Close)
	for _, tc := range []struct {
		name      string
		change    func(*ProbeConfig)
		check     string
		seen, set string
	}{
		{"no such bucket", func(c *ProbeConfig) { c.S3.URL = p.config(p.Endpoint, "absent").S3.URL }, "read credentials", "NoSuchBucket", "make the bucket"},
		{"nobody there", func(c *ProbeConfig) { c.S3.URL = p.config("http://127.0.0.1:1", "good").S3.URL }, "read credentials", "connection refused", "check the endpoint"},
		{"unknown key", func(c *ProbeConfig) { c.S3.Read = p.account(t, "stranger", "secret") }, "read credentials", "InvalidAccessKeyId", "store.credentials"},
		{"wrong secret", func(c *ProbeConfig) { c.S3.Write = p.account(t, "desnode-dev", "guessed") }, "write credentials", "SignatureDoesNotMatch", "store.credentials"},
		{"no credentials", func(c *ProbeConfig) { c.S3.Collect = "env:DESNODE_PROBE_TEST_UNSET" }, "collect credentials", "missing", ""},
		{"an empty chain", func(c *ProbeConfig) { c.S3.Read = "" }, "read credentials", "no credentials", "store.credentials"},
		{"wrong region", func(c *ProbeConfig) { c.S3.URL = strings.Replace(c.S3.URL, "us-east-1", "eu-north-1", 1) }, "read credentials", "region", "region"},
		{"an unknown authority", func(c *ProbeConfig) { c.S3.URL = p.config(secure.URL, "good").S3.URL }, "read credentials", "unknown authority", "store.ca_file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := good
			tc.change(&c)
			f, _ := found(run(t, c), tc.check)
			if f.Level != LevelBad || !strings.Contains(f.Seen, tc.seen) || !strings.Contains(f.Set, tc.set) {
				t.Errorf("got %s: %q, set %q; want bad with %q, %q", f.Level, f.Seen, f.Set, tc.seen, tc.set)
			}
		})
	}
	// One that had no credentials to collect left what it wrote first.
	if left := p.keysOf(t, "good", ""); len(left) != 1 {
		t.Errorf("probes that could not go on left %v", left)
	}
	good.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	run(t, good)
	if left := p.keysOf(t, "good", ""); len(left) > 0 {
		t.Errorf("a later probe left %v", left)
	}
}

// TestProbeOverHTTPS checks the server's certificate against a file.
func TestProbeOverHTTPS(t *testing.T) {
	p := startProbed(t)
	if err := p.MakeBucket("secure"); err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewTLSServer(p.proxy(t, fault{}))
	t.Cleanup(secure.Close)
	c := p.config(secure.URL, "secure")
	c.S3.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(c.S3.CAFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	all := run(t, c)
	if f, _ := found(all, CheckTransport); f.Level != LevelOK || !strings.Contains(f.Seen, "the configured file") {
		t.Errorf("%+v", f)
	}
	if f, _ := found(all, checkCreate); f.Level != LevelOK || f.Check == "" {
		t.Errorf("%+v", f)
	}
}

func TestProbeRefusesWhatMakesNoSense(t *testing.T) {
	for _, tc := range []struct{ name, url, ca string }{
		{"no URL", "", ""},
		{"a folder", "file:///srv/store", ""},
		{"an unknown key", "s3://bucket/?endpoint=http%3A%2F%2F127.0.0.1%3A1&sort=up", ""},
		{"no CA file", "s3://bucket/?endpoint=https%3A%2F%2F127.0.0.1%3A1", "absent.pem"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if all, err := Probe(t.Context(), ProbeConfig{S3: S3Config{URL: tc.url, CAFile: tc.ca}}); err == nil {
				t.Errorf("got %v, want an error", all)
			}
		})
	}
}

// TestProbeWithFewerRoles: what takes a role that the node does not have is
// left out.
func TestProbeWithFewerRoles(t *testing.T) {
	p := startProbed(t)
	c := p.bucket(t, "fewer")
	c.S3.Write, c.S3.Collect = "file:absent", "file:absent"
	c.Roles = []ProbeRole{}
	all := run(t, c)
	for _, f := range all {
		if f.Level == LevelBad {
			t.Errorf("%s: %s", f.Check, f.Seen)
		}
	}
	if _, ok := found(all, checkCreate); ok {
		t.Error("a probe that only reads tried to create")
	}
	if left := p.keysOf(t, "fewer", ""); len(left) > 0 {
		t.Errorf("a probe that only reads left %v", left)
	}

	c.S3.Write, c.Roles = p.root, []ProbeRole{ProbeWrite}
	all = run(t, c)
	left := p.keysOf(t, "fewer", "some/prefix/probe/")
	if f, _ := found(all, checkTidy); f.Level != LevelWarn || len(left) == 0 || len(left) > 40 {
		t.Errorf("without credentials to collect: %+v, %d objects left", f, len(left))
	}
	if f, ok := found(all, checkCreate); !ok || f.Level != LevelOK {
		t.Errorf("conditional create was not tried: %+v", f)
	}

	// One that collects removes them, an hour on, and leaves those alone that
	// may be at work.
	c = p.config(p.Endpoint, "fewer")
	run(t, c)
	if got := p.keysOf(t, "fewer", ""); len(got) != len(left) {
		t.Errorf("a probe removed objects of one that is under way: %d of %d left", len(got), len(left))
	}
	c.Now = func() time.Time { return time.Now().Add(61 * time.Minute) }
	run(t, c)
	if got := p.keysOf(t, "fewer", ""); len(got) > 0 {
		t.Errorf("an hour on there is still %v", got)
	}
}

// TestProbeThatIsCutTidiesUp ends the context at different moments.
func TestProbeThatIsCutTidiesUp(t *testing.T) {
	p := startProbed(t)
	if err := p.MakeBucket("cut"); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"/first", "/ranges", "/trailer", "/complete", "/upload", "/latency", "/quarantine/move", "/cut"} {
		ctx, f := cutAt(t, at)
		if _, err := Probe(ctx, p.config(p.broken(t, f), "cut")); !errors.Is(err, context.Canceled) {
			t.Errorf("cut at %s: %v", at, err)
		}
		if left := p.keysOf(t, "cut", ""); len(left) > 0 {
			t.Errorf("cut at %s: left %v", at, left)
		}
	}
}

// TestProbeLeavesOthersAlone: objects beside the probe's are not touched.
func TestProbeLeavesOthersAlone(t *testing.T) {
	p := startProbed(t)
	c := p.bucket(t, "shared")
	client, bucket := p.client(t, p.root), "shared"
	theirs := []string{
		"other/x", "some/prefix/cluster.json", "some/prefix/packs/x", "some/prefix/probe-x", "some/prefix/probe/20200101T000000Z",
		"some/prefix/probe/named-by-hand/x",
	}
	for _, k := range theirs {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &k}); err != nil {
			t.Fatal(err)
		}
	}
	old := "some/prefix/probe/20200101T000000Z-0011223344556677/packs/first"
	if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &old}); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	got := p.keysOf(t, "shared", "")
	slices.Sort(got)
	slices.Sort(theirs)
	if !slices.Equal(got, theirs) {
		t.Errorf("left are %v, want %v", got, theirs)
	}
}
