package raftmeta

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

// A snapshot is text: a first line with magic and version, then one JSON
// object a line in a fixed order, then one that closes it.
//
//	desnode-raftmeta 1
//	{"kind":"cluster","body":{…}}                     one
//	{"kind":"member","body":{…}}                      any number, by rising id
//	{"kind":"removed","body":{"id":…,"index":…}}      by rising id
//	{"kind":"token","body":{…}}                       join tokens, by rising id
//	{"kind":"setting","body":{"key":…,"setting":{…}}} by rising key
//	{"kind":"lease","body":{…}}                       by rising token
//	{"kind":"upload","body":{…}}                      by rising key
//	{"kind":"pack","body":{"pack":{…},"dead":"…"}}    by rising id
//	{"kind":"end","body":{"lines":9,"crc32c":123}}    lines between, CRC32C of all bytes before
//
// The same state gives the same bytes on every node. A version that has no
// removed members and no tokens writes no such lines, so its snapshots load.
const snapshotMagic = "desnode-raftmeta 1\n"

// WriteSnapshot writes the whole state as text. The same state gives the same
// bytes, whichever node writes it.
func (v *View) WriteSnapshot(to io.Writer) error {
	if err := writeSnapshot(to, &v.state); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// ReadSnapshot reads what WriteSnapshot wrote. The view is of that moment for
// ever. ErrSnapshot: cut or damaged. ErrUnknownCommand: of a newer version.
func ReadSnapshot(from io.Reader) (*View, error) {
	s, err := readSnapshot(from)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return &View{state: s, changed: make(chan struct{})}, nil
}

type snapshot struct{ state state }

type snapshotLine struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`
}

type snapshotCluster struct {
	Cluster    desformat.ClusterID `json:"cluster"`
	ShardBits  uint8               `json:"shard_bits"`
	Generation uint64              `json:"generation"`
	Applied    uint64              `json:"applied"`
}

type snapshotRemoved struct {
	ID    NodeID `json:"id"`
	Index uint64 `json:"index"`
}

type snapshotSetting struct {
	Key     string  `json:"key"`
	Setting setting `json:"setting"`
}

// snapshotPack keeps the dead ordinals apart, in their short form.
type snapshotPack struct {
	Pack Pack     `json:"pack"`
	Dead ordinals `json:"dead,omitempty"`
}

type snapshotEnd struct {
	Lines int    `json:"lines"`
	CRC   uint32 `json:"crc32c"`
}

// Persist writes the snapshot to raft's sink.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, &s.state); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to free: the state is shared with the views.
func (s *snapshot) Release() {}

type snapshotWriter struct {
	w     io.Writer
	crc   hash.Hash32
	lines int
	err   error
}

func writeSnapshot(to io.Writer, s *state) error {
	buf := bufio.NewWriterSize(to, 1<<16)
	w := &snapshotWriter{crc: crc32.New(castagnoli())}
	w.w = io.MultiWriter(buf, w.crc)
	_, w.err = io.WriteString(w.w, snapshotMagic)
	w.line("cluster", snapshotCluster{s.cluster, s.shardBits, s.generation, s.applied})
	w.state(s)
	w.line("end", snapshotEnd{w.lines, w.crc.Sum32()})
	return errors.Join(w.err, buf.Flush())
}

// state writes all lines but the first and the last.
func (w *snapshotWriter) state(s *state) {
	for _, m := range s.members.all() {
		w.line("member", m)
	}
	for id, index := range s.removed.all() {
		w.line("removed", snapshotRemoved{NodeID(id), index})
	}
	for _, t := range s.tokens.all() {
		w.line("token", t)
	}
	for key, v := range s.settings.all() {
		w.line("setting", snapshotSetting{key, v})
	}
	for _, l := range s.leases.all() {
		w.line("lease", l)
	}
	for _, u := range s.uploads.all() {
		w.line("upload", u)
	}
	for _, p := range s.packs.all() {
		body := snapshotPack{Pack: *p, Dead: p.Dead}
		body.Pack.Dead = nil
		w.line("pack", body)
	}
}

// Digest returns a hash of all in the view that outlives its moment: not the
// Raft index, nor leases, nor the settings whose key except reports. Two views
// with equal digests need one backup.
func (v *View) Digest(except func(key string) bool) (Digest, error) {
	s := v.state
	s.leases = table[leaseEntry]{}
	for key := range v.settings.all() {
		if except(key) {
			s.settings = s.settings.delete(key)
		}
	}
	h := sha256.New()
	w := &snapshotWriter{w: h}
	w.line("cluster", snapshotCluster{Cluster: s.cluster, ShardBits: s.shardBits, Generation: s.generation})
	w.state(&s)
	if w.err != nil {
		return Digest{}, fmt.Errorf("digest of the state: %w", w.err)
	}
	return Digest(h.Sum(nil)), nil
}

func (w *snapshotWriter) line(kind string, body any) {
	if w.err != nil {
		return
	}
	b, err := encodeLine(kind, body)
	if err == nil {
		_, err = w.w.Write(b)
	}
	w.err = err
	w.lines++
}

func encodeLine(kind string, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	b, err = json.Marshal(snapshotLine{kind, b})
	return append(b, '\n'), err
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// readSnapshot returns ErrUnknownCommand for a newer version's snapshot and
// ErrSnapshot for a damaged one.
func readSnapshot(from io.Reader) (state, error) {
	r := bufio.NewReaderSize(from, 1<<16)
	crc := crc32.New(castagnoli())
	head, err := r.ReadString('\n')
	if err != nil {
		return state{}, fmt.Errorf("first line: %w: %w", ErrSnapshot, err)
	}
	if head != snapshotMagic {
		return state{}, fmt.Errorf("first line %.40q: %w", head, ErrUnknownCommand)
	}
	_, _ = io.WriteString(crc, head) // a hash never fails
	var s state
	for lines := 0; ; lines++ {
		b, err := r.ReadBytes('\n')
		if err != nil {
			return state{}, fmt.Errorf("line %d: %w: %w", lines, ErrSnapshot, err)
		}
		var l snapshotLine
		if err := json.Unmarshal(b, &l); err != nil {
			return state{}, fmt.Errorf("line %d: %w: %w", lines, ErrSnapshot, err)
		}
		if l.Kind == "end" {
			return s, checkEnd(b, snapshotEnd{lines, crc.Sum32()}, r)
		}
		_, _ = crc.Write(b)
		if err := s.load(l); err != nil {
			return state{}, fmt.Errorf("line %d, %q: %w", lines, l.Kind, err)
		}
	}
}

func checkEnd(line []byte, found snapshotEnd, rest io.ByteReader) error {
	want, err := encodeLine("end", found)
	if err != nil {
		return err
	}
	if !bytes.Equal(line, want) {
		return fmt.Errorf("last line is %q, for what was read %q: %w", line, want, ErrSnapshot)
	}
	if _, err := rest.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("bytes behind the last line: %w", ErrSnapshot)
	}
	return nil
}

// load adds one line to the state.
func (s *state) load(l snapshotLine) error {
	var err error
	switch l.Kind {
	case "cluster":
		var c snapshotCluster
		err = decodeStrict(l.Body, &c)
		s.cluster, s.shardBits, s.generation, s.applied = c.Cluster, c.ShardBits, c.Generation, c.Applied
	case "member":
		var m Member
		err = decodeStrict(l.Body, &m)
		s.members = s.members.set(string(m.ID), m)
	case "removed":
		var r snapshotRemoved
		err = decodeStrict(l.Body, &r)
		s.removed = s.removed.set(string(r.ID), r.Index)
	case "token":
		var t tokenEntry
		err = decodeStrict(l.Body, &t)
		s.tokens = s.tokens.set(t.ID, t)
	case "setting":
		var v snapshotSetting
		err = decodeStrict(l.Body, &v)
		s.settings = s.settings.set(v.Key, v.Setting)
	case "lease":
		var e leaseEntry
		err = decodeStrict(l.Body, &e)
		s.leases = s.leases.set(tokenKey(e.Token), e)
	case "upload":
		var u Upload
		err = decodeStrict(l.Body, &u)
		s.uploads = s.uploads.set(u.Key, u)
	case "pack":
		var p snapshotPack
		err = decodeStrict(l.Body, &p)
		p.Pack.Dead = p.Dead
		s.put(nil, &p.Pack)
	default:
		return ErrUnknownCommand
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownCommand, err)
	}
	return nil
}
