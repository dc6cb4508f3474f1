package config

import (
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/node/pace"
)

// Bounds of what Validate accepts.
const (
	minPackSize = 64 * KiB
	maxPackSize = 64 * GiB
	maxAttempts = 1000
)

var scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)

var levels = []string{"debug", "info", "warn", "error"}

// Validate returns everything that is wrong with c, joined, each wrapping
// ErrInvalid; nil when c can be run with. It changes nothing.
func (c Config) Validate() error {
	return errors.Join(
		c.validateAddresses(),
		c.validateCluster(),
		c.validateStore(),
		c.validateSources(),
		c.validateArchive(),
		c.validateWork(),
		c.validateUpkeep(),
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
	if _, _, ok := splitAddress(c.HTTP); !ok {
		errs = append(errs, invalid("http", "%q is not an address; write host:port, such as %s", c.HTTP, DefaultHTTP))
	}
	return errors.Join(errs...)
}

func (c Config) validateUpkeep() error {
	var errs []error
	if c.Backup.Every < 0 || c.Backup.Every > 0 && c.Backup.Every < minBackupEvery {
		errs = append(errs, invalid("backup.every", "%s is shorter than %s; 0 switches backups off", c.Backup.Every, minBackupEvery))
	}
	if c.Backup.Keep < 1 {
		errs = append(errs, invalid("backup.keep", "%d: at least the newest backup is kept", c.Backup.Keep))
	}
	if c.Backup.KeepDays < 0 {
		errs = append(errs, invalid("backup.keep_days", "%d is negative", c.Backup.KeepDays))
	}
	if c.Scrub.Interval < minScrubInterval {
		errs = append(errs, invalid("scrub.interval", "%s is shorter than %s", c.Scrub.Interval, minScrubInterval))
	}
	if c.Scrub.BytesPerDay < 1 {
		errs = append(errs, invalid("scrub.bytes_per_day", "packs must be read back some day"))
	}
	return errors.Join(errs...)
}

// Least values: a backup is a pass through the whole manifest, and a scrub reads
// every byte of the store.
const (
	minBackupEvery   = time.Second
	minScrubInterval = time.Hour
)

func (c Config) validateStore() error {
	const instead = "write file:///folder or s3://bucket/prefix"
	if err := supported(c.Store.URL, "store.url", instead, "file", "s3"); err != nil {
		return err
	}
	if c.Store.S3() {
		return c.validateBucket()
	}
	var errs []error
	path, err := c.Store.Path()
	if err != nil {
		errs = append(errs, keyError{"store.url", err})
	} else if Within(c.DataDir, path) {
		errs = append(errs, invalid("store.url", "the folder %s holds the data dir; take one apart from it", path))
	}
	if c.Store.CAFile != "" {
		errs = append(errs, invalid("store.ca_file", "only an s3:// store has it"))
	}
	if c.Store.Credentials != (StoreCredentials{}) {
		errs = append(errs, invalid("store.credentials", "only an s3:// store has them"))
	}
	return errors.Join(errs...)
}

func (c Config) validateBucket() error {
	var errs []error
	if _, err := parseBucket(c.Store.URL); err != nil {
		errs = append(errs, keyError{"store.url", err})
	}
	if c.Store.CAFile != "" && !filepath.IsAbs(c.Store.CAFile) {
		errs = append(errs, invalid("store.ca_file", "%q is not an absolute path", c.Store.CAFile))
	}
	for _, role := range []struct{ key, from string }{
		{"store.credentials.read", c.Store.Credentials.Read},
		{"store.credentials.write", c.Store.Credentials.Write},
		{"store.credentials.collect", c.Store.Credentials.Collect},
	} {
		if err := validateCredentials(role.from); err != nil {
			errs = append(errs, keyError{role.key, err})
		}
	}
	return errors.Join(errs...)
}

// validateCredentials judges where credentials come from. What is wrong is not
// repeated: it may be the secret itself.
func validateCredentials(from string) error {
	if from == "" {
		return nil
	}
	kind, what, _ := strings.Cut(from, ":")
	switch {
	case !slices.Contains([]string{"profile", "file", "env"}, kind) || what == "":
		return invalidf("write profile:NAME, file:PATH or env:PREFIX")
	case kind == "file" && !filepath.IsAbs(what):
		return invalidf("%q is not an absolute path", what)
	}
	return nil
}

// supported refuses what is no URL of one of the schemes.
func supported(raw, key, instead string, schemes ...string) error {
	got, _, ok := strings.Cut(raw, "://")
	if !ok || !scheme.MatchString(got) { // what is no scheme may hold a password
		return invalid(key, "not a URL; %s", instead)
	}
	if !slices.Contains(schemes, got) {
		return invalid(key, "%s:// is not supported; %s", got, instead)
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
	check(a.Pace.FilesPerSecond >= 0, "archive.files_per_second", "%d is negative", a.Pace.FilesPerSecond)
	check(a.Pace.FilesPerDay >= 0, "archive.files_per_day", "%d is negative", a.Pace.FilesPerDay)
	for _, w := range a.Pace.Windows {
		if _, err := pace.ParseWindow(w); err != nil {
			errs = append(errs, invalid("archive.windows", "%s", strings.TrimPrefix(err.Error(), pace.ErrInvalid.Error()+": ")))
		}
	}
	check(!a.DeleteSource || !c.HasDefaultStore() || c.Joined, "archive.delete_source",
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
