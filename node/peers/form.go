package peers

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/datavision/desnode/transport"
)

// authority is the CA as the state machine and the file hold it.
type authority struct {
	CA     []byte `json:"ca"`     // certificate, DER
	Sealed []byte `json:"sealed"` // its key, under the cluster secret
}

// Form makes what the first node of a cluster needs: CA, cluster secret, gossip
// key and the node's identity, durable on return. It serves an empty dir and a
// cluster of one that was formed by a version without identities. The identity
// comes last: cut before it, nothing has left the dir and all is made anew;
// once it is there, Form changes nothing. now nil is time.Now. ErrOtherCluster,
// ErrOtherNode: the dir has another identity.
func Form(dir, cluster, node string, now func() time.Time) error {
	if now == nil {
		now = time.Now
	}
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	path := filepath.Join(dir, identityFile)
	id, err := transport.LoadIdentity(path, now)
	if err == nil {
		return belongs(id, cluster, node)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("form: %w", err)
	}
	ca, err := transport.NewAuthority(cluster, now())
	if err != nil {
		return fmt.Errorf("form: %w", err)
	}
	secret := transport.NewSecret()
	sealed, err := ca.Seal(secret)
	if err != nil {
		return fmt.Errorf("form: %w", err)
	}
	for file, content := range map[string]any{
		authorityFile: authority{ca.Certificate(), sealed},
		keysFile:      firstKeys(),
	} {
		if err := writeJSON(filepath.Join(dir, file), content); err != nil {
			return fmt.Errorf("form: %w", err)
		}
	}
	if _, err := transport.FormIdentity(path, ca, node, secret, now); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	return nil
}

// belongs holds an identity against the ids that it should have; an empty one
// is not held against.
func belongs(id *transport.Identity, cluster, node string) error {
	switch {
	case cluster != "" && id.Cluster() != cluster:
		return fmt.Errorf("cluster %s, not %s: %w", id.Cluster(), cluster, ErrOtherCluster)
	case node != "" && id.Node() != node:
		return fmt.Errorf("node %s, not %s: %w", id.Node(), node, ErrOtherNode)
	}
	return nil
}

// HasIdentity reports whether Form or Join has ended in the dir.
func HasIdentity(dir string) (bool, error) {
	_, err := transport.LoadIdentity(filepath.Join(dir, identityFile), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
