package desformat

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrBadID is returned by the Parse functions of this package's id types for
// text that is not such an id.
var ErrBadID = errors.New("bad id")

// NameHash is the SHA-256 of a name's bytes. Its leading bits, big-endian,
// place the file everywhere: in a shard, in a range, in a pack, in an index.
type NameHash [32]byte

// HashName returns the name hash of name. It does not check the name.
func HashName(name string) NameHash { return sha256.Sum256([]byte(name)) }

// Top32 returns the leading 32 bits, the value of the column des_hash.
func (h NameHash) Top32() uint32 { return binary.BigEndian.Uint32(h[:4]) }

// Shard returns the leading bits of h; bits is 0 to 32.
func (h NameHash) Shard(bits uint8) uint32 { return uint32(uint64(h.Top32()) >> (32 - bits)) }

// String returns h in lower-case hex.
func (h NameHash) String() string { return hex.EncodeToString(h[:]) }

// MaxRangeBits is the length of the longest range.
const MaxRangeBits = 32

// Range is a prefix of the hash space, 0 to MaxRangeBits long. The zero Range
// is the whole space. Ranges are comparable with ==.
type Range struct {
	prefix uint32 // left-aligned; bits below the prefix are zero
	bits   uint8
}

// NewRange returns the range whose prefix is the low `bits` bits of value.
// It returns ErrBadID when bits exceeds MaxRangeBits or value has further bits.
func NewRange(value uint32, bits uint8) (Range, error) {
	if bits > MaxRangeBits || uint64(value)>>bits != 0 {
		return Range{}, fmt.Errorf("range %x/%d: %w", value, bits, ErrBadID)
	}
	return Range{prefix: uint32(uint64(value) << (32 - bits)), bits: bits}, nil
}

// Bits returns the length of the prefix, 0 to MaxRangeBits.
func (r Range) Bits() uint8 { return r.bits }

// Value returns the prefix as a number of Bits bits.
func (r Range) Value() uint32 { return uint32(uint64(r.prefix) >> (32 - r.bits)) }

// First returns the lowest Top32 inside r, Last the highest.
func (r Range) First() uint32 { return r.prefix }

// Last returns the highest Top32 inside r.
func (r Range) Last() uint32 { return r.prefix | uint32(uint64(1)<<(32-r.bits)-1) }

// Contains reports whether h lies in r.
func (r Range) Contains(h NameHash) bool { t := h.Top32(); return t >= r.First() && t <= r.Last() }

// Covers reports whether all of other lies in r.
func (r Range) Covers(other Range) bool {
	return r.bits <= other.bits && other.prefix >= r.First() && other.prefix <= r.Last()
}

// Overlaps reports whether one of the ranges is a prefix of the other, which
// for prefixes is the same as having a hash in common.
func (r Range) Overlaps(other Range) bool { return r.Covers(other) || other.Covers(r) }

// Halves returns the two ranges that are one bit longer; r must be shorter
// than MaxRangeBits.
func (r Range) Halves() (low, high Range) {
	b := r.bits + 1
	return Range{r.prefix, b}, Range{r.prefix | 1<<(32-b), b}
}

func (r Range) digits() string {
	n := max(1, (int(r.bits)+3)/4)
	return fmt.Sprintf("%0*x", n, r.Value())
}

// String returns the form "3a/8": the value in hex, ceil(bits/4) digits, and
// the number of bits. The whole space is "0/0".
func (r Range) String() string { return r.digits() + "/" + strconv.Itoa(int(r.bits)) }

// Key returns the form used inside object keys, "3a-8".
func (r Range) Key() string { return r.digits() + "-" + strconv.Itoa(int(r.bits)) }

// ParseRange parses what String and Key return.
func ParseRange(s string) (Range, error) {
	value, bits, ok := strings.Cut(strings.Replace(s, "-", "/", 1), "/")
	v, errV := strconv.ParseUint(value, 16, 32)
	b, errB := strconv.ParseUint(bits, 10, 8)
	if !ok || errV != nil || errB != nil {
		return Range{}, fmt.Errorf("range %q, want the form 3a/8: %w", s, ErrBadID)
	}
	r, err := NewRange(uint32(v), uint8(b))
	if err != nil || r.digits() != value {
		return Range{}, fmt.Errorf("range %q, want the form 3a/8: %w", s, ErrBadID)
	}
	return r, nil
}

// MarshalText returns String; UnmarshalText parses it.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText parses what MarshalText returns.
func (r *Range) UnmarshalText(b []byte) (err error) { *r, err = ParseRange(string(b)); return err }

// PackID names one build of one pack: 16 random bytes, new for each build.
type PackID [16]byte

// String returns the id as 32 lower-case hex digits.
func (p PackID) String() string { return hex.EncodeToString(p[:]) }

// IsZero reports whether p is the zero id, which names no pack.
func (p PackID) IsZero() bool { return p == PackID{} }

// ParsePackID parses what String returns.
func ParsePackID(s string) (p PackID, err error) {
	err = parseHex16((*[16]byte)(&p), s, "pack id")
	return p, err
}

// MarshalText returns String.
func (p PackID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText parses what MarshalText returns.
func (p *PackID) UnmarshalText(b []byte) (err error) { *p, err = ParsePackID(string(b)); return err }

// ClusterID names one cluster: 16 random bytes, made when it is formed.
type ClusterID [16]byte

// String returns the id as 32 lower-case hex digits.
func (c ClusterID) String() string { return hex.EncodeToString(c[:]) }

// ParseClusterID parses what String returns.
func ParseClusterID(s string) (c ClusterID, err error) {
	err = parseHex16((*[16]byte)(&c), s, "cluster id")
	return c, err
}

// MarshalText returns String.
func (c ClusterID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText parses what MarshalText returns.
func (c *ClusterID) UnmarshalText(b []byte) (err error) {
	*c, err = ParseClusterID(string(b))
	return err
}

func parseHex16(dst *[16]byte, s, what string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) || s != strings.ToLower(s) {
		return fmt.Errorf("%s %q, want 32 lower-case hex digits: %w", what, s, ErrBadID)
	}
	copy(dst[:], b)
	return nil
}

// Token fences a lease: the cluster's generation and the Raft index of the
// grant. Tokens are ordered by generation, then index. As the seq of a record
// it is the token of the packing that first archived that version.
type Token struct {
	Generation uint64
	Index      uint64
}

// Compare returns -1, 0 or +1 as t is older than, equal to or newer than u.
func (t Token) Compare(u Token) int {
	switch {
	case t == u:
		return 0
	case t.Generation < u.Generation, t.Generation == u.Generation && t.Index < u.Index:
		return -1
	default:
		return 1
	}
}

// IsZero reports whether t is the zero token, which no grant ever has.
func (t Token) IsZero() bool { return t == Token{} }

// String returns the form "1-42": generation and index, decimal.
func (t Token) String() string {
	return strconv.FormatUint(t.Generation, 10) + "-" + strconv.FormatUint(t.Index, 10)
}

// ParseToken parses what String returns.
func ParseToken(s string) (Token, error) {
	g, i, ok := strings.Cut(s, "-")
	gen, errG := strconv.ParseUint(g, 10, 64)
	idx, errI := strconv.ParseUint(i, 10, 64)
	t := Token{gen, idx}
	if !ok || errG != nil || errI != nil || t.String() != s {
		return Token{}, fmt.Errorf("token %q, want the form 1-42: %w", s, ErrBadID)
	}
	return t, nil
}

// MarshalText returns String.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText parses what MarshalText returns.
func (t *Token) UnmarshalText(b []byte) (err error) { *t, err = ParseToken(string(b)); return err }

// PackKey returns the object key of a pack:
// packs/<range>/<generation>-<token index>-<pack id>.des
func PackKey(r Range, t Token, p PackID) string {
	return "packs/" + r.Key() + "/" + t.String() + "-" + p.String() + ".des"
}

// ParsePackKey parses what PackKey returns.
func ParsePackKey(key string) (r Range, t Token, p PackID, err error) {
	bad := func() (Range, Token, PackID, error) {
		return Range{}, Token{}, PackID{}, fmt.Errorf("pack key %q: %w", key, ErrBadID)
	}
	rest, ok := strings.CutPrefix(key, "packs/")
	rng, file, ok2 := strings.Cut(rest, "/")
	file, ok3 := strings.CutSuffix(file, ".des")
	cut := strings.LastIndexByte(file, '-')
	if !ok || !ok2 || !ok3 || cut < 0 {
		return bad()
	}
	r, errR := ParseRange(rng)
	t, errT := ParseToken(file[:cut])
	p, errP := ParsePackID(file[cut+1:])
	if errR != nil || errT != nil || errP != nil || PackKey(r, t, p) != key {
		return bad()
	}
	return r, t, p, nil
}
