package node

import (
	"path"
	"slices"
)

// listing is the files that an import is limited to, by their path below its
// folder, and whether each was met. The nil listing takes every file.
type listing map[string]bool

func newListing(files []string) listing {
	if len(files) == 0 {
		return nil
	}
	l := make(listing, len(files))
	for _, f := range files {
		l[path.Clean(f)] = false
	}
	return l
}

// takes reports whether the import takes the file of that name.
func (l listing) takes(name string) bool {
	if l == nil {
		return true
	}
	_, listed := l[name]
	if listed {
		l[name] = true
	}
	return listed
}

// missing returns the files that were listed and not met, sorted.
func (l listing) missing() []string {
	var names []string
	for name, met := range l {
		if !met {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
