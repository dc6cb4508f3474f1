package keeper

import (
	"context"
	"errors"
	"testing"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

func TestDeletionRefusesAnUnsafeStore(t *testing.T) {
	w := newWorld(t)
	base := Config{
		Manifest: w.meta, Commands: w.meta, Store: w.folder, Dir: w.mkdir("data"), DeleteSource: true,
	}
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want error
	}{
		{"a folder of its own", func(*Config) {}, nil},
		{"the default folder", func(c *Config) { c.DefaultStore = true }, ErrUnsafeStore},
		{"a store that may replace", func(c *Config) { c.Store = replacing{w.folder} }, ErrUnsafeStore},
		{"the default folder without deletion", func(c *Config) { c.DefaultStore, c.DeleteSource = true, false }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := base
			tc.edit(&cfg)
			k, err := New(cfg)
			if err == nil {
				err = errors.Join(k.CheckStore(t.Context()), k.Close())
			}
			if !errors.Is(err, tc.want) {
				t.Fatalf("New and CheckStore = %v, want %v", err, tc.want)
			}
		})
	}
}

// A store that does not say at first whether it could replace an object keeps
// every original, and is asked again: nothing has to be started anew.
func TestDeletionWaitsForTheStoresAnswer(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	silent := &silentStore{Store: w.folder}
	k := w.keeper(func(c *Config) { c.Store = silent })
	if err := k.Once(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Once = %v, want the store's trouble", err)
	}
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	if err := k.Problem(); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("problem: %v", err)
	}
	silent.known = true
	if err := k.Once(t.Context()); !errors.Is(err, ErrUnsafeStore) {
		t.Errorf("Once over a store that replaces = %v", err)
	}
	w.wantFile(w.path("a"), "content of a")
	silent.held = true
	w.check(k.Once(t.Context()))
	w.wantFile(w.path("a"), "")
	w.wantRow("a", source.DeletedSource, "")
	if err := k.Problem(); err != nil {
		t.Errorf("problem: %v", err)
	}
}

// silentStore is one that says later whether it creates on condition.
type silentStore struct {
	store.Store
	known, held bool
}

func (s *silentStore) ConditionalCreate(context.Context) (bool, error) {
	if !s.known {
		return false, store.ErrUnavailable
	}
	return s.held, nil
}

type replacing struct{ store.Store }

func (replacing) ConditionalCreate(context.Context) (bool, error) { return false, nil }
