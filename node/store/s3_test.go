package store

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/deploy/dev"
)

func TestS3URL(t *testing.T) {
	for _, c := range []struct {
		url  string
		want s3Target // zero: refused
	}{
		{"s3://bucket", s3Target{bucket: "bucket"}},
		{"s3://bucket/", s3Target{bucket: "bucket"}},
		{"s3://bucket/a/b", s3Target{bucket: "bucket", prefix: "a/b/"}},
		{"s3://bucket/a/b/?region=eu-1", s3Target{bucket: "bucket", prefix: "a/b/", region: "eu-1"}},
		{"s3://bucket?endpoint=http://127.0.0.1:9000", s3Target{bucket: "bucket", endpoint: "http://127.0.0.1:9000", region: "us-east-1"}},
		{"s3://bucket/p?endpoint=https%3A%2F%2Fs3.example%2F&region=x", s3Target{bucket: "bucket", prefix: "p/", endpoint: "https://s3.example", region: "x"}},
		{url: "s3://"},
		{url: "s3://b"},
		{url: "s3://bad bucket"},
		{url: "s3://bucket/a//b"},
		{url: "s3://bucket/../b"},
		{url: "s3://bucket/a#b"},
		{url: "s3://key:secret@bucket/a"},
		{url: "s3://bucket?endpoint=127.0.0.1:9000"},
		{url: "s3://bucket?endpoint=ftp://x"},
		{url: "s3://bucket?endpoint=http://x/path"},
		{url: "s3://bucket?endpoint="},
		{url: "s3://bucket?region=a&region=b"},
		{url: "s3://bucket?regoin=a"},
		{url: "http://bucket"},
	} {
		got, err := S3Config{URL: c.url}.target()
		if c.want == (s3Target{}) {
			if err == nil {
				t.Errorf("%s was taken for %+v", c.url, got)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: the error tells the secret: %v", c.url, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.url, got, err, c.want)
		}
	}
}

func TestS3Keys(t *testing.T) {
	target := s3Target{prefix: "p/"}
	for _, c := range []struct {
		name, key string
		ok        bool
	}{
		{"plain", "packs/3a-8/1.des", true},
		{"the longest", strings.Repeat("x", 1022), true},
		{"too long with the prefix", strings.Repeat("x", 1023), false},
		{"control character", "a\nb", false},
		{"no UTF-8", "a\xff", false},
		{"the probe's", ProbeKey, false},
	} {
		full, err := target.key(c.key)
		if c.ok && (err != nil || full != "p/"+c.key) || !c.ok && !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: %q, %v", c.name, full, err)
		}
		if _, own := target.own("p/" + c.key); own != c.ok && len(c.key) < 1000 {
			t.Errorf("%s: own %v", c.name, own)
		}
	}
}

func TestS3ConfigRefused(t *testing.T) {
	for name, c := range map[string]S3Config{
		"small parts":         {URL: "s3://bucket?region=x", PartSize: 1},
		"negative":            {URL: "s3://bucket?region=x", Stall: -1},
		"unknown credentials": {URL: "s3://bucket?region=x", Write: "vault:x"},
		"credentials of none": {URL: "s3://bucket?region=x", Read: "profile:"},
		"missing CA":          {URL: "s3://bucket?region=x", CAFile: "/nowhere.pem"},
		"a CA that is none":   {URL: "s3://bucket?region=x", CAFile: "s3_test.go"},
	} {
		if s, err := OpenS3(t.Context(), c); err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
		}
	}
}

func TestS3MissingBucketIsNoMissingObject(t *testing.T) {
	c := s3Config(t)
	c.URL = strings.Replace(c.URL, "s3://b", "s3://c", 1)
	if _, err := OpenS3(t.Context(), c); !errors.Is(err, errNoBucket) || errors.Is(err, ErrNotFound) {
		t.Errorf("open: %v", err)
	}
	s, err := newS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, errHead := s.Head(t.Context(), "k", "")
	_, errGet := s.Get(t.Context(), "k", "", 0, 10)
	_, errAll := s.Get(t.Context(), "k", "", 0, -1)
	for what, err := range map[string]error{
		"head": errHead, "get": errGet, "get all": errAll, "delete": s.Delete(t.Context(), "k"), "move": s.Move(t.Context(), "k", "l"),
		"list": s.List(t.Context(), "", "", func(Object) error { return nil }),
	} {
		if err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s in no bucket: %v", what, err)
		}
	}
}

func TestS3RefusedCredentials(t *testing.T) {
	c := s3Config(t)
	putS3(t, openTestS3(t, c), "k", "x")
	wrong := secret(t, "nobody", "wrong-secret")
	c.Read, c.Write = wrong, wrong
	s, err := newS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Get(t.Context(), "k", "", 0, -1)
	if !errors.Is(err, ErrAccess) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "credentials to read (from "+wrong) {
		t.Errorf("get: %v", err)
	}
	if strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("the error tells the secret: %v", err)
	}
	if _, err = s.Head(t.Context(), "k", ""); !errors.Is(err, ErrAccess) || errors.Is(err, ErrNotFound) {
		t.Errorf("head: %v", err)
	}
	if _, err = s.Put(t.Context(), "l", strings.NewReader("x"), 1); !errors.Is(err, ErrAccess) || !strings.Contains(err.Error(), "credentials to write") {
		t.Errorf("put: %v", err)
	}
}

func TestS3Versions(t *testing.T) {
	c := s3Config(t)
	s := openTestS3(t, c)
	plain := putS3(t, s, "k", "first")
	if !isETag(plain.Version) {
		t.Errorf("version %s, want an ETag", plain.Version)
	}
	enableVersions(t, c)
	if o, err := s.Head(t.Context(), "k", plain.Version); err != nil || o.Version != plain.Version {
		t.Errorf("put before the bucket had versions: %+v, %v", o, err)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	second := putS3(t, s, "k", "second")
	if isETag(second.Version) || second.Version == "" {
		t.Errorf("version %q, want a version id", second.Version)
	}
	if got, err := readS3(t, s, "k", second.Version, 1, -1); err != nil || got != "econd" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := readS3(t, s, "k", plain.Version, 0, -1); !errors.Is(err, ErrNotFound) || !errors.Is(err, ErrReplaced) {
		t.Errorf("the replaced ETag: %v", err)
	}
	// Delete takes the bytes away, not only the name.
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), "k", second.Version); !errors.Is(err, ErrNotFound) {
		t.Errorf("the deleted version: %v", err)
	}
}

func TestS3DeleteVersion(t *testing.T) {
	for _, versions := range []bool{false, true} {
		c := s3Config(t)
		if versions {
			enableVersions(t, c)
		}
		s := openTestS3(t, c)
		first := putS3(t, s, "k", "first")
		if err := s.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		second := putS3(t, s, "k", "second")
		err := s.DeleteVersion(t.Context(), "k", first.Version)
		if errors.Is(err, errors.ErrUnsupported) && !versions {
			t.Fatalf("versitygw is expected to delete on condition: %v", err)
		}
		if !versions && !errors.Is(err, ErrReplaced) || versions && err != nil {
			t.Errorf("versions %v: delete of a version that is not there: %v", versions, err)
		}
		wantS3(t, s, "k", "second")
		for range 2 {
			if err := s.DeleteVersion(t.Context(), "k", second.Version); err != nil {
				t.Errorf("versions %v: %v", versions, err)
			}
		}
		if _, err := s.Head(t.Context(), "k", ""); !errors.Is(err, ErrNotFound) {
			t.Errorf("versions %v: head of what was deleted: %v", versions, err)
		}
		for _, version := range []string{"", `"`, `"a`, `"a"b"`} {
			if err := s.DeleteVersion(t.Context(), "k", version); err == nil {
				t.Errorf("delete of version %q", version)
			}
		}
	}
}

func TestS3IgnoredConditions(t *testing.T) {
	c, f := s3Config(t), newFaulty(t)
	f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		// Ignored: as if the header had not been sent. The signature does not cover
		// these headers' absence, so they are emptied by another name.
		for _, h := range []string{"If-None-Match", "If-Match"} {
			if r.Header.Get(h) != "" && r.Method != http.MethodGet && r.Method != http.MethodHead {
				ignoring(t, w, r, pass, h)
				return
			}
		}
		pass.ServeHTTP(w, r)
	})
	s := openTestS3(t, through(c, f.URL))
	if held, err := s.ConditionalCreate(t.Context()); err != nil || held {
		t.Error("conditions that are ignored are taken for held")
	}
	putS3(t, s, "k", "one")
	putS3(t, s, "k", "one")
	if _, err := s.Put(t.Context(), "k", strings.NewReader("two"), 3); !errors.Is(err, ErrExists) {
		t.Errorf("put over another object: %v", err)
	}
	o, err := s.Head(t.Context(), "k", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteVersion(t.Context(), "k", o.Version); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("delete on a condition that is ignored: %v", err)
	}
	wantS3(t, s, "k", "one")
}

// ignoring answers a conditional request as a server that does not know the
// condition: the request's success is made up for the probe's object, which is
// all that may be asked so.
func ignoring(t *testing.T, w http.ResponseWriter, r *http.Request, _ http.Handler, header string) {
	t.Helper()
	if !strings.HasSuffix(r.URL.Path, ProbeKey) {
		t.Errorf("%s %s with %s, where the store is known to ignore it", r.Method, r.URL.Path, header)
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("ETag", `"0123"`)
	if r.Method == http.MethodDelete {
		w.WriteHeader(http.StatusNoContent)
	}
}

func TestS3Requests(t *testing.T) {
	s := openTestS3(t, s3Config(t))
	before := s.Requests()
	ctx := WithCause(t.Context(), "pack")
	content := bytesOf(2 << 20)
	o, err := s.Put(ctx, "k", strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(ctx, "k", o.Version); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, -1} {
		if _, err := readS3(t, s, "k", o.Version, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	got := map[RequestCount]bool{}
	for _, r := range s.Requests() {
		for _, b := range before {
			if b.Kind == r.Kind && b.Cause == r.Cause && b.Class == r.Class {
				r.Count -= b.Count
			}
		}
		if r.Count > 0 {
			got[r] = true
		}
	}
	want := []RequestCount{{KindPut, "pack", ClassPut, 1}, {KindHead, "pack", ClassGet, 1}, {KindGet, "", ClassGet, 2}}
	for _, r := range want {
		if !got[r] {
			t.Errorf("no %+v", r)
		}
	}
	if len(got) != len(want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// Whether the store creates on condition is asked with the credentials to
// collect where those to write are missing, but never by a node that does not
// collect.
func TestConditionAskedToCollect(t *testing.T) {
	c := s3Config(t)
	c.Write = "file:" + filepath.Join(t.TempDir(), "missing.json")
	s := openTestS3(t, c)
	if held, err := s.ConditionalCreate(t.Context()); err != nil || !held {
		t.Errorf("a node that only keeps: %v, %v", held, err)
	}
	c.NoCollect = true
	s = openTestS3(t, c)
	if held, err := s.ConditionalCreate(t.Context()); err == nil || held {
		t.Errorf("a node that collects nothing asked with the credentials to collect: %v, %v", held, err)
	}
}

// A URL that is none is not repeated: a secret may have torn it.
func TestNoSecretOfATornURL(t *testing.T) {
	for _, raw := range []string{"s3://AKIA:hunter2/x@bucket", "s3://bucket?endpoint=http://AKIA:hunter2/x@host"} {
		if _, err := Open(t.Context(), raw); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}

// Credentials that were rotated are read again as soon as the server no longer
// accepts the old ones.
func TestRotatedCredentials(t *testing.T) {
	c := s3Config(t)
	s := openTestS3(t, c)
	putS3(t, s, "k", "content")
	path := filepath.Join(t.TempDir(), "rotated.json")
	write := func(id, key string) {
		b, err := json.Marshal(s3Secret{AccessKeyID: id, SecretAccessKey: key})
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(dev.S3AccessKey, "no longer")
	c.Read = "file:" + path
	s = openTestS3(t, c)
	for range 2 {
		if _, err := readS3(t, s, "k", "", 0, -1); !errors.Is(err, ErrAccess) {
			t.Fatalf("the old ones: %v", err)
		}
	}
	write(dev.S3AccessKey, dev.S3SecretKey)
	if _, err := readS3(t, s, "k", "", 0, -1); err != nil {
		t.Errorf("rotated: %v", err)
	}
}
