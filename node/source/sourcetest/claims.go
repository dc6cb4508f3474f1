package sourcetest

import (
	"context"
	"errors"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// Claimer is what a driver has beside source.Table whose database records which
// cluster archives it, in which of its lives.
type Claimer interface {
	// ClaimCluster records it, or finds it recorded.
	ClaimCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error
	// CheckCluster is ClaimCluster that records nothing where nobody has.
	CheckCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error
}

// claim claims the source where the driver has claims.
func (tb *table) claim(t *testing.T, generation uint64) {
	t.Helper()
	if c, ok := tb.Table.(Claimer); ok {
		if err := c.ClaimCluster(t.Context(), cluster, generation); err != nil {
			t.Fatal(err)
		}
	}
}

func claims(t *testing.T, tb *table) {
	if tb.Again == nil {
		return
	}
	c := tb.Table.(Claimer)
	other := desformat.ClusterID{8}
	for _, s := range []struct {
		name       string
		claim      func(context.Context, desformat.ClusterID, uint64) error
		cluster    desformat.ClusterID
		generation uint64
		want       error
	}{
		{"only looked at", c.CheckCluster, cluster, 1, source.ErrUnclaimed},
		{"looked at again: the first look recorded nothing", c.CheckCluster, other, 1, source.ErrUnclaimed},
		{"claimed", c.ClaimCluster, cluster, 2, nil},
		{"claimed again", c.ClaimCluster, cluster, 2, nil},
		{"looked at", c.CheckCluster, cluster, 2, nil},
		{"another cluster", c.ClaimCluster, other, 2, source.ErrOtherCluster},
		{"another cluster of a later generation", c.ClaimCluster, other, 9, source.ErrOtherCluster},
		{"another cluster looks", c.CheckCluster, other, 9, source.ErrOtherCluster},
		{"an older generation", c.ClaimCluster, cluster, 1, source.ErrSuperseded},
		{"an older generation looks", c.CheckCluster, cluster, 1, source.ErrSuperseded},
		{"the next generation", c.ClaimCluster, cluster, 3, nil},
		{"the former", c.ClaimCluster, cluster, 2, source.ErrSuperseded},
		{"one that joins the one after it", c.CheckCluster, cluster, 4, nil},
		{"which is recorded", c.ClaimCluster, cluster, 3, source.ErrSuperseded},
		{"and goes on", c.ClaimCluster, cluster, 4, nil},
	} {
		if err := s.claim(t.Context(), s.cluster, s.generation); !errors.Is(err, s.want) || err != nil && s.want == nil {
			t.Errorf("%s: %v, want %v", s.name, err, s.want)
		}
	}
}

// fence: once a newer generation has claimed the source, nothing that an older
// one tries is written.
func fence(t *testing.T, tb *table) {
	if tb.Again == nil {
		return
	}
	tb.claim(t, 1)
	active, marked, packed := tb.add(t, "active")[0], tb.marked(t, "marked")[0], tb.packed(t, packOne, "packed", "claimed")
	if ok, err := tb.Claim(t.Context(), packed[1], claim); err != nil || !ok {
		t.Fatal(ok, err)
	}
	tb.Edit(t, active.ID, "file_id", nil)
	failed := tb.marked(t, "failed")[0]
	if _, err := tb.Attempt(t.Context(), failed, source.CodeReadError, "x", 1, markedAt); err != nil {
		t.Fatal(err)
	}
	rows := tb.again(t, []source.Row{active, marked, packed[0], packed[1], failed})
	active, claimed := rows[0], rows[3]
	active.DesName = active.Name

	newer := tb.Again(t)
	if err := newer.(Claimer).ClaimCluster(t.Context(), cluster, 2); err != nil {
		t.Fatal(err)
	}
	one := []source.Row{active}
	for name, try := range map[string]func(source.Table) error{
		"mark": func(s source.Table) error { _, err := s.Mark(t.Context(), one, marking); return err },
		"refuse": func(s source.Table) error {
			return s.Refuse(t.Context(), active, source.CodeInvalidName, "x", markedAt)
		},
		"attempt": func(s source.Table) error {
			_, err := s.Attempt(t.Context(), marked, "x", "x", 9, markedAt)
			return err
		},
		"acknowledge": func(s source.Table) error {
			_, err := s.Acknowledge(t.Context(), acks(packOne, rows[1:2]), 9, packedAt)
			return err
		},
		"claim":          func(s source.Table) error { _, err := s.Claim(t.Context(), packed[0], claim); return err },
		"unclaim":        func(s source.Table) error { return s.Unclaim(t.Context(), claimed, claim, "", "", packedAt) },
		"deleted":        func(s source.Table) error { _, err := s.Deleted(t.Context(), claimed, claim, packedAt); return err },
		"identify":       func(s source.Table) error { return s.Identify(t.Context(), rows[:1], []string{"1:9"}) },
		"forget missing": func(s source.Table) error { return s.ForgetMissing(t.Context()) },
		"forget files":   func(s source.Table) error { return s.ForgetFiles(t.Context()) },
		"retry":          func(s source.Table) error { _, err := s.Retry(t.Context(), source.Selection{}, markedAt); return err },
		"restore":        func(s source.Table) error { _, err := s.Restore(t.Context(), records(one)); return err },
		"register": func(s source.Table) error {
			_, err := s.Register(t.Context(), []source.File{file("active")})
			if errors.Is(err, errors.ErrUnsupported) {
				return source.ErrSuperseded
			}
			return err
		},
	} {
		if err := try(tb.Table); !errors.Is(err, source.ErrSuperseded) {
			t.Errorf("%s by the older generation: %v, want ErrSuperseded", name, err)
		}
	}
	for _, r := range rows {
		got, err := newer.ByID(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.State != r.State || got.Version != r.Version || got.Claim != r.Claim || got.Attempts != r.Attempts || got.FileID != r.FileID {
			t.Errorf("the older generation changed a row:\n got %+v\nwant %+v", got, r)
		}
	}
	if moved, err := newer.Mark(t.Context(), one, marking); err != nil || !moved[0] {
		t.Errorf("the newer generation: %v, %v", moved, err)
	}
}
