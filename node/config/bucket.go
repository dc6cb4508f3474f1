package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// bucket is what an s3:// URL names.
type bucket struct {
	name     string
	prefix   string // without slashes at its ends
	endpoint string // "": Amazon's, or, of a root, the store's
}

// parseBucket reads s3://bucket/prefix?endpoint=…&region=….
func parseBucket(raw string) (bucket, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return bucket{}, invalidf("not a URL") // err would repeat a password
	}
	switch {
	case u.Scheme != "s3":
		return bucket{}, invalidf("%s is not an s3:// URL", Redacted(raw))
	case u.User != nil:
		return bucket{}, invalidf("credentials do not stand in the URL; see store.credentials")
	case u.Host == "" || u.Port() != "":
		return bucket{}, invalidf("%s names no bucket; write s3://bucket/prefix?endpoint=…&region=…", Redacted(raw))
	case u.Fragment != "":
		return bucket{}, invalidf("%s must not have a fragment (#)", Redacted(raw))
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bucket{}, invalidf("the parameters behind ? are not readable")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if name != "endpoint" && name != "region" || len(query[name]) != 1 || query.Get(name) == "" {
			return bucket{}, invalidf("what stands behind the ? is endpoint and region, each once and not empty")
		}
	}
	endpoint := query.Get("endpoint")
	if e, err := url.Parse(endpoint); endpoint != "" && (err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https") {
		return bucket{}, invalidf("the endpoint is not an http:// or https:// URL")
	}
	return bucket{u.Host, strings.Trim(u.Path, "/"), endpoint}, nil
}

// overlaps reports whether an object could be in both. A root without an
// endpoint has the store's.
func (b bucket) overlaps(store bucket) bool {
	if b.name != store.name || b.endpoint != "" && b.endpoint != store.endpoint {
		return false
	}
	below := func(a, b string) bool { return b == "" || a == b || strings.HasPrefix(a, b+"/") }
	return below(b.prefix, store.prefix) || below(store.prefix, b.prefix)
}
