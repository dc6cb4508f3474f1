package gossip

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/datavision/desnode/ring"
)

// Errors about metadata, returned wrapped; compare with errors.Is.
var (
	// ErrMetaSize: the metadata does not fit into 512 bytes, or one of its
	// fields into 255.
	ErrMetaSize = errors.New("gossip metadata too large")
	// ErrMetaVersion: the metadata is of a layout that this program does not know.
	ErrMetaVersion = errors.New("gossip metadata of an unknown version")
	// ErrMeta: the metadata contradicts its layout.
	ErrMeta = errors.New("malformed gossip metadata")
)

const (
	metaVersion   = 1
	metaHeader    = 10
	metaMax       = 512
	metaFieldMax  = 255
	metaFieldHead = 2
)

// Meta is what a node tells of itself.
type Meta struct {
	RingFormat  uint8       // ring.Format of the node
	Digest      ring.Digest // of its ring; zero: none yet
	ClusterAddr string      // host:port of QUIC and raft
	HTTPAddr    string      // host:port
	Zone        string
	Version     string // of the program
}

// fields are the texts in the order of their types, which count from 1.
func (m *Meta) fields() []*string {
	return []*string{&m.ClusterAddr, &m.HTTPAddr, &m.Zone, &m.Version}
}

// encode returns m in its layout, ErrMetaSize or ErrMeta.
func (m Meta) encode() ([]byte, error) {
	//	 0       1       2       10
	//	 version format  digest  (type, length, text)...
	b := make([]byte, 0, metaMax)
	b = append(b, metaVersion, m.RingFormat)
	b = append(b, m.Digest[:]...)
	for i, f := range m.fields() {
		if *f == "" {
			continue
		}
		if len(*f) > metaFieldMax {
			return nil, fmt.Errorf("field %d has %d bytes: %w", i+1, len(*f), ErrMetaSize)
		}
		if !printable(*f) {
			return nil, fmt.Errorf("field %d: %w", i+1, ErrMeta)
		}
		b = append(b, byte(i+1), byte(len(*f)))
		b = append(b, *f...)
	}
	if len(b) > metaMax {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrMetaSize)
	}
	return b, nil
}

// decodeMeta parses what encode returns; ErrMetaVersion or ErrMeta.
func decodeMeta(b []byte) (m Meta, err error) {
	if len(b) == 0 {
		return m, fmt.Errorf("empty: %w", ErrMeta)
	}
	if b[0] != metaVersion {
		return m, fmt.Errorf("version %d: %w", b[0], ErrMetaVersion)
	}
	if len(b) < metaHeader || len(b) > metaMax {
		return m, fmt.Errorf("%d bytes: %w", len(b), ErrMeta)
	}
	m.RingFormat = b[1]
	m.Digest = ring.Digest(b[2:metaHeader])
	fields := m.fields()
	last := byte(0)
	for rest := b[metaHeader:]; len(rest) > 0; {
		if len(rest) < metaFieldHead {
			return Meta{}, fmt.Errorf("cut field: %w", ErrMeta)
		}
		typ, size := rest[0], int(rest[1])
		rest = rest[metaFieldHead:]
		if typ <= last || size == 0 || size > len(rest) {
			return Meta{}, fmt.Errorf("field %d of %d bytes: %w", typ, size, ErrMeta)
		}
		last = typ
		text := string(rest[:size])
		rest = rest[size:]
		if int(typ) > len(fields) {
			continue
		}
		if !printable(text) {
			return Meta{}, fmt.Errorf("field %d: %w", typ, ErrMeta)
		}
		*fields[typ-1] = text
	}
	return m, nil
}

// printable tells text that may stand in a terminal and a log line.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
