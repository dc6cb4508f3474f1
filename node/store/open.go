package store

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
)

// Open opens the store that rawURL names: "file:///absolute/folder".
func Open(ctx context.Context, rawURL string) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("store URL: %w", err)
	}
	if u.Scheme != "file" {
		return nil, fmt.Errorf("store URL %q: scheme %q is not supported, want file:///absolute/folder", rawURL, u.Scheme)
	}
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("store URL %q: want the form file:///absolute/folder", rawURL)
	}
	return OpenFolder(filepath.Clean(u.Path))
}
