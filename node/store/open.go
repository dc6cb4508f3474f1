package store

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
)

// Open opens the store that rawURL names: "file:///absolute/folder", or
// "s3://bucket/prefix" with all else by default.
func Open(ctx context.Context, rawURL string) (Store, error) {
	return OpenConfig(ctx, S3Config{URL: rawURL})
}

// OpenConfig opens the store that c.URL names; the rest of c is for S3 alone.
// Who opens a store closes it, if it is an io.Closer.
func OpenConfig(ctx context.Context, c S3Config) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errNoURL
	}
	switch {
	case u.Scheme == "s3":
		s, err := OpenS3(ctx, c)
		if err != nil {
			return nil, err // and no pointer in an interface
		}
		return s, nil
	case u.Scheme != "file":
		return nil, fmt.Errorf("store URL %q: scheme %q is not supported, want file:///absolute/folder or s3://bucket/prefix", u.Redacted(), u.Scheme)
	case u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("store URL %q: want the form file:///absolute/folder", u.Redacted())
	default:
		return OpenFolder(filepath.Clean(u.Path))
	}
}
