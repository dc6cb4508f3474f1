package gossip

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Errors about keys, returned wrapped; compare with errors.Is.
var (
	// ErrKeys: a KeyRing holds two keys already: end one rotation before the next.
	ErrKeys = errors.New("a key rotation is under way")
	// ErrUnknownKey: the KeyRing does not hold the key.
	ErrUnknownKey = errors.New("gossip key is not in the key ring")
	// ErrKeyInUse: messages are sent with the key.
	ErrKeyInUse = errors.New("gossip key is in use")
)

// Key is a gossip key, AES-256.
type Key [32]byte

// KeyRing is the key that messages are sent with, and at most one other that
// they are read with. A rotation adds the new key on every node, then uses it
// on every node, then removes the old one on every node. All methods may be
// called at once and repeated.
//
// Two keys and no more: with three, memberlist's own ring would move keys about
// under the eyes of its readers when one is removed.
type KeyRing struct {
	mu   sync.Mutex // guards keys, and that lib follows them
	keys []Key      // the first is in use
	lib  *memberlist.Keyring
}

// NewKeyRing returns a ring that uses the first key and reads with the others,
// of which there may be one.
func NewKeyRing(use Key, others ...Key) (*KeyRing, error) {
	lib, err := memberlist.NewKeyring(nil, use[:])
	if err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	k := &KeyRing{keys: []Key{use}, lib: lib}
	for _, other := range others {
		if err := k.Add(other); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Keys returns the keys, the one in use first.
func (k *KeyRing) Keys() []Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.keys)
}

// Add lets messages be read with the key. ErrKeys: there are two others.
func (k *KeyRing) Add(key Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.keys, key) {
		return nil
	}
	if len(k.keys) == 2 {
		return fmt.Errorf("add key: %w", ErrKeys)
	}
	if err := k.lib.AddKey(key[:]); err != nil {
		return fmt.Errorf("add key: %w", err)
	}
	k.keys = append(k.keys, key)
	return nil
}

// Use sends messages with the key from now on, which every node must have
// added. ErrUnknownKey: this one has not.
func (k *KeyRing) Use(key Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.Index(k.keys, key)
	if i < 0 {
		return fmt.Errorf("use key: %w", ErrUnknownKey)
	}
	if err := k.lib.UseKey(key[:]); err != nil {
		return fmt.Errorf("use key: %w", err)
	}
	k.keys[0], k.keys[i] = k.keys[i], k.keys[0]
	return nil
}

// Remove forgets the key, once every node uses another. ErrKeyInUse: this one
// does not.
func (k *KeyRing) Remove(key Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch slices.Index(k.keys, key) {
	case -1:
		return nil
	case 0:
		return fmt.Errorf("remove key: %w", ErrKeyInUse)
	}
	if err := k.lib.RemoveKey(key[:]); err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	k.keys = k.keys[:1]
	return nil
}
