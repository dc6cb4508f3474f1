package raftmeta

import (
	"bytes"
	"fmt"

	"github.com/datavision/desnode/desformat"
)

const (
	kindForm   = "form"
	kindMember = "put-member"
	kindSet    = "set"
)

// formCommand gives an empty state its cluster.
type formCommand struct {
	Cluster    desformat.ClusterID `json:"cluster"`
	ShardBits  uint8               `json:"shard_bits"`
	Generation uint64              `json:"generation"`
}

func (*formCommand) kind() string { return kindForm }

func (c *formCommand) apply(s *state, _ uint64) (any, error) {
	if s.shardBits != 0 {
		if s.cluster != c.Cluster || s.shardBits != c.ShardBits || s.generation != c.Generation {
			return nil, fmt.Errorf("form cluster %s: already cluster %s, generation %d, %d shard bits: %w",
				c.Cluster, s.cluster, s.generation, s.shardBits, ErrConflict)
		}
		return nil, nil
	}
	if c.ShardBits < minShardBits || c.ShardBits > maxShardBits || c.Generation == 0 {
		return nil, fmt.Errorf("form cluster: %d shard bits, generation %d: %w", c.ShardBits, c.Generation, ErrInvalid)
	}
	s.cluster, s.shardBits, s.generation = c.Cluster, c.ShardBits, c.Generation
	return nil, nil
}

// memberCommand adds a member or raises what is known of it as applied.
type memberCommand struct {
	Member Member `json:"member"`
}

func (*memberCommand) kind() string { return kindMember }

func (c *memberCommand) apply(s *state, index uint64) (any, error) {
	if err := s.admit(c.Member, index); err != nil {
		return nil, fmt.Errorf("put member: %w", err)
	}
	m, _ := s.members.get(string(c.Member.ID))
	m.Applied = max(m.Applied, c.Member.Applied) // a late report takes nothing back
	s.members = s.members.set(string(m.ID), m)
	return nil, nil
}

// setCommand changes a setting whose ModIndex is still IfModIndex; 0: which
// does not exist. A nil Value deletes it.
type setCommand struct {
	Key        string `json:"key"`
	Value      []byte `json:"value"`
	IfModIndex uint64 `json:"if_mod_index"`
}

func (*setCommand) kind() string { return kindSet }

func (c *setCommand) apply(s *state, index uint64) (any, error) {
	if c.Key == "" {
		return nil, fmt.Errorf("set: empty key: %w", ErrInvalid)
	}
	old, exists := s.settings.get(c.Key)
	repeated := exists && old.Before == c.IfModIndex && bytes.Equal(old.Value, c.Value) && c.Value != nil
	if repeated || !exists && c.Value == nil {
		return nil, nil
	}
	if old.ModIndex != c.IfModIndex {
		return nil, fmt.Errorf("set %q: changed at %d, not at %d: %w", c.Key, old.ModIndex, c.IfModIndex, ErrConflict)
	}
	if c.Value == nil {
		s.settings = s.settings.delete(c.Key)
		return nil, nil
	}
	s.settings = s.settings.set(c.Key, setting{Value: c.Value, ModIndex: index, Before: c.IfModIndex})
	return nil, nil
}
