package raftmeta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft-wal/types"
)

// raft-wal holds checksums against the last batch of its newest segment only,
// for it trusts the disk with what was once written. Whoever reads the log of a
// dead node has a reason not to: a dead record more, and a file is hidden. So
// every batch is checked here.
//
// A segment is a file header of 32 bytes, then frames:
//
//	0      1      2      3      4      5      6      7      8
//	+------+------+------+------+------+------+------+------+
//	| type | 0                  | length, or CRC32C         |  then the payload, padded to 8 bytes
//	+------+------+------+------+------+------+------+------+
//
// Types are 1 entry, 2 index, 3 commit: that ends a batch, has no payload, and
// its CRC covers all since the last commit's end, in the first batch the file
// header too.
const (
	segmentHead  = 32
	frameHead    = 8
	frameEntry   = 1
	frameIndex   = 2
	frameCommit  = 3
	checkBuffer  = 1 << 16
	maxSegmentAt = 1 << 40 // no file is so long
)

// checkSegment returns ErrStorage when a batch differs from its checksum. The
// last one may, unless the segment is sealed: it was being written.
func checkSegment(f types.ReadableFile, sealed bool) error {
	s := segmentCheck{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, maxSegmentAt), checkBuffer)}
	var torn error // the last batch differs
	whole := false // and so far the segment ends with an index
	err := s.skip(segmentHead)
	for err == nil {
		var kind byte
		var ok bool
		if kind, ok, err = s.frame(); err != nil || kind == 0 {
			break
		}
		if kind == frameCommit {
			if torn != nil {
				return torn
			}
			if !ok {
				torn = fmt.Errorf("the batch that ends at byte %d differs from its checksum: %w", s.at, ErrStorage)
			}
			continue
		}
		whole = kind == frameIndex
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", ErrStorage, err)
	case sealed && torn != nil:
		return torn
	case sealed && !whole:
		return fmt.Errorf("sealed, and ends at byte %d without its index: %w", s.at, ErrStorage)
	}
	return nil
}

type segmentCheck struct {
	r   *bufio.Reader
	at  int64  // bytes read
	crc uint32 // of this batch so far
}

// frame reads one frame; kind 0: there is none. ok says of a commit that its
// batch fits.
func (s *segmentCheck) frame() (kind byte, ok bool, err error) {
	head, err := s.r.Peek(frameHead)
	if err != nil {
		return 0, false, err
	}
	kind, word := head[0], binary.LittleEndian.Uint32(head[4:])
	switch kind {
	case frameCommit:
		ok = word == s.crc
		err = s.skip(frameHead)
		s.crc = 0
		return kind, ok, err
	case frameEntry, frameIndex:
		padded := (int64(word) + frameHead - 1) / frameHead * frameHead
		return kind, true, s.skip(frameHead + padded)
	}
	return 0, false, nil
}

// skip reads n bytes into the checksum.
func (s *segmentCheck) skip(n int64) error {
	for n > 0 {
		b, err := s.r.Peek(int(min(n, checkBuffer)))
		s.crc = crc32.Update(s.crc, castagnoli(), b)
		s.at += int64(len(b))
		n -= int64(len(b))
		if _, gone := s.r.Discard(len(b)); gone != nil || err != nil {
			return errors.Join(err, gone)
		}
	}
	return nil
}
