package source_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/objectstest"
	"github.com/datavision/desnode/node/store"
)

// inStore makes the store's driver the bucket of originals, as the node does.
type inStore struct{ s *store.S3 }

func inWordsOfSource(err error) error {
	switch {
	case errors.Is(err, store.ErrReplaced):
		return fmt.Errorf("%w: %w", source.ErrChanged, err)
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w: %w", source.ErrNoFile, err)
	}
	return err
}

func (b inStore) Head(ctx context.Context, key string) (source.ObjectInfo, error) {
	o, err := b.s.Head(ctx, key, "")
	return source.ObjectInfo{Size: o.Size, ModTime: o.Modified, Version: o.Version}, inWordsOfSource(err)
}

func (b inStore) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	body, err := b.s.Get(ctx, key, version, off, n)
	return body, inWordsOfSource(err)
}

func (b inStore) Delete(ctx context.Context, key, version string) error {
	return inWordsOfSource(b.s.DeleteVersion(ctx, key, version))
}

// customer speaks to a bucket as the customer's own system does.
type customer struct {
	t      *testing.T
	server *dev.S3
	bucket string
}

func (c customer) put(key, content string) { c.send(http.MethodPut, key, "", content) }

func (c customer) keepVersions() {
	c.send(http.MethodPut, "", "versioning=", `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`)
}

// send sends one request, signed with AWS Signature Version 4 over the headers
// that it must cover.
func (c customer) send(method, key, query, body string) {
	c.t.Helper()
	target := "/" + c.bucket
	if key != "" {
		target += "/" + awsEscape(key)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.server.Endpoint+target+"?"+query, strings.NewReader(body))
	must(c.t, err)
	req.URL.Opaque = "//" + req.URL.Host + target // as it was signed, escapes included
	now := time.Now().UTC()
	date, day, sum := now.Format("20060102T150405Z"), now.Format("20060102"), sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Date", date)
	req.Header.Set("X-Amz-Content-Sha256", hash)
	const signed = "host;x-amz-content-sha256;x-amz-date"
	canonical := strings.Join([]string{
		method, target, query, "host:" + req.URL.Host, "x-amz-content-sha256:" + hash, "x-amz-date:" + date, "", signed, hash,
	}, "\n")
	sum = sha256.Sum256([]byte(canonical))
	scope := strings.Join([]string{day, dev.S3Region, "s3", "aws4_request"}, "/")
	sign := []byte("AWS4" + dev.S3SecretKey)
	for _, part := range []string{day, dev.S3Region, "s3", "aws4_request", "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])} {
		m := hmac.New(sha256.New, sign)
		_, _ = m.Write([]byte(part)) // never fails
		sign = m.Sum(nil)
	}
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", dev.S3AccessKey, scope, signed, sign))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	must(c.t, err)
	answer, err := io.ReadAll(res.Body)
	must(c.t, errors.Join(err, res.Body.Close()))
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s %s: %s: %s", method, target, res.Status, answer)
	}
}

// awsEscape escapes a key as signatures want it: all but unreserved characters
// and slashes.
func awsEscape(key string) string {
	var b bytes.Buffer
	for _, c := range []byte(key) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.~/", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// realBucket makes a new bucket on the server.
func realBucket(t *testing.T, server *dev.S3, name string, versions bool) (inStore, customer) {
	t.Helper()
	must(t, server.MakeBucket(name))
	c := customer{t: t, server: server, bucket: name}
	if versions {
		c.keepVersions()
	}
	s, err := store.OpenBucket(t.Context(), store.S3Config{
		URL:  "s3://" + name + "?" + url.Values{"endpoint": {server.Endpoint}, "region": {dev.S3Region}}.Encode(),
		Read: "env:ORIGINALS", Write: "env:ORIGINALS", Collect: "env:ORIGINALS",
	})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return inStore{s}, c
}

// What the bucket in memory promises holds of a real server, too.
func TestRealBuckets(t *testing.T) {
	if testing.Short() {
		t.Log("-short: no S3 server is started")
		return
	}
	t.Setenv("ORIGINALS_ACCESS_KEY_ID", dev.S3AccessKey)
	t.Setenv("ORIGINALS_SECRET_ACCESS_KEY", dev.S3SecretKey)
	dir, err := os.MkdirTemp("", "originals-*") // the server's sockets need a short path
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	server, err := dev.StartS3(t.Context(), dir)
	must(t, err)
	t.Cleanup(func() { must(t, server.Stop()) })
	n := 0
	for _, versions := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "versioned"}[versions]
		open := func(t *testing.T) (inStore, customer) {
			t.Helper()
			n++
			return realBucket(t, server, fmt.Sprintf("bucket-%d", n), versions)
		}
		t.Run(name+"/conformance", func(t *testing.T) {
			objectstest.Run(t, func(t *testing.T) objectstest.Subject {
				b, c := open(t)
				return objectstest.Subject{Objects: b, Put: c.put, Deletes: deletes(t, b, c)}
			})
		})
		t.Run(name+"/originals", func(t *testing.T) {
			b, c := open(t)
			roots := parse(t, "/data => s3://b/pre", "/other => s3://b")
			f := source.NewOriginals(func() []source.Root { return roots }, func(string) (source.Objects, error) { return b, nil })
			originalsOfARealBucket(t, f, c, deletes(t, b, c))
		})
	}
}

// deletes finds out whether the server can delete one version and no other.
func deletes(t *testing.T, b inStore, c customer) bool {
	t.Helper()
	c.put("probe-of-deletes", "x")
	info, err := b.Head(t.Context(), "probe-of-deletes")
	must(t, err)
	err = b.Delete(t.Context(), "probe-of-deletes", info.Version)
	if errors.Is(err, errors.ErrUnsupported) {
		return false
	}
	must(t, err)
	return true
}

func originalsOfARealBucket(t *testing.T, f source.Originals, c customer, deletes bool) {
	large := strings.Repeat("0123456789abcdef", 1<<16) // two requests' worth of stream
	for key, text := range map[string]string{"pre/a b+c%41": "content", "pre/empty": "", "pre/large": large} {
		c.put(key, text)
		before := time.Now()
		o, err := f.Open(t.Context(), "/data/"+strings.TrimPrefix(key, "pre/"))
		must(t, err)
		if info := o.Info(); info.Modified(before, time.Minute) || info.FileID != "s3:b/"+key {
			t.Errorf("%s: %+v", key, info)
		}
		_, err = o.Seek(int64(len(text)/2), io.SeekStart)
		must(t, err)
		got, err := io.ReadAll(o)
		must(t, errors.Join(err, o.Close()))
		if string(got) != text[len(text)/2:] {
			t.Errorf("%s: read %d bytes, other than the second half", key, len(got))
		}
	}
	if _, err := f.Open(t.Context(), "/data/none"); !errors.Is(err, source.ErrNoFile) {
		t.Errorf("open of nothing: %v", err)
	}

	o, err := f.Open(t.Context(), "/data/large")
	must(t, err)
	_, err = io.ReadFull(o, make([]byte, 100))
	must(t, err)
	c.put("pre/large", large[1:]+"!")
	if _, err := io.ReadAll(o); !errors.Is(err, source.ErrChanged) {
		t.Errorf("replaced while it was read: %v", err)
	}
	must(t, o.Close())

	judged, err := f.OpenHidden(t.Context(), "/data/large")
	must(t, err)
	must(t, judged.Close())
	err = f.Remove(t.Context(), "/data/large", o.Info()) // as judged before it was replaced
	switch {
	case !deletes:
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("remove: %v, want ErrUnsupported", err)
		}
	case err != nil && !errors.Is(err, source.ErrChanged):
		t.Errorf("remove of the replaced: %v", err)
	}
	if got, err := content(t, f, "/data/large"); err != nil || got != large[1:]+"!" {
		t.Errorf("after the removal of what it was before: %d bytes, %v", len(got), err)
	}
	if !deletes {
		return
	}
	for range 2 {
		must(t, f.Remove(t.Context(), "/data/large", judged.Info()))
	}
	if _, err := f.Open(t.Context(), "/data/large"); !errors.Is(err, source.ErrNoFile) {
		t.Errorf("open of the removed: %v", err)
	}
}
