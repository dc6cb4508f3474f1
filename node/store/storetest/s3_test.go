package storetest_test

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
)

// server is the S3 server of this package's tests; nil under -short.
var server *dev.S3

func TestMain(m *testing.M) { goleak.VerifyTestMain(devtest.With(m, devtest.Servers{S3: &server})) }

// bucketOf makes a bucket for one test and returns the configuration of a
// store in it.
func bucketOf(t *testing.T, versions bool) store.S3Config {
	t.Helper()
	if server == nil {
		t.Skip("-short leaves out the S3 server")
	}
	name := "b" + strings.ToLower(rand.Text())
	if err := server.MakeBucket(name); err != nil {
		t.Fatal(err)
	}
	if versions {
		client := s3.New(s3.Options{
			BaseEndpoint: &server.Endpoint, UsePathStyle: true, Region: dev.S3Region,
			Credentials: credentials.NewStaticCredentialsProvider(dev.S3AccessKey, dev.S3SecretKey, ""),
		})
		if _, err := client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
			Bucket: &name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]string{"access_key_id": dev.S3AccessKey, "secret_access_key": dev.S3SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	from := "file:" + path
	return store.S3Config{URL: "s3://" + name + "/a/prefix?endpoint=" + server.Endpoint, Read: from, Write: from, Collect: from}
}

func openS3(t *testing.T, c store.S3Config) *store.S3 {
	t.Helper()
	s, err := store.OpenS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestS3(t *testing.T) {
	for _, c := range []struct {
		name     string
		versions bool
	}{
		{"without versions", false},
		{"with versions", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				s := openS3(t, bucketOf(t, c.versions))
				if held, err := s.ConditionalCreate(t.Context()); err != nil || !held {
					t.Errorf("versitygw creates on condition, and the store says %v, %v", held, err)
				}
				return s
			})
		})
	}
}
