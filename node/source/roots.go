package source

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// ErrBadRoot: a root is not spelt as ParseRoot wants it.
var ErrBadRoot = errors.New("bad root")

// Root says where the files stand to which the rows' paths lead that begin
// with Prefix: below a local folder, or in a bucket. Exactly one of Folder and
// Bucket is set.
//
// A prefix ends where a segment ends: /data is one of /data/a, not of
// /database/a. One that is written with backslashes, \\server\share or C:\, is
// a Windows one: in it and below it a backslash separates as a slash does.
// Elsewhere a backslash is a byte of a name. Letters are never folded.
type Root struct {
	Prefix string // as the rows write it, without the separator at its end
	Folder string // absolute and clean
	Bucket string
	Key    string // what the objects' keys begin with: empty, or "/" at its end
}

const (
	mapsTo   = " => "
	s3Scheme = "s3://"
)

// ParseRoot reads a root: "TARGET" for rows that spell the target itself, or
// "PREFIX => TARGET". A target is an absolute folder or s3://bucket/prefix.
func ParseRoot(s string) (Root, error) {
	prefix, target, mapped := strings.Cut(s, mapsTo)
	if !mapped {
		target = s
	}
	prefix, target = strings.TrimSpace(prefix), strings.TrimSpace(target)
	r, err := parseTarget(target)
	if err != nil {
		return Root{}, fmt.Errorf("root %q: %w", s, err)
	}
	if !mapped {
		return r, nil
	}
	switch {
	case prefix == "":
		return Root{}, fmt.Errorf("root %q: %w: no path stands before%s", s, ErrBadRoot, mapsTo)
	case strings.Contains(target, mapsTo):
		return Root{}, fmt.Errorf("root %q: %w: more than one%s", s, ErrBadRoot, mapsTo)
	case strings.IndexByte(prefix, 0) >= 0, climbs(prefix):
		return Root{}, fmt.Errorf("root %q: %w: the prefix holds a NUL byte or a %q segment", s, ErrBadRoot, "..")
	}
	r.Prefix = withoutSeparator(prefix)
	return r, nil
}

// FolderRoot is the root whose rows spell the absolute folder itself, whatever
// its name: an imported folder may well hold " => ".
func FolderRoot(folder string) Root {
	folder = filepath.Clean(folder)
	return Root{Prefix: withoutSeparator(folder), Folder: folder}
}

func parseTarget(target string) (Root, error) {
	if strings.IndexByte(target, 0) >= 0 {
		return Root{}, fmt.Errorf("%w: the target holds a NUL byte", ErrBadRoot)
	}
	place, ok := strings.CutPrefix(target, s3Scheme)
	if !ok {
		if scheme, _, ok := strings.Cut(target, "://"); ok {
			return Root{}, fmt.Errorf("%w: %s:// is neither a folder nor s3://bucket/prefix", ErrBadRoot, scheme)
		}
		if !filepath.IsAbs(target) {
			return Root{}, fmt.Errorf("%w: %q is not an absolute path", ErrBadRoot, target)
		}
		return FolderRoot(target), nil
	}
	bucket, key, _ := strings.Cut(place, "/")
	if !bucketName(bucket) {
		return Root{}, fmt.Errorf("%w: %q is no bucket's name", ErrBadRoot, bucket)
	}
	if key = withoutSeparator(key); key != "" {
		if !wholeKey(key) {
			return Root{}, fmt.Errorf("%w: the prefix of keys has an empty segment, or one of dots", ErrBadRoot)
		}
		key += "/"
	}
	return Root{Prefix: withoutSeparator(s3Scheme + bucket + "/" + key), Bucket: bucket, Key: key}, nil
}

// bucketName allows what some store allows; ':' ends it in an object's id.
func bucketName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r)
	}) < 0
}

// withoutSeparator drops one separator from the end.
func withoutSeparator(s string) string {
	if s != "" && isSeparator(rune(s[len(s)-1])) {
		return s[:len(s)-1]
	}
	return s
}

func isSeparator(r rune) bool { return r == '/' || r == '\\' }

// climbs reports whether s has a segment "..", with whichever separator:
// behind a link it is another folder than it seems.
func climbs(s string) bool {
	return slices.Contains(strings.FieldsFunc(s, isSeparator), "..")
}

// wholeKey reports whether a key has neither an empty segment nor "." or "..".
// To some stores a//b and a/./b are a/b, to others they are objects of their
// own: nobody could say whether two rows reach one object.
func wholeKey(key string) bool {
	return !slices.ContainsFunc(strings.Split(key, "/"), func(s string) bool { return s == "" || s == "." || s == ".." })
}

// String spells the root as ParseRoot reads it.
func (r Root) String() string {
	target := r.target()
	if r.Prefix == withoutSeparator(target) {
		return target
	}
	prefix := r.Prefix
	if prefix == "" {
		prefix = "/"
	}
	return prefix + mapsTo + target
}

func (r Root) target() string {
	if r.Bucket != "" {
		return s3Scheme + r.Bucket + "/" + r.Key
	}
	return r.Folder
}

// windows reports whether backslashes separate below the root.
func (r Root) windows() bool {
	return strings.Contains(r.Prefix, `\`) || len(r.Prefix) > 1 && r.Prefix[1] == ':'
}

func (r Root) slashed(s string) string {
	if r.windows() {
		return strings.ReplaceAll(s, `\`, "/")
	}
	return s
}

// Holds reports whether path begins with the root's prefix.
func (r Root) Holds(path string) bool {
	_, ok := r.below(path)
	return ok
}

// below returns what of path stands behind the prefix, with slashes.
func (r Root) below(path string) (rest string, ok bool) {
	prefix := r.slashed(r.Prefix) + "/"
	if rest, ok = strings.CutPrefix(r.slashed(path), prefix); ok {
		return rest, true
	}
	// A local path may be spelt with "//" and "/./"; an object's key may not.
	if r.Folder != "" && !r.windows() && filepath.IsAbs(r.Prefix+"/") && filepath.IsAbs(path) && !climbs(path) {
		return strings.CutPrefix(filepath.Clean(path), prefix)
	}
	return "", false
}

// word is how a row spells what stands at rest below the root.
func (r Root) word(rest string) string {
	if r.windows() {
		return r.Prefix + `\` + strings.ReplaceAll(rest, "/", `\`)
	}
	return r.Prefix + "/" + rest
}

// spot is a path that was found below a root.
type spot struct {
	root  Root
	rest  string // below the root, with slashes
	alone bool   // the root is the source's only one
}

// holds reports whether a row with that path is below the spot's root too.
func (s spot) holds(path string) bool { return s.root.Holds(path) || s.alone && relative(path) }

// key is the object's.
func (s spot) key() string { return s.root.Key + s.rest }

// findSpot finds the root that path is below: of several the one with the
// longest prefix. A path that begins with none is taken relative to the root
// when there is only one.
func findSpot(roots []Root, path string) (spot, error) {
	outside := func() error { return fmt.Errorf("%q: %w", path, ErrOutside) }
	if path == "" || strings.IndexByte(path, 0) >= 0 {
		return spot{}, outside()
	}
	var best spot
	longest := -1
	for _, r := range roots {
		if rest, ok := r.below(path); ok && len(r.Prefix) > longest {
			best, longest = spot{root: r, rest: rest}, len(r.Prefix)
		}
	}
	if longest < 0 {
		if len(roots) != 1 || !relative(path) {
			return spot{}, outside()
		}
		best = spot{root: roots[0], rest: roots[0].slashed(path)}
	}
	best.alone = len(roots) == 1
	if best.root.Bucket != "" {
		if !wholeKey(best.rest) {
			return spot{}, fmt.Errorf("%q: a key with an empty segment, or one of dots: %w", path, ErrOutside)
		}
		return best, nil
	}
	best.rest = strings.TrimLeft(best.rest, "/")
	if !filepath.IsLocal(best.rest) || climbsLocally(best.rest) || filepath.Clean(best.rest) == "." {
		return spot{}, outside()
	}
	return best, nil
}

// climbsLocally reports whether a local path has a segment "..".
func climbsLocally(path string) bool { return slices.Contains(strings.Split(path, "/"), "..") }

// relative reports whether a path of no root's prefix may be relative: neither
// a local absolute one, nor one of Windows, nor one with a scheme.
func relative(path string) bool {
	return path != "" && !isSeparator(rune(path[0])) && !strings.Contains(path, "://")
}
