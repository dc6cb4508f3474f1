package retriever

import "github.com/datavision/desnode/desformat"

// Key is a name that was found fit, with its hash: whoever has to look at the
// hash before the retriever does hands it on, so that it is computed once.
type Key struct {
	Name string
	Hash desformat.NameHash
}

// KeyOf checks and hashes a name. desformat.ErrInvalidName.
func KeyOf(name string) (Key, error) {
	if err := desformat.CheckName(name); err != nil {
		return Key{}, err
	}
	return Key{name, desformat.HashName(name)}, nil
}

// Shard is the shard of a key.
func (r *Retriever) Shard(k Key) uint32 { return k.Hash.Shard(r.cfg.Manifest.View().ShardBits()) }
