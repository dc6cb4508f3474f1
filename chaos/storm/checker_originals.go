package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// originalWatch is what is known of the originals that have gone. A version
// whose original is gone must be in a pack, or a newer one must, and that pack
// must have been verified before.
type originalWatch struct {
	gone    map[*file]int // the version that was gone
	pending []missing     // not explained yet
}

// missing is an original that was found to be gone.
type missing struct {
	file    *file
	version int
	by      time.Time
}

// lookAtOriginals finds originals that have gone and asks why.
func (c *checker) lookAtOriginals(context.Context) error {
	if err := c.originals.find(c.scene); err != nil {
		return err
	}
	c.originals.explain(c.scene, &c.packs)
	return nil
}

// find adds the originals that are neither at their paths nor in quarantine
// beside them.
func (w *originalWatch) find(s *scene) error {
	if w.gone == nil {
		w.gone = map[*file]int{}
	}
	placed := s.ledger.placed() // before the folders: a file that comes later is not missed
	there, err := walkOriginals(s.src)
	if err != nil {
		return err
	}
	for f, number := range placed {
		if w.gone[f] == number || there[f.path(s.src)] {
			continue
		}
		gone, err := vanished(f.path(s.src))
		if err != nil {
			return err
		}
		if gone {
			w.gone[f] = number
			w.pending = append(w.pending, missing{f, number, time.Now()})
		}
	}
	return nil
}

// vanished reports whether an original is at neither of its two places. A
// walk may miss a file that is renamed meanwhile, and a node may put one back:
// so its path comes first and last.
func vanished(path string) (bool, error) {
	for _, p := range []string{path, quarantinePath(path), path} {
		if _, err := os.Lstat(p); err == nil {
			return false, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// walkOriginals returns the paths of all files below dir.
func walkOriginals(dir string) (there map[string]bool, err error) {
	there = map[string]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err == nil && !d.IsDir() {
			there[path] = true
		}
		return err
	})
	return there, err
}

// explain counts the missing originals whose packs were not verified in time,
// and keeps those of which too little is known yet.
func (w *originalWatch) explain(s *scene, packs *packWatch) {
	skew := s.skew()
	rest := w.pending[:0]
	for _, m := range w.pending {
		switch safe, known := m.safe(s.ledger.state(m.file), packs, skew); {
		case safe:
		case known:
			s.verdict.breach(earlyDeletions, "%s, version %d, was gone at %.1fs, and its pack verified only later", m.file.name, m.version, m.by.Sub(s.timeline.start).Seconds())
		default:
			rest = append(rest, m)
		}
	}
	w.pending = rest
}

// safe reports whether an original was in a verified pack when it was gone.
// known is false while no such pack is known to be verified at all.
func (m missing) safe(st state, packs *packWatch, skew time.Duration) (safe, known bool) {
	for i := range st.versions {
		v := &st.versions[i]
		if v.number < m.version || v.archived.IsZero() {
			continue
		}
		one, verified := packs.proven(v.pack, m.by, skew)
		safe, known = safe || one, known || verified
	}
	return safe, known
}

// giveUp counts what could not be explained in the end.
func (w *originalWatch) giveUp(s *scene) {
	for _, m := range w.pending {
		s.verdict.breach(earlyDeletions, "%s, version %d, was gone at %.1fs, and is in no verified pack", m.file.name, m.version, m.by.Sub(s.timeline.start).Seconds())
	}
	w.pending = nil
}

// findLeftovers counts what should not be in the folder in the end: originals
// in quarantine, and those whose rows say that they are gone.
func findLeftovers(s *scene, rows []row) error {
	there, err := walkOriginals(s.src)
	if err != nil {
		return err
	}
	for path := range there {
		if strings.HasPrefix(filepath.Base(path), quarantinePrefix) {
			s.verdict.breach(leftovers, "%s", path)
		}
	}
	for _, r := range rows {
		if f := s.ledger.named(r.name); f != nil && r.state == stateDeleted && there[f.path(s.src)] {
			s.verdict.breach(leftovers, "%s is %s and still at its path", r.name, r.state)
		}
	}
	return nil
}
