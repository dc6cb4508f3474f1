package gossip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/datavision/desnode/ring"
)

// ErrPeers: the file of peers is not what this program writes.
var ErrPeers = errors.New("unreadable file of peers")

const (
	peersHeader = "desnode peers 1"
	peersMax    = 1 << 20 // bytes of the file
)

// peers are the addresses of all nodes ever seen that were not removed.
type peers map[ring.NodeID]netip.AddrPort

func (p peers) encode() []byte {
	b := []byte(peersHeader + "\n")
	for _, id := range slices.Sorted(maps.Keys(p)) {
		b = fmt.Appendf(b, "%s %s\n", id, p[id])
	}
	return b
}

func decodePeers(b []byte) (peers, error) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	if !lines.Scan() || lines.Text() != peersHeader {
		return nil, fmt.Errorf("no line %q: %w", peersHeader, ErrPeers)
	}
	p := peers{}
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		id, err := ring.ParseNodeID(name)
		addr, err2 := netip.ParseAddrPort(text)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPeers, err)
		}
		p[id] = addr
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPeers, err)
	}
	return p, nil
}

// readPeers returns what writePeers wrote last; none when there is no file.
func readPeers(path string) (peers, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return peers{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, peersMax+1))
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	if len(b) > peersMax {
		return nil, fmt.Errorf("more than %d bytes: %w", peersMax, ErrPeers)
	}
	return decodePeers(b)
}

// writePeers replaces the file; when it returns nil, the new one is durable, and
// else the old one is still there.
func writePeers(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write peers: %w", err)
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write peers: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write peers: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write peers: %w", err)
	}
	return nil
}
