package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/datavision/desnode/transport"
)

// JoinRequest says how a node joins.
type JoinRequest struct {
	Dir     string             // as Config.Dir; made when missing
	Addr    string             // host:port, a member's cluster address
	Token   string             // text of a join token
	Node    string             // this node's id, a UUID; the same when a join is repeated
	Network *transport.Network // nil: the machine's
	Now     func() time.Time   // nil: time.Now
}

// Admitted is what a new member is told.
type Admitted struct {
	Cluster  string // the cluster's id
	Settings []byte // what the answering node's Config.Settings returned
	Already  bool   // the dir was in this cluster before: nobody was asked
}

// letter is what the settings of an admission hold on the wire: JSON.
type letter struct {
	Settings []byte  `json:"settings"`
	Keys     keyset  `json:"keys"`
	Places   []place `json:"places"` // of the members
}

// joined is what Join leaves for its repetition.
type joined struct {
	Cluster  string `json:"cluster"`
	Settings []byte `json:"settings"`
}

// Join makes the node a member: everything it needs is durable when it returns
// nil, the identity last. A Join that was cut is repeated with the same token
// and node and takes no second use. On a dir that is in the token's cluster
// already it asks nobody. Errors: ErrOtherCluster, ErrOtherNode, and those of
// transport.Join.
func Join(ctx context.Context, r JoinRequest) (*Admitted, error) {
	if r.Now == nil {
		r.Now = time.Now
	}
	token, err := transport.ParseToken(r.Token)
	if err != nil {
		return nil, err
	}
	if err := makeDir(r.Dir); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	already, err := r.already(token)
	if err != nil || already != nil {
		return already, err
	}
	id, admission, err := transport.Join(ctx, transport.Joining{
		Addr: r.Addr, Token: token, Node: r.Node, Path: filepath.Join(r.Dir, joiningFile), Network: r.Network, Now: r.Now,
	})
	if err != nil {
		return nil, err
	}
	var l letter
	if err := json.Unmarshal(admission.Settings, &l); err != nil {
		return nil, fmt.Errorf("join: the admission: %w: %w", ErrMalformed, err)
	}
	if _, err := l.Keys.keys(); err != nil {
		return nil, fmt.Errorf("join: the admission: %w", err)
	}
	for file, content := range map[string]any{
		keysFile:      l.Keys,
		addressesFile: newBook(l.Places).file(),
		joinedFile:    joined{id.Cluster(), l.Settings},
	} {
		if err := writeJSON(filepath.Join(r.Dir, file), content); err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
	}
	if err := renameDurably(filepath.Join(r.Dir, joiningFile), filepath.Join(r.Dir, identityFile)); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return &Admitted{Cluster: id.Cluster(), Settings: l.Settings}, nil
}

// already answers for a dir that has an identity; nil: it has none.
func (r *JoinRequest) already(token transport.Token) (*Admitted, error) {
	id, err := transport.LoadIdentity(filepath.Join(r.Dir, identityFile), r.Now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // neither an answer nor an error: the join has yet to be made
	}
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if id.Pin() != token.Pin {
		return nil, fmt.Errorf("join: the dir is in cluster %s, the token is not of it: %w", id.Cluster(), ErrOtherCluster)
	}
	if err := belongs(id, "", r.Node); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	var j joined
	if err := readJSON(filepath.Join(r.Dir, joinedFile), &j); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("join: %w", err)
	}
	return &Admitted{Cluster: id.Cluster(), Settings: j.Settings, Already: true}, nil
}
