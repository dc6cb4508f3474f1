package desformat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"
)

// Defaults of WriterConfig.
const (
	DefaultChunkSize      = 1 << 20 // bytes
	DefaultChunkThreshold = 1 << 20 // bytes
)

// WriterConfig says what a pack is to be.
type WriterConfig struct {
	Pack     PackID    // not zero
	Cluster  ClusterID // the cluster it is built for
	Token    Token     // the packing lease
	Range    Range     // every record's name hash lies in it
	Created  time.Time // from the grant
	Replaces []PackID  // the packs it stands for; none unless merging

	// ChunkSize is the content length of each chunk, in bytes; 0 means
	// DefaultChunkSize, the most is MaxPlain.
	ChunkSize int
	// ChunkThreshold is the largest content kept without chunks, in bytes; 0
	// means DefaultChunkThreshold, the most is MaxPlain. So much content is held
	// in memory.
	ChunkThreshold int64
}

func (c *WriterConfig) validate() error {
	switch {
	case c.Pack.IsZero():
		return fmt.Errorf("no pack id: %w", ErrBadConfig)
	case c.ChunkSize < 0 || c.ChunkSize > MaxPlain:
		return fmt.Errorf("chunk size %d: %w", c.ChunkSize, ErrBadConfig)
	case c.ChunkThreshold < 0 || c.ChunkThreshold > MaxPlain:
		return fmt.Errorf("chunk threshold %d: %w", c.ChunkThreshold, ErrBadConfig)
	case len(c.Replaces) > MaxReplaces:
		return fmt.Errorf("%d replaced packs: %w", len(c.Replaces), ErrBadConfig)
	}
	return nil
}

// File is what a Writer builds into, an *os.File for example. It must be
// empty.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// batchLen is how much the Writer gathers before it writes: large enough to
// make system calls cheap, small enough to stay in a core's cache until it is
// hashed.
const batchLen = 256 << 10

// Writer builds one pack. It is used by one goroutine at a time. Its memory
// does not grow with the payload, and by a few bytes with each record.
//
// An error in reading content or a record that does not fit leaves the pack
// as it was. An error in writing is returned by every later call: the pack is
// lost.
//
// Bytes [0, flushed) are in the file, the rest up to state.end in buf. The
// pack's hash lags behind: a large record's header is patched, and any record
// can be undone, before it is hashed.
type Writer struct {
	f       File
	cfg     WriterConfig
	sum     hash.Hash
	hashed  int64 // bytes of the file that sum covers
	flushed int64
	buf     []byte
	chunk   []byte // one chunk and its checksum
	source  []byte // appendSource of every record: the catalog's, not in the file
	state   state
	before  state // what Undo goes back to
	undo    bool  // whether it can
	sealed  bool
	err     error // sticky
}

// state is what one record changes.
type state struct {
	end     int64 // of the last record
	records uint32
	payload int64
	last    NameHash // of the last record that has a name
	min     Token
	max     Token
	source  int // length of Writer.source
}

// NewWriter begins a pack in f.
func NewWriter(f File, cfg WriterConfig) (*Writer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = DefaultChunkSize
	}
	if cfg.ChunkThreshold == 0 {
		cfg.ChunkThreshold = DefaultChunkThreshold
	}
	cfg.Replaces = append([]PackID(nil), cfg.Replaces...)
	w := &Writer{f: f, cfg: cfg, sum: sha256.New()}
	footer := w.footer()
	w.buf = append(w.buf, encodePackHeader(&footer)...)
	w.state.end = packHeaderLen
	return w, nil
}

// footer returns what the footer says so far.
func (w *Writer) footer() Footer {
	return Footer{
		Pack: w.cfg.Pack, Cluster: w.cfg.Cluster, Token: w.cfg.Token, Range: w.cfg.Range,
		Created: w.cfg.Created.UTC(), Replaces: w.cfg.Replaces,
		MinSeq: w.state.min, MaxSeq: w.state.max, Records: w.state.records, PayloadBytes: w.state.payload,
	}
}

// Records returns the number of records so far.
func (w *Writer) Records() int { return int(w.state.records) }

// Bytes returns the length of the pack so far, catalog and index not counted.
func (w *Writer) Bytes() int64 { return w.state.end }

// Append adds one record and streams its content to EOF. It sets Size and
// SHA256 in the entry it returns; rec.Size, if set, is a hint that saves a
// copy. A nil content is an empty one. When content fails, its error is
// returned wrapped, and the pack is as before.
func (w *Writer) Append(rec Record, content io.Reader) (Entry, error) {
	if err := w.ready(); err != nil {
		return Entry{}, err
	}
	h := Header{Record: rec}
	name, err := w.admit(&h)
	if err != nil {
		return Entry{}, err
	}
	if w.settle(); len(w.buf) >= batchLen {
		w.flush(len(w.buf))
	}
	if w.err != nil {
		return Entry{}, w.err
	}
	w.before, w.undo = w.state, false
	if content == nil {
		content = bytes.NewReader(nil)
	}
	if err := w.append(&h, content); err != nil {
		return Entry{}, err
	}
	entry := Entry{Record: h.Record, Location: Location{
		Ordinal: w.state.records, Offset: w.state.end, Length: h.HeaderLen + h.StoredLen,
	}}
	w.account(&h, name)
	w.undo = true
	return entry, nil
}

func (w *Writer) ready() error {
	if w.err == nil && w.sealed {
		return ErrSealed
	}
	return w.err
}

// admit checks everything about a record but its content, whose size and hash
// it clears, and returns its name hash.
func (w *Writer) admit(h *Header) (name NameHash, err error) {
	hint := h.Size
	h.Size, h.SHA256 = 0, [sha256.Size]byte{}
	if err := h.check(); err != nil {
		if errors.Is(err, ErrVersion) {
			err = fmt.Errorf("record type %d: %w", h.Type, ErrBadRecord)
		}
		return name, err
	}
	if n := h.Meta.encodedLen(); n > MaxHeader/2 {
		return name, fmt.Errorf("append %q: metadata of %d bytes: %w", h.Name, n, ErrBadRecord)
	}
	if w.state.records == MaxRecords || w.state.end > MaxPack/2 {
		return name, ErrFull
	}
	h.ModTime, h.SourceTime, h.Meta.Created = h.ModTime.UTC(), h.SourceTime.UTC(), h.Meta.Created.UTC()
	h.Size = max(0, hint)
	if h.Type == TypeVoid {
		return name, nil
	}
	name = h.Hash()
	if !w.cfg.Range.Contains(name) {
		return name, fmt.Errorf("append %q, hash %s, range %s: %w", h.Name, name, w.cfg.Range, ErrOutOfRange)
	}
	if bytes.Compare(name[:], w.state.last[:]) < 0 {
		return name, fmt.Errorf("append %q, hash %s after %s: %w", h.Name, name, w.state.last, ErrOutOfOrder)
	}
	return name, nil
}

// account makes the record at the end of the pack part of it.
func (w *Writer) account(h *Header, name NameHash) {
	s := &w.state
	s.end += h.HeaderLen + h.StoredLen
	s.records++
	s.payload += h.StoredLen
	w.source = appendSource(w.source, &h.Record)
	s.source = len(w.source)
	if h.Type == TypeVoid {
		return
	}
	s.last = name
	s.min, s.max = widen(s.min, s.max, h.Seq)
}

// Undo cuts the last appended record away; once for each Append.
func (w *Writer) Undo() error {
	if err := w.ready(); err != nil {
		return err
	}
	if !w.undo {
		return ErrNothingToUndo
	}
	w.state, w.undo = w.before, false
	w.source = w.source[:w.state.source]
	return w.cutBack()
}

// cutBack drops all bytes behind state.end.
func (w *Writer) cutBack() error {
	if w.err != nil {
		return w.err
	}
	if w.state.end >= w.flushed {
		w.buf = w.buf[:w.state.end-w.flushed]
		return nil
	}
	w.buf = w.buf[:0]
	if err := w.f.Truncate(w.state.end); err != nil {
		w.err = fmt.Errorf("cut pack back to %d bytes: %w", w.state.end, err)
		return w.err
	}
	w.flushed = w.state.end
	return nil
}

// append reads content and puts the record behind the pack's end, in buf or,
// with chunks, in the file.
func (w *Writer) append(h *Header, content io.Reader) error {
	start := len(w.buf)
	guess := *h
	guess.Size = min(guess.Size, w.cfg.ChunkThreshold)
	guess.StoredLen = guess.Size
	w.buf = appendHeader(w.buf, &guess, 0)
	if guess.HeaderLen > MaxHeader {
		w.buf = w.buf[:start]
		return fmt.Errorf("append %q: header of %d bytes: %w", h.Name, guess.HeaderLen, ErrBadRecord)
	}
	payload := len(w.buf)
	more, err := w.fill(content, guess.Size)
	switch size := int64(len(w.buf) - payload); {
	case err != nil:
		err = fmt.Errorf("append %q: read content: %w", h.Name, err)
	case h.Type == TypeTombstone && size > 0:
		err = fmt.Errorf("append %q: a tombstone has no content: %w", h.Name, ErrBadRecord)
	case more:
		err = w.appendChunks(h, start, payload, content)
	default:
		h.Size, h.StoredLen, h.ChunkLen = size, size, 0
		w.finishPlain(h, start, payload)
	}
	if err != nil {
		return errors.Join(err, w.cutBack())
	}
	return nil
}

// fill reads content behind the end of buf, up to one byte more than the
// threshold, and reports whether it got that byte.
func (w *Writer) fill(content io.Reader, hint int64) (more bool, err error) {
	base := len(w.buf)
	full := base + int(w.cfg.ChunkThreshold) + 1
	w.grow(min(int(hint)+1, full-base))
	for len(w.buf) < full {
		if len(w.buf) == cap(w.buf) {
			w.grow(min(max(len(w.buf)-base, 4096), full-len(w.buf)))
		}
		n, end, err := readUpTo(content, w.buf[len(w.buf):min(cap(w.buf), full)])
		w.buf = w.buf[:len(w.buf)+n]
		if err != nil || end {
			return len(w.buf) == full, err
		}
	}
	return true, nil
}

// grow makes room for n more bytes in buf, and for a batch at least.
func (w *Writer) grow(n int) {
	if cap(w.buf)-len(w.buf) >= n {
		return
	}
	b := make([]byte, len(w.buf), max(len(w.buf)+n, 2*batchLen))
	copy(b, w.buf)
	w.buf = b
}

// finishPlain puts the header in front of the payload at the end of buf. The
// payload moves only when the guessed size took more or fewer bytes to write.
func (w *Writer) finishPlain(h *Header, start, payload int) {
	h.SHA256 = sha256.Sum256(w.buf[payload:])
	var room [512]byte
	head := appendHeader(room[:0], h, 0)
	if move := len(head) - (payload - start); move > 0 {
		w.grow(move)
		w.buf = w.buf[:len(w.buf)+move]
		copy(w.buf[start+len(head):], w.buf[payload:len(w.buf)-move])
	} else if move < 0 {
		copy(w.buf[start+len(head):], w.buf[payload:])
		w.buf = w.buf[:len(w.buf)+move]
	}
	copy(w.buf[start:], head)
}

// appendChunks streams a large record to the file: room for its header, the
// chunks, then the header itself. The first of the content stands in buf
// behind payload.
func (w *Writer) appendChunks(h *Header, start, payload int, content io.Reader) error {
	head := w.buf[payload:]
	w.flush(start)
	if w.err != nil {
		return w.err
	}
	h.ChunkLen = int64(w.cfg.ChunkSize)
	reserve := *h
	reserve.Size, reserve.StoredLen = MaxSize, math.MaxInt64
	room := appendHeader(nil, &reserve, 0)
	if reserve.HeaderLen > MaxHeader {
		return fmt.Errorf("append %q: header of %d bytes: %w", h.Name, reserve.HeaderLen, ErrBadRecord)
	}
	w.write(make([]byte, len(room)))
	size, sum, err := w.writeChunks(h, io.MultiReader(bytes.NewReader(head), content))
	if err != nil {
		return err
	}
	h.Size, h.StoredLen, h.SHA256 = size, storedLen(size, h.ChunkLen), sum
	if _, err := w.f.WriteAt(appendHeader(nil, h, reserve.HeaderLen), w.state.end); err != nil {
		w.err = fmt.Errorf("write pack: %w", err)
	}
	w.buf = w.buf[:0]
	return w.err
}

func (w *Writer) writeChunks(h *Header, content io.Reader) (size int64, sum [sha256.Size]byte, err error) {
	if w.chunk == nil {
		w.chunk = make([]byte, w.cfg.ChunkSize+chunkSum)
	}
	whole, name := sha256.New(), h.Hash()
	for i := int64(0); ; i++ {
		n, end, err := readUpTo(content, w.chunk[:w.cfg.ChunkSize])
		if err != nil {
			return 0, sum, fmt.Errorf("append %q: read content: %w", h.Name, err)
		}
		if n > 0 {
			whole.Write(w.chunk[:n])
			crc := updateCRC(chunkCRC(name, i), w.chunk[:n])
			w.write(binary.LittleEndian.AppendUint32(w.chunk[:n], crc))
			size += int64(n)
		}
		switch {
		case w.err != nil:
			return 0, sum, w.err
		case size > MaxSize:
			return 0, sum, fmt.Errorf("append %q: more than %d bytes: %w", h.Name, int64(MaxSize), ErrBadRecord)
		case end:
			return size, [sha256.Size]byte(whole.Sum(nil)), nil
		}
	}
}
