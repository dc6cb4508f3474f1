package gossip

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/ring"
)

// goldenMeta is never changed: nodes of other versions speak it.
var goldenMeta = struct {
	meta Meta
	hex  string
}{
	Meta{
		RingFormat: 1, Digest: ring.Digest{1, 2, 3, 4, 5, 6, 7, 8},
		ClusterAddr: "10.0.0.1:7947", HTTPAddr: "10.0.0.1:8080", Zone: "waw-1", Version: "v1.2.3",
	},
	"0101" + "0102030405060708" +
		"010d" + hex.EncodeToString([]byte("10.0.0.1:7947")) +
		"020d" + hex.EncodeToString([]byte("10.0.0.1:8080")) +
		"0305" + hex.EncodeToString([]byte("waw-1")) +
		"0406" + hex.EncodeToString([]byte("v1.2.3")),
}

func TestMetaGolden(t *testing.T) {
	want, err := hex.DecodeString(goldenMeta.hex)
	if err != nil {
		t.Fatal(err)
	}
	got, err := goldenMeta.meta.encode()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("encoded %x, %v, want %x", got, err, want)
	}
	if m, err := decodeMeta(want); err != nil || m != goldenMeta.meta {
		t.Errorf("decoded %+v, %v", m, err)
	}
	// What a later program adds is skipped.
	if m, err := decodeMeta(append(want, 200, 2, 0, 1)); err != nil || m != goldenMeta.meta {
		t.Errorf("with an unknown field: %+v, %v", m, err)
	}
}

func TestMetaDamaged(t *testing.T) {
	golden, err := hex.DecodeString(goldenMeta.hex)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]bool{10: true, 25: true, 40: true, 47: true} // prefixes that end with a field
	for n := range golden {
		m, err := decodeMeta(golden[:n])
		if ends[n] {
			if err != nil {
				t.Errorf("prefix of %d whole fields: %v", n, err)
			}
		} else if !errors.Is(err, ErrMeta) || m != (Meta{}) {
			t.Errorf("prefix of %d bytes: %+v, %v, want ErrMeta", n, m, err)
		}
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want error
	}{
		{"a later version", append([]byte{2}, golden[1:]...), ErrMetaVersion},
		{"version 0", append([]byte{0}, golden[1:]...), ErrMetaVersion},
		{"a field twice", append(bytes.Clone(golden), 4, 1, 'x'), ErrMeta},
		{"type 0", append(bytes.Clone(golden[:metaHeader]), 0, 1, 'x'), ErrMeta},
		{"an empty field", append(bytes.Clone(golden[:metaHeader]), 1, 0), ErrMeta},
		{"a control character", append(bytes.Clone(golden[:metaHeader]), 1, 1, 27), ErrMeta},
		{"no UTF-8", append(bytes.Clone(golden[:metaHeader]), 1, 1, 0xff), ErrMeta},
		{"too long", append(bytes.Clone(golden), make([]byte, metaMax)...), ErrMeta},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if m, err := decodeMeta(tc.b); !errors.Is(err, tc.want) || m != (Meta{}) {
				t.Errorf("got %+v, %v, want %v", m, err, tc.want)
			}
		})
	}
}

func FuzzMeta(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzMeta", "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seed corpus: %v", err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			if !errors.Is(err, ErrMeta) && !errors.Is(err, ErrMetaVersion) {
				t.Fatalf("undocumented error %v", err)
			}
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("decoded, but not encoded: %v", err)
		}
		if back, err := decodeMeta(again); err != nil || back != m {
			t.Fatalf("%+v came back as %+v, %v", m, back, err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"no id", func(c *Config) { c.ID = "" }, ErrConfig},
		{"no UUID", func(c *Config) { c.ID = "node" }, ring.ErrBadID},
		{"no keys", func(c *Config) { c.Keys = nil }, ErrConfig},
		{"no cluster", func(c *Config) { c.Cluster = "" }, ErrConfig},
		{"a long cluster", func(c *Config) { c.Cluster = long + long }, ErrConfig},
		{"no port", func(c *Config) { c.Bind = "127.0.0.1" }, ErrConfig},
		{"negative rejoin", func(c *Config) { c.Rejoin = -1 }, ErrConfig},
		{"large metadata", func(c *Config) { c.Meta = Meta{Zone: long, HTTPAddr: long, ClusterAddr: long} }, ErrMetaSize},
		{"a large field", func(c *Config) { c.Meta.Zone = long + long }, ErrMetaSize},
		{"a zone with a line break", func(c *Config) { c.Meta.Zone = "a\nb" }, ErrMeta},
		{"shard bits", func(c *Config) { c.Ring.ShardBits = 60 }, ring.ErrConfig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := (&world{t: t}).config(1)
			tc.change(&c)
			if _, err := New(c); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestLargestMeta: 512 bytes are gossiped; one more never reaches memberlist,
// which would panic.
func TestLargestMeta(t *testing.T) {
	m := Meta{ClusterAddr: strings.Repeat("a", 250), HTTPAddr: strings.Repeat("b", 248-metaFieldHead)}
	b, err := m.encode()
	if err != nil || len(b) != metaMax-2 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	m.HTTPAddr += "bb"
	if b, err = m.encode(); err != nil || len(b) != metaMax {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	m.HTTPAddr += "b"
	if _, err := m.encode(); !errors.Is(err, ErrMetaSize) {
		t.Errorf("got %v, want ErrMetaSize", err)
	}
}

func TestKeyRing(t *testing.T) {
	k := mustKeys(t, keyOf(1))
	if err := k.Use(keyOf(2)); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("use of an unknown key: %v", err)
	}
	if err := k.Remove(keyOf(1)); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("removal of the key in use: %v", err)
	}
	for range 2 { // each step may be repeated
		if err := errors.Join(k.Add(keyOf(2)), k.Use(keyOf(2))); err != nil {
			t.Error(err)
		}
	}
	if err := k.Add(keyOf(3)); !errors.Is(err, ErrKeys) {
		t.Errorf("a third key: %v", err)
	}
	if err := errors.Join(k.Remove(keyOf(1)), k.Remove(keyOf(1)), k.Add(keyOf(3)), k.Remove(keyOf(3))); err != nil {
		t.Error(err)
	}
	if got := k.Keys(); len(got) != 1 || got[0] != keyOf(2) {
		t.Errorf("keys %v", got)
	}
	if lib := k.lib.GetKeys(); len(lib) != 1 || lib[0][0] != 2 {
		t.Errorf("memberlist's keys %v", lib)
	}
	if _, err := NewKeyRing(keyOf(1), keyOf(2), keyOf(3)); !errors.Is(err, ErrKeys) {
		t.Errorf("three keys: %v", err)
	}
}

func TestPeersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers")
	if p, err := readPeers(path); err != nil || len(p) != 0 {
		t.Errorf("no file: %v, %v", p, err)
	}
	want := peers{idOf(1): addrAt(1), idOf(2): addrAt(2)}
	if err := writePeers(path, want.encode()); err != nil {
		t.Fatal(err)
	}
	got, err := readPeers(path)
	if err != nil || !bytes.Equal(got.encode(), want.encode()) {
		t.Errorf("%v, %v", got, err)
	}
	line := idOf(1).String() + " 10.0.0.1:7946\n"
	for _, bad := range []string{
		"", "desnode peers 2\n" + line, peersHeader + "\nx\n", peersHeader + "\n" + line + idOf(2).String() + " 10.0.0.1\n",
		peersHeader + "\nnode 10.0.0.1:7946\n", peersHeader + "\n" + strings.Repeat("x", 100000), peersHeader + "\n" + strings.Repeat(line, peersMax/len(line)+1),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPeers(path); !errors.Is(err, ErrPeers) {
			t.Errorf("%.60q: %v, want ErrPeers", bad, err)
		}
	}
	if err := writePeers(filepath.Join(path, "below-a-file"), nil); err == nil {
		t.Error("written below a file")
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
