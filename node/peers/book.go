package peers

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/datavision/desnode/ring"
)

// place is where a node is: what it tells of itself.
type place struct {
	Node    string `json:"node"`
	Since   int64  `json:"since"`   // when it came there, by its own clock, milliseconds since 1970; grows
	Cluster string `json:"cluster"` // host:port of QUIC and raft
	Gossip  string `json:"gossip"`  // host:port
}

func (p place) valid() bool {
	_, err := ring.ParseNodeID(p.Node)
	return err == nil && validAddr(p.Cluster) && validAddr(p.Gossip)
}

// sameAs tells whether two places are one, whenever somebody came there.
func (p place) sameAs(o place) bool {
	return p.Node == o.Node && p.Cluster == o.Cluster && p.Gossip == o.Gossip
}

// bookFile is the file of addresses.
type bookFile struct {
	Self      place   `json:"self"`      // this node's place, zero: none yet
	Published uint64  `json:"published"` // n of its newest object in the store
	Place     place   `json:"place"`     // what that object holds
	Peers     []peerE `json:"peers"`     // sorted by node
}

// peerE is a peer's place, and how far its objects in the store were read.
type peerE struct {
	place
	Read uint64 `json:"read,omitempty"` // n of the newest object seen
}

// book is where the nodes are. Its methods may be called at once and wait for
// nothing.
type book struct {
	changed chan struct{} // holds a word when the file is behind

	mu    sync.RWMutex // guards what follows
	self  place
	pub   uint64
	pubAt place
	peers map[string]peerE
}

func newBook(places []place) *book {
	b := &book{changed: make(chan struct{}, 1), peers: map[string]peerE{}}
	for _, p := range places {
		if p.valid() && len(b.peers) < ring.MaxMembers {
			b.peers[p.Node] = peerE{place: p}
		}
	}
	return b
}

// loadBook reads the file of addresses. A damaged one costs hints only, so the
// book is good beside the error.
func loadBook(path string) (*book, error) {
	var f bookFile
	err := readJSON(path, &f)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	b := newBook(nil)
	b.self, b.pub, b.pubAt = f.Self, f.Published, f.Place
	for _, p := range f.Peers {
		if p.valid() {
			b.peers[p.Node] = p
		}
	}
	return b, err
}

func (b *book) file() bookFile {
	b.mu.RLock()
	defer b.mu.RUnlock()
	f := bookFile{Self: b.self, Published: b.pub, Place: b.pubAt}
	for _, node := range slices.Sorted(maps.Keys(b.peers)) {
		f.Peers = append(f.Peers, b.peers[node])
	}
	return f
}

// settleAt says where this node is now, at that time.
func (b *book) settleAt(p place, ms int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.Since = b.self.Since
	if !p.sameAs(b.self) {
		p.Since = max(ms, b.self.Since+1)
	}
	b.self = p
}

// own returns this node's place, and the newest that stands in the store.
func (b *book) own() (self place, published uint64, at place) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.self, b.pub, b.pubAt
}

// published notes what stands in the store for this node.
func (b *book) published(n uint64, at place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pub, b.pubAt = n, at
	signal(b.changed)
}

// told takes what a node tells of itself; true: it was elsewhere, or unknown.
func (b *book) told(p place) bool { return b.take(p, true) }

// heard takes what is said of a node by another one, or by an object in the
// store: true, it was news. What is older than what is known is not.
func (b *book) heard(p place) bool { return b.take(p, false) }

func (b *book) take(p place, direct bool) bool {
	if !p.valid() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.peers[p.Node]
	if p.Node == b.self.Node || known && !direct && p.Since <= old.Since || !known && len(b.peers) >= ring.MaxMembers {
		return false
	}
	if known && p == old.place {
		return false
	}
	moved := !known || !p.sameAs(old.place)
	old.place = p
	b.peers[p.Node] = old
	signal(b.changed)
	return moved
}

// gossiped takes where gossip has found a node: it says nothing of since when.
func (b *book) gossiped(node, cluster, gossip string) {
	b.mu.RLock()
	since := b.peers[node].Since
	b.mu.RUnlock()
	b.told(place{node, since, cluster, gossip})
}

// read notes how far a node's objects in the store were read.
func (b *book) read(node string, n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.peers[node]; ok && p.Read != n {
		p.Read = n
		b.peers[node] = p
		signal(b.changed)
	}
}

// readUpTo returns how far a node's objects in the store were read.
func (b *book) readUpTo(node string) uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.peers[node].Read
}

// forget drops nodes that were removed.
func (b *book) forget(gone func(node string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for node := range b.peers {
		if gone(node) {
			delete(b.peers, node)
			signal(b.changed)
		}
	}
}

// where returns a peer's place.
func (b *book) where(node string) (place, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	p, ok := b.peers[node]
	return p.place, ok
}

// places returns this node's and all peers' places, sorted by node.
func (b *book) places() []place {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := []place{b.self}
	for _, p := range b.peers {
		all = append(all, p.place)
	}
	slices.SortFunc(all, func(x, y place) int {
		if x.Node < y.Node {
			return -1
		}
		return 1
	})
	return all
}

// gossipSeeds returns the gossip addresses of all peers.
func (b *book) gossipSeeds() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	seeds := make([]string, 0, len(b.peers))
	for _, p := range b.peers {
		seeds = append(seeds, p.Gossip)
	}
	slices.Sort(seeds)
	return seeds
}

// reachable returns addr with the host that others reach this node by.
func reachable(addr, advertise string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || advertise == "" {
		return addr
	}
	return net.JoinHostPort(advertise, port)
}

// signal wakes the one who reads c, once however often it is called.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
