package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

const (
	sourcesPrefix = "sources."
	envPrefix     = "DESNODE_"
)

// Input is what Load reads.
type Input struct {
	File    string            // path of the YAML file; empty: none
	Environ []string          // as os.Environ returns it
	Flags   map[string]string // by key, those that were given
	// Joined reports whether the node of a data dir joins a cluster, or has: then
	// what is left out comes from there. nil: it does not.
	Joined func(dataDir string) bool
}

// setting is one value and where it comes from.
type setting struct {
	origin string // "desnode.yaml", "DESNODE_HTTP", "--http"
	key    string
	value  any
}

// Load reads the layers in rising order over the defaults. Its error lists
// everything that is wrong and wraps ErrInvalid, or the file's own error.
// Paths relative to the working directory become absolute.
func Load(in Input) (Config, error) {
	var layers []setting
	if in.File != "" {
		fromFile, err := readFile(in.File)
		if err != nil {
			return Config{}, err
		}
		layers = fromFile
	}
	layers = append(layers, fromEnviron(in.Environ)...)
	for _, k := range keys {
		if v, ok := in.Flags[k.Name]; ok {
			layers = append(layers, setting{"--" + strings.ReplaceAll(k.Name, "_", "-"), k.Name, v})
		}
	}
	return build(layers, in.Joined)
}

// build lays settings over the defaults. The data dir comes first, since other
// defaults follow from it.
func build(layers []setting, joined func(dataDir string) bool) (Config, error) {
	dataDir := DefaultDataDir
	for _, s := range layers {
		if dir, ok := s.value.(string); ok && s.key == "data_dir" {
			dataDir = dir
		}
	}
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return Config{}, fmt.Errorf("data_dir: %w", err)
	}
	c := Default(dataDir)
	c.Joined = joined != nil && joined(dataDir)
	if slices.ContainsFunc(layers, func(s setting) bool { return strings.HasPrefix(s.key, sourcesPrefix) }) {
		c.Sources = map[string]Source{} // named sources take the default one's place
	}
	var errs []error
	var unread []string // keys
	for _, s := range layers {
		if err := c.apply(s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", s.origin, s.key, err))
			unread = append(unread, s.key)
		}
	}
	c.DataDir = dataDir
	if s, ok := c.Sources[DefaultSource]; ok && s.URL == "" {
		s.URL = Default(dataDir).Sources[DefaultSource].URL
		c.Sources[DefaultSource] = s
	}
	return c, errors.Join(append(errs, without(c.Validate(), unread))...)
}

// without drops from what Validate found all that may only follow from keys
// that could not be read: one mistake is told once.
func without(found error, unread []string) error {
	var all interface{ Unwrap() []error }
	if errors.As(found, &all) {
		var rest []error
		for _, err := range all.Unwrap() {
			rest = append(rest, without(err, unread))
		}
		return errors.Join(rest...)
	}
	var at keyError
	if errors.As(found, &at) && slices.ContainsFunc(unread, func(key string) bool { return follows(at.key, key) }) {
		return nil
	}
	return found
}

// follows reports whether an error about one key may be due to another that
// could not be read.
func follows(key, unread string) bool {
	name, below := strings.CutPrefix(unread, sourcesPrefix)
	name, _, _ = strings.Cut(name, ".")
	switch {
	case key == unread:
		return true
	case unread == "http", unread == "cluster", unread == "gossip", unread == "advertise":
		return key == "cluster" || key == "gossip" // their defaults, and whether they may be wildcards, follow from these
	case unread == "data_dir", unread == "store", strings.HasPrefix(unread, "store."):
		return key == "store.url" || key == "archive.delete_source" || strings.HasSuffix(key, ".roots")
	case below: // any part of a source that is not as it was meant
		return key == "sources" || key == sourcesPrefix+name || strings.HasPrefix(key, sourcesPrefix+name+".")
	case unread == "sources":
		return key == "sources" || strings.HasPrefix(key, sourcesPrefix)
	}
	return false
}

// apply writes one setting into c.
func (c *Config) apply(s setting) error {
	if s.value == nil && isSection(s.key) {
		// "archive:" with nothing below it, or "documents:" below "sources:".
		if name, ok := strings.CutPrefix(s.key, sourcesPrefix); ok {
			name, _, _ = strings.Cut(name, ".")
			c.source(name, func(*Source) {})
		}
		return nil
	}
	k, at, err := find(s.key)
	if err != nil {
		return err
	}
	if s.value == nil {
		return invalidf("it has no value")
	}
	return k.set(c, at, s.value)
}

// readFile returns the settings of a YAML file in the order of their keys.
func readFile(path string) ([]setting, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(b), yaml.Parser()); err != nil {
		return nil, invalidf("%s: not readable as YAML: %v", path, err)
	}
	var settings []setting
	for _, key := range k.Keys() {
		v := k.Get(key)
		if m, ok := v.(map[string]any); ok && len(m) == 0 {
			v = nil
		}
		settings = append(settings, setting{path, key, v})
	}
	return settings, nil
}

// fromEnviron returns the settings among the variables; empty ones are unset.
func fromEnviron(environ []string) []setting {
	var settings []setting
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if value == "" || !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if key, ok := sourceVariable(name); ok {
			settings = append(settings, setting{name, key, value})
			continue
		}
		if i := slices.IndexFunc(keys, func(k Key) bool { return k.Env() == name }); i >= 0 {
			settings = append(settings, setting{name, keys[i].Name, value})
		}
	}
	slices.SortFunc(settings, func(a, b setting) int { return strings.Compare(a.origin, b.origin) })
	return settings
}

var sourceInVariable = regexp.MustCompile(`^[A-Z0-9][A-Z0-9_-]*$`)

// sourceVariable returns the key of a source that a variable sets. A source's
// name may hold "_", so the longest ending that is a key's decides.
func sourceVariable(variable string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(variable, envName(sourcesPrefix))
	if !ok {
		return "", false
	}
	longest := 0
	for _, tail := range sourceTails() {
		ending := "_" + strings.ToUpper(strings.ReplaceAll(tail, ".", "_"))
		name, ok := strings.CutSuffix(rest, ending)
		if ok && len(ending) > longest && sourceInVariable.MatchString(name) {
			longest, key = len(ending), sourcesPrefix+strings.ToLower(name)+"."+tail
		}
	}
	return key, longest > 0
}

// sourceTails lists what follows a source's name in the keys that a variable
// may set: all but those whose last word is free.
func sourceTails() []string {
	var tails []string
	for _, k := range keys {
		tail, ok := strings.CutPrefix(k.Name, sourcesPrefix+"*.")
		switch {
		case !ok:
		case k.words == nil:
			tails = append(tails, tail)
		default:
			for _, word := range k.known {
				tails = append(tails, strings.TrimSuffix(tail, "*")+word)
			}
		}
	}
	return tails
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// find returns the key of that name and what its stars stand for.
func find(name string) (Key, place, error) {
	general, source := generalize(name)
	for _, k := range keys {
		if k.Name == general {
			return k, place{source: source}, nil
		}
		word, below := strings.CutPrefix(general, strings.TrimSuffix(k.Name, "*"))
		if k.words == nil || !below || word == "" {
			continue
		}
		if k.known != nil && !slices.Contains(k.known, word) {
			near := strings.TrimSuffix(k.Name, "*") + nearest(word, k.known)
			return Key{}, place{}, invalidf("unknown key; the nearest known one is %s", strings.Replace(near, "*", source, 1))
		}
		return k, place{source, word}, nil
	}
	if isSection(name) {
		return Key{}, place{}, invalidf("holds keys of its own, not a value")
	}
	names := make([]string, 0, 2*len(keys))
	for _, k := range keys {
		names = append(names, k.Name)
		if section, _, ok := strings.Cut(k.Name, "."); ok && !slices.Contains(names, section) {
			names = append(names, section)
		}
	}
	near := nearest(general, names)
	if source != "" {
		near = strings.Replace(near, "*", source, 1)
	}
	return Key{}, place{}, invalidf("unknown key; the nearest known one is %s", near)
}

// generalize turns sources.documents.url into sources.*.url.
func generalize(name string) (general, source string) {
	rest, ok := strings.CutPrefix(name, sourcesPrefix)
	if !ok {
		return name, ""
	}
	source, key, ok := strings.Cut(rest, ".")
	if !ok {
		return name, ""
	}
	return sourcesPrefix + "*." + key, source
}

// isSection reports whether name stands above keys.
func isSection(name string) bool {
	general, _ := generalize(name + ".x")
	general = strings.TrimSuffix(general, "x")
	return slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, general) })
}

// nearest returns the known word that takes the fewest edits to reach.
func nearest(word string, known []string) string {
	best, least := "", 0
	for _, k := range known {
		if d := distance(word, k); best == "" || d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of single-byte edits between a and b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
