package config

import (
	"errors"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what Validate accepts.
const (
	minPackSize = 64 * KiB
	maxPackSize = 64 * GiB
	maxAttempts = 1000
)

var (
	sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	levels     = []string{"debug", "info", "warn", "error"}
)

// Validate returns everything that is wrong with c, joined, each wrapping
// ErrInvalid; nil when c can be run with. It changes nothing.
func (c Config) Validate() error {
	return errors.Join(
		c.validateAddresses(),
		c.validateStore(),
		c.validateSources(),
		c.validateArchive(),
		c.validateWork(),
	)
}

// invalid is an error about one key.
func invalid(key, format string, args ...any) error {
	return keyError{key, invalidf(format, args...)}
}

func (c Config) validateAddresses() error {
	var errs []error
	if !filepath.IsAbs(c.DataDir) {
		errs = append(errs, invalid("data_dir", "%q is not an absolute path", c.DataDir))
	}
	_, port, err := net.SplitHostPort(c.HTTP)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		errs = append(errs, invalid("http", "%q is not an address; write host:port, such as %s", c.HTTP, DefaultHTTP))
	}
	return errors.Join(errs...)
}

func (c Config) validateStore() error {
	if err := supported(c.Store.URL, "file", "store.url", "this version keeps packs in a folder, file:///folder"); err != nil {
		return err
	}
	path, err := c.Store.Path()
	if err != nil {
		return keyError{"store.url", err}
	}
	if Within(c.DataDir, path) {
		return invalid("store.url", "the folder %s holds the data dir; take one apart from it", path)
	}
	return nil
}

// supported refuses URLs of schemes other than the one that this version has.
func supported(raw, scheme, key, instead string) error {
	got, _, ok := strings.Cut(raw, "://")
	if !ok {
		return invalid(key, "not a URL; %s", instead)
	}
	if got != scheme {
		return invalid(key, "%s:// is not supported yet; %s", got, instead)
	}
	return nil
}

func (c Config) validateSources() error {
	if len(c.Sources) == 0 {
		return invalid("sources", "name at least one")
	}
	var errs []error
	usedBy := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
		s, key := c.Sources[name], sourcesPrefix+name
		if !sourceName.MatchString(name) {
			errs = append(errs, invalid(key, "a source's name is 1 to 32 lower-case letters, digits, - and _"))
		}
		for _, root := range s.Roots {
			errs = append(errs, c.validateRoot(key+".roots", root))
		}
		if s.URL == "" {
			errs = append(errs, invalid(key+".url", "missing"))
			continue
		}
		if err := supported(s.URL, "sqlite", key+".url", "this version has embedded sources, sqlite:///file.db"); err != nil {
			errs = append(errs, err)
			continue
		}
		path, err := s.Path()
		if err != nil {
			errs = append(errs, keyError{key + ".url", err})
			continue
		}
		if other, taken := usedBy[path]; taken {
			errs = append(errs, invalid(key+".url", "source %s has the same database", other))
		}
		usedBy[path] = name
	}
	return errors.Join(errs...)
}

// validateRoot keeps the node from archiving, or deleting, its own files.
func (c Config) validateRoot(key, root string) error {
	if strings.Contains(root, "://") {
		u, err := url.Parse(root)
		if err != nil {
			return invalid(key, "not a folder")
		}
		return invalid(key, "%s:// is not supported yet; this version reads folders", u.Scheme)
	}
	if !filepath.IsAbs(root) {
		return invalid(key, "%q is not an absolute path", root)
	}
	own := []string{c.DataDir}
	if path, err := c.Store.Path(); err == nil {
		own = append(own, path)
	}
	for _, dir := range own {
		if Within(root, dir) || Within(dir, root) {
			return invalid(key, "%s and the node's own folder %s overlap", root, dir)
		}
	}
	return nil
}

func (c Config) validateArchive() error {
	a := c.Archive
	var errs []error
	check := func(ok bool, key, format string, args ...any) {
		if !ok {
			errs = append(errs, invalid(key, format, args...))
		}
	}
	check(a.MinAge >= 0, "archive.min_age", "%s is negative", a.MinAge)
	check(a.MaxWait >= 0, "archive.max_wait", "%s is negative", a.MaxWait)
	check(a.DeleteGrace >= 0, "archive.delete_grace", "%s is negative", a.DeleteGrace)
	check(a.PackSize >= minPackSize && a.PackSize <= maxPackSize, "archive.pack_size",
		"%s is not between %s and %s", a.PackSize, minPackSize, maxPackSize)
	check(a.Attempts >= 1 && a.Attempts <= maxAttempts, "archive.attempts", "%d is not between 1 and %d", a.Attempts, maxAttempts)
	check(!a.DeleteSource || !c.HasDefaultStore(), "archive.delete_source",
		"originals are deleted only when the packs are kept outside the data dir; set store.url")
	return errors.Join(errs...)
}

func (c Config) validateWork() error {
	var errs []error
	for i, w := range c.Work {
		switch {
		case !slices.Contains(AllWork(), w):
			errs = append(errs, invalid("work", "%q is none of %s", w, strings.Join(AllWork(), ", ")))
		case slices.Contains(c.Work[:i], w):
			errs = append(errs, invalid("work", "%q stands there twice", w))
		}
	}
	if !slices.Contains(levels, c.Log.Level) {
		errs = append(errs, invalid("log.level", "%q is none of %s", c.Log.Level, strings.Join(levels, ", ")))
	}
	return errors.Join(errs...)
}

// Within reports whether path is dir or lies below it; both are clean.
func Within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
