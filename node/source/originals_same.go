package source

import (
	"context"
	"path/filepath"
	"strings"
)

// localScheme begins a place in the local file system; an object's place is its
// id. No row's path that means anything is spelt so: what is one source's
// /data/a may be another file to another source, whose roots map /data
// elsewhere.
const localScheme = "file:"

// IsPlace reports whether a path that Same returned means the same file to
// every source.
func IsPlace(path string) bool {
	return strings.HasPrefix(path, localScheme+"/") || strings.HasPrefix(path, objectScheme) && !strings.HasPrefix(path, s3Scheme)
}

// Same returns the places of the file, then how rows of this source could spell
// it, through whichever root. other is a row's path, or a place.
func (m *mixed) Same(ctx context.Context, other string) ([]string, error) {
	roots := m.roots()
	bucket, key, local, err := whither(roots, other)
	if err != nil {
		return nil, err
	}
	var places, words []string
	alone := len(roots) == 1
	add := func(at spot) {
		word := at.root.word(at.rest)
		if found, err := findSpot(roots, word); err == nil && found == at {
			words = append(words, word) // else a longer prefix leads it elsewhere
		}
		if alone {
			words = append(words, at.rest)
		}
	}
	if bucket != "" {
		places = []string{objectID(bucket, key), s3Scheme + bucket + "/" + key}
		for _, r := range roots {
			if rest, ok := strings.CutPrefix(key, r.Key); ok && r.Bucket == bucket && rest != "" {
				add(spot{root: r, rest: rest, alone: alone})
			}
		}
		return unique(append(places, words...)), nil
	}
	var folders []string
	for _, r := range roots {
		if r.Folder != "" {
			folders = append(folders, r.Folder)
		}
	}
	found, spellings, err := NewFolders(func() []string { return folders }).reach(ctx, local)
	if err != nil {
		return nil, err
	}
	for _, s := range spellings {
		places = append(places, localScheme+s)
		words = append(words, s) // a row outside of all roots reaches it all the same
	}
	for _, p := range found {
		for _, r := range roots {
			if r.Folder == p.root {
				add(spot{root: r, rest: p.rel, alone: alone})
			}
		}
	}
	return unique(append(places, words...)), nil
}

// whither tells where other leads: to an object, or to an absolute local path.
func whither(roots []Root, other string) (bucket, key, local string, err error) {
	if path, ok := strings.CutPrefix(other, localScheme); ok && filepath.IsAbs(path) {
		return "", "", path, nil
	}
	if IsPlace(other) {
		bucket, key, _ = strings.Cut(strings.TrimPrefix(other, objectScheme), "/")
		return bucket, key, "", nil
	}
	at, err := findSpot(roots, other)
	switch {
	case err == nil && at.root.Bucket != "":
		return at.root.Bucket, at.key(), "", nil
	case err == nil:
		return "", "", filepath.Join(at.root.Folder, at.rest), nil
	}
	if r, key, ok := literal(other); ok {
		return r.Bucket, key, "", nil
	}
	if filepath.IsAbs(other) {
		return "", "", other, nil
	}
	return "", "", "", err
}
