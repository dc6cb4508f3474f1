package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/datavision/desnode/deploy/dev"
	s3policy "github.com/datavision/desnode/deploy/s3"
)

// user makes a user of the real server who may do nothing, and returns where
// the credentials are.
func (p *probed) user(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../bin/versitygw", "admin",
		"--access", dev.S3AccessKey, "--secret", dev.S3SecretKey, "--region", dev.S3Region, "--endpoint-url", p.Endpoint,
		"create-user", "--access", name, "--secret", name+"-secret", "--role", "user").CombinedOutput()
	if err != nil {
		t.Fatalf("create user %s: %v: %s", name, err, out)
	}
	return p.account(t, name, name+"-secret")
}

// apply makes the policy the bucket's.
func (p *probed) apply(t *testing.T, bucket string, d s3policy.Document) error {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.client(t, p.root).PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: aws.String(string(b))})
	return err
}

// Users of the policies' tests, named after the policy that each is given.
const nobody = "nobody"

// granted is a bucket whose policy gives each policy to a user of its own.
func (p *probed) granted(t *testing.T, bucket, prefix string, versioned bool) map[string]*s3.Client {
	t.Helper()
	root := p.client(t, p.root)
	// Made through its API: versitygw answers 500 to a user's copies in a bucket
	// that was made as a folder, and has no owner.
	if _, err := root.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	if versioned {
		_, err := root.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
			Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	clients := map[string]*s3.Client{nobody: p.client(t, p.user(t, bucket+nobody))}
	var grants []s3policy.Grant
	for _, policy := range s3policy.Policies() {
		if policy != s3policy.NoOverwrite {
			name := bucket + string(policy)
			clients[string(policy)] = p.client(t, p.user(t, name))
			grants = append(grants, s3policy.Grant{Policy: policy, Principal: name})
		}
	}
	d, err := s3policy.Bucket(grants, bucket, prefix)
	if err == nil {
		err = p.apply(t, bucket, d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// TestPoliciesOnARealServer makes every call as every user: those that the
// role's work takes succeed, all others are refused.
func TestPoliciesOnARealServer(t *testing.T) {
	p := startProbed(t)
	bucket := "policed"
	clients := p.granted(t, bucket, "des/", true)
	root := p.client(t, p.root)
	const pack, cluster, quarantined, foreign = "des/packs/3a-8/1-2-x.des", "des/cluster.json", "des/quarantine/2026-01-02/x", "other/x"
	const address = "des/nodes/6ba7b810-9dad-11d1-80b4-00c04fd430c8/1"
	version := map[string]string{}
	reset := func(t *testing.T) string { // every object is there, and one upload is open
		t.Helper()
		for _, key := range []string{pack, cluster, quarantined, address, foreign} {
			out, err := root.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("content")})
			if err != nil {
				t.Fatal(err)
			}
			version[key] = *out.VersionId
		}
		open, err := root.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: aws.String(pack)})
		if err != nil {
			t.Fatal(err)
		}
		return *open.UploadId
	}
	get := func(key string, versioned bool) func(context.Context, *s3.Client, string) error {
		return func(ctx context.Context, c *s3.Client, _ string) error {
			in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
			if versioned {
				in.VersionId = aws.String(version[key])
			}
			out, err := c.GetObject(ctx, in)
			if err == nil {
				err = out.Body.Close()
			}
			return err
		}
	}
	put := func(key string) func(context.Context, *s3.Client, string) error {
		return func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("new")})
			return err
		}
	}
	copyTo := func(key string) func(context.Context, *s3.Client, string) error {
		return func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &bucket, Key: &key, CopySource: aws.String(bucket + "/" + pack)})
			return err
		}
	}
	remove := func(key string, versioned bool) func(context.Context, *s3.Client, string) error {
		return func(ctx context.Context, c *s3.Client, _ string) error {
			in := &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}
			if versioned {
				in.VersionId = aws.String(version[key])
			}
			_, err := c.DeleteObject(ctx, in)
			return err
		}
	}
	const read, write, collect, sourceRead, sourceDelete = "read", "write", "collect", "source-read", "source-delete"
	for _, tc := range []struct {
		name string
		call func(ctx context.Context, c *s3.Client, upload string) error
		may  []string
	}{
		{"get a pack", get(pack, false), []string{read, collect, sourceRead, sourceDelete}},
		{"get a version of a pack", get(pack, true), []string{read, collect, sourceRead, sourceDelete}},
		{"get cluster.json", get(cluster, false), []string{read, sourceRead, sourceDelete}},
		{"get a node's address", get(address, false), []string{read, sourceRead, sourceDelete}},
		{"get outside the prefix", get(foreign, false), nil},
		{"list", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket})
			return err
		}, []string{read, collect, sourceRead, sourceDelete}},
		{"list versions", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket})
			return err
		}, []string{collect}},
		{"list uploads", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &bucket})
			return err
		}, []string{collect}},

		{"put a pack", put("des/packs/0-0/new"), []string{write}},
		{"put over a pack", put(pack), []string{write}}, // versitygw can't tell: see no-overwrite.json
		{"put a generation", put("des/generations/7"), []string{write}},
		{"put a node's address", put("des/nodes/6ba7b810-9dad-11d1-80b4-00c04fd430c8/2"), []string{write}},
		{"put into quarantine", put("des/quarantine/y"), []string{collect}},
		{"put over cluster.json", put(cluster), []string{write}},
		{"put the probe's object", put("des/.desnode-probe"), []string{write, collect}},
		{"put the originals' probe", put(".desnode-probe"), []string{sourceDelete}},
		{"put elsewhere below the prefix", put("des/x"), nil},
		{"put outside the prefix", put(foreign), nil},
		{"start an upload", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: aws.String("des/packs/0-0/large")})
			return err
		}, []string{write}},
		{"send a part", func(ctx context.Context, c *s3.Client, upload string) error {
			_, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: &bucket, Key: aws.String(pack), UploadId: &upload, PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte("part"))})
			return err
		}, []string{write}},
		{"abort an upload", func(ctx context.Context, c *s3.Client, upload string) error {
			_, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: aws.String(pack), UploadId: &upload})
			return err
		}, []string{write, collect}},
		{"copy a pack into quarantine", copyTo("des/quarantine/2026-01-02/copy"), []string{collect}},
		{"copy a pack over a pack", copyTo(pack), nil},

		{"delete a pack", remove(pack, false), []string{collect, sourceDelete}},
		{"delete a version of a pack", remove(pack, true), []string{collect, sourceDelete}},
		{"delete from quarantine", remove(quarantined, true), []string{collect, sourceDelete}},
		{"delete cluster.json", remove(cluster, false), []string{sourceDelete}},
		{"delete a node's address", remove(address, false), []string{sourceDelete}},
		{"delete outside the prefix", remove(foreign, false), nil},

		{"look at versioning", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &bucket})
			return err
		}, []string{collect}},
		{"switch versioning off", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}})
			return err
		}, nil},
		{"change the policy", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.DeleteBucketPolicy(ctx, &s3.DeleteBucketPolicyInput{Bucket: &bucket})
			return err
		}, nil},
		{"delete the bucket", func(ctx context.Context, c *s3.Client, _ string) error {
			_, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket})
			return err
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			upload := reset(t)
			for who, client := range clients {
				err := tc.call(t.Context(), client, upload)
				if err == nil {
					upload = reset(t)
				}
				switch may := slices.Contains(tc.may, who); {
				case may && err != nil:
					t.Errorf("%s: %v", who, err)
				case !may && errStatus(err) != http.StatusForbidden:
					t.Errorf("%s may, or was answered otherwise: %v", who, err)
				}
			}
		})
	}
}

// TestNoOverwriteIsForServersThatKnowIt: the day versitygw takes the policy, it
// belongs into the test above.
func TestNoOverwriteIsForServersThatKnowIt(t *testing.T) {
	p := startProbed(t)
	if err := p.MakeBucket("strict"); err != nil {
		t.Fatal(err)
	}
	d, err := s3policy.Bucket([]s3policy.Grant{{Policy: s3policy.NoOverwrite, Principal: "*"}}, "strict", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.apply(t, "strict", d); errCode(err) != "MalformedPolicy" || !strings.Contains(err.Error(), "condition key") {
		t.Errorf("got %v, want its refusal of the condition key", err)
	}
}

// TestWorkUnderThePolicies runs the store and the probe with a set of
// credentials for each role that has the least rights.
func TestWorkUnderThePolicies(t *testing.T) {
	p := startProbed(t)
	for _, tc := range []struct {
		name      string
		versioned bool
	}{{"plain", false}, {"versioned", true}} {
		t.Run(tc.name, func(t *testing.T) {
			p.granted(t, tc.name, "some/prefix/", tc.versioned)
			c := p.config(p.Endpoint, tc.name)
			from := func(policy s3policy.Policy) string {
				return p.account(t, tc.name+string(policy), tc.name+string(policy)+"-secret")
			}
			c.S3.Read, c.S3.Write, c.S3.Collect = from(s3policy.Read), from(s3policy.Write), from(s3policy.Collect)
			for _, f := range run(t, c) {
				expected := !tc.versioned && (f.Check == checkVersioning || f.Check == checkOverwrite)
				if f.Level >= LevelWarn && !expected {
					t.Errorf("%s: %s: %s", f.Check, f.Level, f.Seen)
				}
			}
			if left := p.keysOf(t, tc.name, ""); len(left) > 0 {
				t.Errorf("the probe left %v", left)
			}
			workUnderPolicies(t, c.S3)
		})
	}
}

// workUnderPolicies does what a node does with a store.
func workUnderPolicies(t *testing.T, c S3Config) {
	t.Helper()
	s, err := OpenS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if held, err := s.ConditionalCreate(t.Context()); err != nil || !held {
		t.Error("the store does not create on condition")
	}
	if _, err := s.Head(t.Context(), "cluster.json", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("cluster.json of an empty store: %v", err)
	}
	const pack, moved = "packs/0-0/1-1-x.des", "quarantine/2026-01-02/packs/0-0/1-1-x.des"
	const address, next = "nodes/6ba7b810-9dad-11d1-80b4-00c04fd430c8/1", "nodes/6ba7b810-9dad-11d1-80b4-00c04fd430c8/2"
	for _, key := range []string{"cluster.json", "generations/1", pack, address} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("content"), 7); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Put(t.Context(), pack, strings.NewReader("another"), 7); !errors.Is(err, ErrExists) {
		t.Errorf("put over a pack: %v", err)
	}
	// As nodes find each other's newest address: they read until one is missing.
	if r, err := s.Get(t.Context(), address, "", 0, -1); err != nil || r.Close() != nil {
		t.Errorf("an address that is there: %v", err)
	}
	if _, err := s.Get(t.Context(), next, "", 0, -1); !errors.Is(err, ErrNotFound) {
		t.Errorf("an address that is not there: %v, want ErrNotFound", err)
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"move", func() error { return s.Move(t.Context(), pack, moved) }},
		{"list", func() error { return s.List(t.Context(), "", "", func(Object) error { return nil }) }},
		{"delete", func() error { return s.Delete(t.Context(), moved) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	for _, key := range []string{"cluster.json", address} {
		if err := s.Delete(t.Context(), key); !errors.Is(err, ErrAccess) {
			t.Errorf("delete %s: %v, want ErrAccess", key, err)
		}
	}
}

// TestProbeFindsTooManyRights swaps credentials around.
func TestProbeFindsTooManyRights(t *testing.T) {
	p := startProbed(t)
	p.granted(t, "swapped", "some/prefix/", false)
	from := func(policy s3policy.Policy) string {
		return p.account(t, "swapped"+string(policy), "swapped"+string(policy)+"-secret")
	}
	read, write, collect := from(s3policy.Read), from(s3policy.Write), from(s3policy.Collect)
	for _, tc := range []struct {
		name                 string
		read, write, collect string
		check, seen          string
		level                Level
	}{
		{"root reads", p.root, write, collect, "read credentials", "can create objects", LevelWarn},
		{"the reader may delete", from(s3policy.SourceDelete), write, collect, "read credentials", "can delete objects", LevelWarn},
		{"root writes", read, p.root, collect, "write credentials", "can delete objects", LevelWarn},
		{"root collects", read, write, p.root, "collect credentials", "can create packs", LevelWarn},
		{"each its own", read, write, collect, checkRoles, "for each role", LevelOK},
		{"two roles in one", read, p.root, p.root, checkRoles, "desnode-dev to write and to collect", LevelWarn},
		{"the reader collects", collect, write, collect, checkRoles, "swappedcollect to read and to collect", LevelWarn},
		{"the reader collects and can't create", collect, write, collect, "read credentials", "can't create objects", LevelOK},
		{"the reader can't write", read, read, collect, "write credentials", "403", LevelBad},
		{"the writer can't collect", read, write, write, "collect credentials", "403", LevelBad},
		{"the writer reads", write, write, collect, "read credentials", "read what was written: 403", LevelBad},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := p.config(p.Endpoint, "swapped")
			c.S3.Read, c.S3.Write, c.S3.Collect = tc.read, tc.write, tc.collect
			all := run(t, c)
			if !slices.ContainsFunc(all, func(f Finding) bool {
				return f.Check == tc.check && f.Level == tc.level && strings.Contains(f.Seen, tc.seen)
			}) {
				t.Errorf("no %s finding of %s that says %q: %+v", tc.level, tc.check, tc.seen, all)
			}
		})
	}
}
