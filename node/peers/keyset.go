package peers

import (
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/datavision/desnode/ring/gossip"
	"github.com/datavision/desnode/transport"
)

// Keys of replicated settings.
const (
	authoritySetting = "authority"
	keysSetting      = "gossip-keys"
)

// phase is how far a rotation of the gossip key is.
type phase string

const (
	phaseSteady phase = "steady" // one key
	phaseAdding phase = "adding" // the old one is used, the new one read
	phaseUsing  phase = "using"  // the new one is used, the old one read
)

// keyset is the gossip keys of one moment. As a file and in messages under
// mutual TLS it is plain JSON; in the state machine it is sealed.
type keyset struct {
	Version  uint64   `json:"version"`            // 1 more at each change
	Phase    phase    `json:"phase"`              //
	Rotation string   `json:"rotation,omitempty"` // the rotation under way, or the last one
	Keys     [][]byte `json:"keys"`               // one or two of 32 bytes; the first is used
}

// firstKeys is what a cluster is formed with.
func firstKeys() keyset { return keyset{Version: 1, Phase: phaseSteady, Keys: [][]byte{newKey()}} }

func newKey() []byte {
	k := make([]byte, len(gossip.Key{}))
	_, _ = rand.Read(k) // never fails
	return k
}

// keys returns them as gossip takes them: ErrMalformed.
func (s keyset) keys() ([]gossip.Key, error) {
	if len(s.Keys) == 0 || len(s.Keys) > 2 || s.Version == 0 {
		return nil, fmt.Errorf("gossip keys, version %d with %d keys: %w", s.Version, len(s.Keys), ErrMalformed)
	}
	keys := make([]gossip.Key, len(s.Keys))
	for i, k := range s.Keys {
		if copy(keys[i][:], k) != len(k) || len(k) != len(keys[i]) {
			return nil, fmt.Errorf("a gossip key of %d bytes: %w", len(k), ErrMalformed)
		}
	}
	return keys, nil
}

const keysPurpose = "gossip-keys"

func (s keyset) seal(secret transport.Secret, cluster string) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return secret.Seal(keysPurpose, cluster, b)
}

func openKeys(secret transport.Secret, cluster string, sealed []byte) (keyset, error) {
	var s keyset
	b, err := secret.Open(keysPurpose, cluster, sealed)
	if err != nil {
		return s, fmt.Errorf("gossip keys: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("gossip keys: %w: %w", ErrMalformed, err)
	}
	_, err = s.keys()
	return s, err
}

// newKeyRing returns a ring that holds the keys.
func newKeyRing(s keyset) (*gossip.KeyRing, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, err
	}
	return gossip.NewKeyRing(keys[0], keys[1:]...)
}

// turn makes a ring hold these keys and use the first, whatever it held: a node
// that was away may have missed any number of rotations. The ring holds two
// keys at most, so what is not wanted goes before what is missing comes.
func turn(r *gossip.KeyRing, want []gossip.Key) error {
	drop := func() error {
		for _, k := range r.Keys()[1:] {
			if !contains(want, k) {
				if err := r.Remove(k); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if len(r.Keys()) == 2 && !contains(r.Keys(), want[0]) {
		if err := r.Remove(r.Keys()[1]); err != nil {
			return err
		}
	}
	if err := r.Add(want[0]); err != nil {
		return err
	}
	if err := r.Use(want[0]); err != nil {
		return err
	}
	if err := drop(); err != nil {
		return err
	}
	for _, k := range want[1:] {
		if err := r.Add(k); err != nil {
			return err
		}
	}
	return nil
}

func contains(keys []gossip.Key, k gossip.Key) bool {
	for _, other := range keys {
		if other == k {
			return true
		}
	}
	return false
}

// IsKeySetting reports whether a replicated setting holds keys of this package.
func IsKeySetting(key string) bool { return key == authoritySetting || key == keysSetting }
