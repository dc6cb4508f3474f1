package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"
)

// ProbeKey is the key, below the prefix, of the small object that shows whether
// a server creates and deletes on condition. It is no object of the store.
const ProbeKey = ".desnode-probe"

// maxKeyBytes is S3's limit for a key, the prefix included.
const maxKeyBytes = 1024

// s3Target is where a store lies.
type s3Target struct {
	bucket   string
	prefix   string // empty, or ends with a slash
	endpoint string // empty: Amazon's
	region   string // empty: as the SDK's chain says
}

// bucketName is what S3 allows as the name of a bucket, and what older servers
// allowed.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)

// errNoURL repeats nothing of what was written: there may be a secret in it.
var errNoURL = errors.New("store URL: an invalid URL")

// target reads c.URL.
func (c S3Config) target() (s3Target, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return s3Target{}, errNoURL
	}
	t := s3Target{bucket: u.Host, prefix: strings.Trim(u.Path, "/")}
	switch {
	case u.Scheme != "s3" || u.Opaque != "":
		return s3Target{}, fmt.Errorf("store URL %q: want the form s3://bucket/prefix?endpoint=…&region=…", u.Redacted())
	case u.User != nil:
		return s3Target{}, errors.New("store URL: credentials do not belong in the URL; name their source instead")
	case u.Fragment != "":
		return s3Target{}, fmt.Errorf("store URL %q: there is something behind a #", c.URL)
	case !bucketName.MatchString(t.bucket):
		return s3Target{}, fmt.Errorf("store URL %q: %q is no name of a bucket", c.URL, t.bucket)
	}
	if t.prefix != "" {
		if err := checkS3Key(t.prefix); err != nil {
			return s3Target{}, fmt.Errorf("store URL %q: the prefix: %w", c.URL, err)
		}
		t.prefix += "/"
	}
	if err := t.query(u.RawQuery); err != nil {
		return s3Target{}, fmt.Errorf("store URL: %w", err)
	}
	return t, nil
}

// query reads what stands behind the URL's question mark.
func (t *s3Target) query(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return err
	}
	for name, values := range q {
		if len(values) != 1 || values[0] == "" {
			return fmt.Errorf("%s must have one value", name)
		}
		switch name {
		case "endpoint":
			err = t.setEndpoint(values[0])
		case "region":
			t.region = values[0]
		default:
			err = fmt.Errorf("%q is not known; there are endpoint and region", name)
		}
		if err != nil {
			return err
		}
	}
	if t.endpoint != "" && t.region == "" {
		t.region = "us-east-1"
	}
	return nil
}

func (t *s3Target) setEndpoint(raw string) error {
	e, err := url.Parse(raw)
	if err != nil {
		return errors.New("endpoint: not a URL")
	}
	if e.Scheme != "http" && e.Scheme != "https" || e.Hostname() == "" || e.User != nil ||
		strings.Trim(e.Path, "/") != "" || e.RawQuery != "" || e.Fragment != "" {
		return fmt.Errorf("endpoint %q: want the form https://host:port", e.Redacted())
	}
	t.endpoint = e.Scheme + "://" + e.Host
	return nil
}

// key returns where the store's object key stands in the bucket.
func (t s3Target) key(key string) (string, error) {
	if err := checkS3Key(key); err != nil {
		return "", err
	}
	if key == ProbeKey {
		return "", fmt.Errorf("%q: the store's own object: %w", key, ErrBadKey)
	}
	if len(t.prefix)+len(key) > maxKeyBytes {
		return "", fmt.Errorf("%q: longer than %d bytes with the store's prefix: %w", key, maxKeyBytes, ErrBadKey)
	}
	return t.prefix + key, nil
}

// own returns the store's key for a key of the bucket, and false when it is
// not one of this store's objects: others may use the bucket too.
func (t s3Target) own(key string) (string, bool) {
	own, ok := strings.CutPrefix(key, t.prefix)
	return own, ok && own != ProbeKey && checkS3Key(own) == nil
}

// checkS3Key refuses what is no plain relative path, and control characters,
// which the XML of a listing can't hold.
func checkS3Key(key string) error {
	if !fs.ValidPath(key) || key == "." || path.Clean(key) != key || strings.ContainsFunc(key, unicode.IsControl) {
		return fmt.Errorf("%q: %w", key, ErrBadKey)
	}
	return nil
}
