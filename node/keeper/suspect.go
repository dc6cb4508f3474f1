package keeper

import (
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
)

const (
	// suspectPause is how long a pack is not suspected again: what reads keep
	// saying of it is known by then.
	suspectPause = time.Hour
	// maxSuspects bounds the packs that are suspected. Those that do not fit are
	// told of again by the next read that meets them.
	maxSuspects = 1024
)

// Suspects are packs that reads found damaged. They are verified ahead of their
// turn, so that the cluster knows, or finds them whole. They stand outside of the
// Keeper since reads begin before it is made. The zero value is ready; all methods
// may be called at once.
type Suspects struct {
	mu    sync.Mutex // guards what follows
	packs map[desformat.PackID]time.Time
	told  chan struct{} // closed when a pack is added; nil: nobody waits
}

// Add suspects a pack. It returns at once.
func (s *Suspects) Add(pack desformat.PackID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.packs[pack]; known || len(s.packs) >= maxSuspects {
		return
	}
	if s.packs == nil {
		s.packs = make(map[desformat.PackID]time.Time)
	}
	s.packs[pack] = time.Time{} // until it is looked at
	if s.told != nil {
		close(s.told)
		s.told = nil
	}
}

// added is closed when the next pack is suspected.
func (s *Suspects) added() <-chan struct{} {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told == nil {
		s.told = make(chan struct{})
	}
	return s.told
}

// since returns the packs that are suspected and since when, and forgets those
// of which enough is known.
func (s *Suspects) since(now time.Time) map[desformat.PackID]time.Time {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[desformat.PackID]time.Time, len(s.packs))
	for id, at := range s.packs {
		switch {
		case at.IsZero():
			at = now
			s.packs[id] = now
		case now.Sub(at) >= suspectPause:
			delete(s.packs, id)
			continue
		}
		out[id] = at
	}
	return out
}
