package config

import (
	"cmp"
	"errors"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/datavision/desnode/migrations"
)

var (
	sourceName  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	metadataKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

func (c Config) validateSources() error {
	if len(c.Sources) == 0 {
		return invalid("sources", "name at least one")
	}
	var errs []error
	usedBy := map[string]string{} // what holds the rows → the source that has it
	for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
		s, key := c.Sources[name], sourcesPrefix+name
		if !sourceName.MatchString(name) {
			errs = append(errs, invalid(key, "a source's name is 1 to 32 lower-case letters, digits, - and _"))
		}
		for _, root := range s.Roots {
			errs = append(errs, c.validateRoot(key+".roots", root, s))
		}
		var rows string
		var err error
		if s.Postgres() {
			rows, err = c.validatePostgres(key, s)
		} else {
			rows, err = validateEmbedded(key, s)
		}
		errs = append(errs, err)
		if rows == "" {
			continue
		}
		if other, taken := usedBy[rows]; taken {
			what := "database"
			if s.Postgres() {
				what = "table"
			}
			errs = append(errs, invalid(key+".url", "source %s has the same %s", other, what))
		}
		usedBy[rows] = name
	}
	return errors.Join(errs...)
}

// validateEmbedded returns the database's file, "" when it is not known.
func validateEmbedded(key string, s Source) (rows string, err error) {
	errs := onlyPostgres(key, s)
	if s.URL == "" {
		return "", errors.Join(append(errs, invalid(key+".url", "missing"))...)
	}
	const instead = "write sqlite:///file.db or postgres://user@host/database"
	if err := supported(s.URL, key+".url", instead, "sqlite"); err != nil {
		return "", err // what else was said would be beside the point
	}
	path, err := s.Path()
	if err != nil {
		errs = append(errs, keyError{key + ".url", err})
	}
	return path, errors.Join(errs...)
}

// onlyPostgres refuses what an embedded source does not have.
func onlyPostgres(key string, s Source) []error {
	var errs []error
	for _, part := range []struct {
		name string
		set  bool
	}{
		{"s3", len(s.S3) > 0},
		{"table", s.Table != ""},
		{"binding", s.Binding != ""},
		{"columns", len(s.Columns) > 0},
		{"states", len(s.States) > 0},
		{"metadata", len(s.Metadata) > 0},
		{"filter", s.Filter != ""},
		{"naming", s.Naming != ""},
	} {
		if part.set {
			errs = append(errs, invalid(key+"."+part.name, "only a postgres:// source has it"))
		}
	}
	return errs
}

// validatePostgres returns what names the rows: server, database, table and
// filter; "" when it is not known.
func (c Config) validatePostgres(key string, s Source) (rows string, err error) {
	errs := []error{c.validateConnections(key, s)}
	if len(s.Roots) == 0 {
		errs = append(errs, invalid(key+".roots", "missing: say where the rows' files may be read"))
	}
	if s.Binding != "" && s.Binding != BindingTable && s.Binding != BindingSide {
		errs = append(errs, invalid(key+".binding", "%q is neither %s nor %s", s.Binding, BindingTable, BindingSide))
	}
	if s.Naming != "" && s.Naming != NamingColumn && s.Naming != NamingGenerated {
		errs = append(errs, invalid(key+".naming", "%q is neither %s nor %s", s.Naming, NamingColumn, NamingGenerated))
	}
	errs = append(errs, validateMapping(key, s))
	for _, k := range slices.Sorted(maps.Keys(s.Metadata)) {
		if !metadataKey.MatchString(k) {
			errs = append(errs, invalid(key+".metadata", "the key %q is not 1 to 64 letters, digits, - and _", k))
		}
	}
	u, parseErr := url.Parse(cmp.Or(s.URL, s.URLs[RoleReader]))
	if parseErr != nil {
		return "", errors.Join(errs...)
	}
	return u.Host + "\n" + u.Path + "\n" + u.Query().Get("host") + "\n" + cmp.Or(s.Table, DefaultTable) + "\n" + s.Filter, errors.Join(errs...)
}

// validateConnections demands a connection for every role that this node's
// work needs.
func (c Config) validateConnections(key string, s Source) error {
	var errs []error
	check := func(key, raw string) {
		const (
			instead = "write postgres://user@host/database"
			escapes = "#, /, ?, @ and %% in a password are written %%23, %%2F, %%3F, %%40 and %%25"
		)
		if err := supported(raw, key, instead, "postgres", "postgresql"); err != nil {
			errs = append(errs, err)
		} else if u, err := url.Parse(raw); err != nil {
			errs = append(errs, invalid(key, "not a URL; %s; "+escapes, instead)) // err would repeat a password
		} else if u.Fragment != "" || misplacedAt(raw, u) {
			errs = append(errs, invalid(key, escapes))
		}
	}
	if s.URL != "" {
		check(key+".url", s.URL)
	}
	for _, role := range slices.Sorted(maps.Keys(s.URLs)) {
		check(key+".urls."+role, s.URLs[role])
	}
	for _, role := range c.Roles() {
		if s.URL == "" && s.URLs[role] == "" {
			errs = append(errs, invalid(key+".url", "missing: this node's work needs the %s too, and there is no urls.%s", role, role))
		}
	}
	return errors.Join(errs...)
}

// validateMapping lets the contract judge what is mapped, part by part.
func validateMapping(key string, s Source) error {
	name := strings.TrimPrefix(key, sourcesPrefix)
	if !sourceName.MatchString(name) {
		return nil // told already
	}
	found := s.Mapping(name).Validate()
	all := []error{found}
	if joined, ok := found.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var errs []error
	for _, err := range all {
		if err == nil {
			continue
		}
		text := strings.TrimPrefix(err.Error(), migrations.ErrMapping.Error()+": ")
		part, rest, ok := strings.Cut(text, ": ")
		if !ok || strings.ContainsAny(part, ` "`) {
			part, rest = "", text
		}
		errs = append(errs, invalid(strings.TrimSuffix(key+"."+part, "."), "%s", rest))
	}
	return errors.Join(errs...)
}

// rootArrow stands between a prefix of rows' paths and the root that it is
// below.
const rootArrow = " => "

// cutRoot splits "PREFIX => ROOT".
func cutRoot(root string) (prefix, target string, mapped bool) {
	prefix, target, mapped = strings.Cut(root, strings.TrimSpace(rootArrow))
	if !mapped {
		return "", root, false
	}
	return strings.TrimSpace(prefix), strings.TrimSpace(target), true
}

// validateRoot keeps the node from archiving, or deleting, its own files.
func (c Config) validateRoot(key, root string, s Source) error {
	prefix, target, mapped := cutRoot(root)
	switch {
	case mapped && !s.Postgres():
		return invalid(key, "%q: only a postgres:// source maps prefixes of paths", redactedRoot(root))
	case mapped && prefix == "":
		return invalid(key, "%q maps no prefix", redactedRoot(root))
	}
	if strings.Contains(target, "://") {
		return c.validateBucketRoot(key, target, s.S3[S3Endpoint], s.Postgres())
	}
	if !filepath.IsAbs(target) {
		return invalid(key, "%q is not an absolute path", target)
	}
	own := []string{c.DataDir}
	if path, err := c.Store.Path(); err == nil {
		own = append(own, path)
	}
	for _, dir := range own {
		if Within(target, dir) || Within(dir, target) {
			return invalid(key, "%s and the node's own folder %s overlap", target, dir)
		}
	}
	return nil
}

func (c Config) validateBucketRoot(key, target, endpoint string, postgres bool) error {
	if err := supported(target, key, "write a folder, or s3://bucket/prefix", "s3"); err != nil {
		return err
	}
	if !postgres {
		return invalid(key, "only a postgres:// source has files in buckets")
	}
	root, err := parseBucket(target)
	if err != nil {
		return keyError{key, err}
	}
	if strings.Contains(target, "?") {
		return invalid(key, "%s: endpoint and region of originals stand below %s", Redacted(target), strings.TrimSuffix(key, "roots")+"s3")
	}
	root.endpoint = endpoint
	if store, err := parseBucket(c.Store.URL); err == nil && root.overlaps(store) {
		return invalid(key, "%s and the store %s overlap", Redacted(target), Redacted(c.Store.URL))
	}
	return nil
}
