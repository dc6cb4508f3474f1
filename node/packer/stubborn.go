package packer

import (
	"sync"
	"time"

	"github.com/datavision/desnode/node/source"
)

// rowKey names one version of one row.
type rowKey struct {
	source, id string
	version    uint32
}

func keyOf(row source.Row) rowKey { return rowKey{row.Source, row.ID, row.Version} }

// maxStubborn bounds the rows that are held back at once. Further ones are
// packed in vain again, after Run's own pauses.
const maxStubborn = 64 << 10

// stubborn remembers the rows that their database lets nobody change at all,
// not even to count an attempt: each would be packed as a dead record at every
// round. They are held back for as long as counted attempts would be.
type stubborn struct {
	backoff time.Duration

	mu   sync.Mutex // guards rows
	rows map[rowKey]heldBack
}

type heldBack struct {
	attempts int // of the row, when it was refused
	fails    int
	until    time.Time
}

// refused notes that the database refused to move a row that had so many
// attempts.
func (s *stubborn) refused(key rowKey, attempts int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.rows[key]
	if !known && len(s.rows) >= maxStubborn {
		for k, old := range s.rows { // make room of what is over
			if now.After(old.until.Add(s.backoff)) {
				delete(s.rows, k)
			}
		}
		if len(s.rows) >= maxStubborn {
			return
		}
	}
	if s.rows == nil {
		s.rows = make(map[rowKey]heldBack)
	}
	h.until = now.Add(s.backoff << min(h.fails, 10))
	h.attempts = attempts
	h.fails++
	s.rows[key] = h
}

// holds reports whether the row is to be left for now. A row whose attempts
// were counted after all is the database's to hold back.
func (s *stubborn) holds(row source.Row, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.rows[keyOf(row)]
	if !known {
		return false
	}
	if row.Attempts > h.attempts {
		delete(s.rows, keyOf(row))
		return false
	}
	return now.Before(h.until)
}

// forget lets all rows be tried again.
func (s *stubborn) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.rows)
}
