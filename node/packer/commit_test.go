package packer

import (
	"context"
	"errors"
	"testing"

	"github.com/datavision/desnode/node/store"
)

// tampered is a store that describes objects otherwise than they were sent.
type tampered struct {
	Store
	change func(*store.Object)
}

func (t tampered) Head(ctx context.Context, key, version string) (store.Object, error) {
	o, err := t.Store.Head(ctx, key, version)
	t.change(&o)
	return o, err
}

func TestObjectThatDiffersIsNotCommitted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*store.Object)
	}{
		{"another size", func(o *store.Object) { o.Size-- }},
		{"another version", func(o *store.Object) { o.Version += "x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			files := w.add(3, small)
			p := w.packer(func(c *Config) { c.Store = tampered{c.Store, tt.change} })
			if _, err := p.Once(t.Context(), true); !errors.Is(err, ErrMismatch) {
				t.Errorf("error %v", err)
			}
			if len(w.packs) != 0 || len(w.uploads) != 1 {
				t.Errorf("%d packs, %d announced uploads", len(w.packs), len(w.uploads))
			}
			w.drain(w.packer())
			w.check(files)
		})
	}
}
