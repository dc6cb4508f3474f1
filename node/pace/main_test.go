package pace

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // the zones of the tests do not depend on the machine

	"go.uber.org/goleak"

	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is the replicated settings of one cluster. It fails the test when its
// caller breaks the contract.
type memory struct {
	t *testing.T

	mu      sync.Mutex // guards what follows
	index   uint64
	values  map[string][]byte
	indexes map[string]uint64
	changed chan struct{}
	sets    map[string]int
	err     error            // what Set returns, without doing anything
	rival   func(key string) // called once before a Set, unlocked
	delay   time.Duration    // of each Set, so that nodes meet in it

	conflicts int
}

func newMemory(t *testing.T) *memory {
	return &memory{
		t: t, values: map[string][]byte{}, indexes: map[string]uint64{}, sets: map[string]int{},
		changed: make(chan struct{}), index: 10,
	}
}

func (m *memory) Setting(key string) ([]byte, uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	return v, m.indexes[key], ok
}

func (m *memory) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *memory) Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error {
	m.mu.Lock()
	rival := m.rival
	m.rival = nil
	m.mu.Unlock()
	if rival != nil {
		rival(key)
	}
	time.Sleep(m.delay) // virtual
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case m.err != nil:
		return m.err
	case value == nil:
		m.t.Errorf("%s is deleted", key)
	case m.indexes[key] != ifModIndex:
		m.conflicts++
		return fmt.Errorf("%s: %w", key, raftmeta.ErrConflict)
	}
	m.put(key, value)
	m.sets[key]++
	return nil
}

// put changes a value; the caller holds mu.
func (m *memory) put(key string, value []byte) {
	m.index++
	m.values[key], m.indexes[key] = value, m.index
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) write(key, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, []byte(value))
}

func (m *memory) count(key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sets[key]
}

func newPacer(t *testing.T, m *memory, l Limits, change ...func(*Config)) *Pacer {
	t.Helper()
	cfg := Config{Settings: m, Limits: l}
	for _, c := range change {
		c(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}
