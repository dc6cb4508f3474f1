package source_test

import (
	"errors"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// Each node opens the roles of its own work. With these alone, each the least
// privileged user, three nodes take a file through its life.
func TestEachKindOfWorkNeedsItsOwnRolesOnly(t *testing.T) {
	for _, shape := range []pgShape{shapes()[0], sideShapes()[0]} {
		t.Run(shape.name, func(t *testing.T) {
			w := newWorld(t, shape)
			w.insert(t, numberedFiles(3)...)
			with := func(roles ...source.Role) *source.Postgres {
				return w.open(t, func(c *source.PostgresConfig) {
					c.Roles = append([]source.Role{source.RoleReader}, roles...)
				})
			}
			marks, packs := with(source.RoleMarker), with(source.RolePacker)
			keeps := with(source.RolePacker, source.RoleDeleter)
			now := time.Unix(2e9, 0)

			eligible, err := marks.Eligible(t.Context(), now, "", 10)
			if err != nil || len(eligible) != 3 {
				t.Fatalf("%d eligible, %v", len(eligible), err)
			}
			for i := range eligible {
				eligible[i].DesName = eligible[i].Name
			}
			if err := marks.Refuse(t.Context(), eligible[2], source.CodeInvalidPath, "no", now); err != nil {
				t.Errorf("the marker refuses an ACTIVE row: %v", err)
			}
			if _, err := marks.Mark(t.Context(), eligible[:2], source.Marking{At: now, ShardBits: 10}); err != nil {
				t.Fatal(err)
			}
			for name, p := range map[string]*source.Postgres{"marker": marks, "packer": packs} {
				if b, err := p.Backlog(t.Context(), 0, source.Due{Now: now}); err != nil || len(b) != 1 || b[0].Rows != 2 {
					t.Errorf("the %s counts the backlog: %+v, %v", name, b, err)
				}
			}

			marked := allMarked(t, packs)
			if err := packs.Refuse(t.Context(), marked[0], source.CodeDuplicateName, "taken", now); err != nil {
				t.Errorf("the packer refuses a MARKED row: %v", err)
			}
			if r, err := packs.ByID(t.Context(), marked[0].ID); err != nil || r.State != source.Failed || r.ErrorCode != source.CodeDuplicateName || r.MarkedAt.IsZero() {
				t.Errorf("it is %+v, %v", r, err)
			}
			pack := desformat.PackID{1}
			for name, p := range map[string]*source.Postgres{"packer": packs, "keeper": keeps} {
				if got, err := p.Acknowledge(t.Context(), acksOf(marked[1:], pack), 5, now); err != nil || got[0] != source.AckDone {
					t.Errorf("the %s acknowledges: %v, %v", name, got, err)
				}
			}

			due, err := keeps.Deletable(t.Context(), pack, now.Add(time.Hour), "", 10)
			if err != nil || len(due) != 1 {
				t.Fatalf("%d rows to delete, %v", len(due), err)
			}
			if ok, err := keeps.Claim(t.Context(), due[0], "claim"); !ok || err != nil {
				t.Errorf("claim: %v, %v", ok, err)
			}
			if ok, err := keeps.Deleted(t.Context(), due[0], "claim", now); !ok || err != nil {
				t.Errorf("deleted: %v, %v", ok, err)
			}

			_, errMark := packs.Eligible(t.Context(), now, "", 1)
			_, errPack := marks.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, 1)
			_, errKeep := packs.Deletable(t.Context(), pack, now, "", 1)
			for work, err := range map[string]error{"mark": errMark, "pack": errPack, "keep": errKeep} {
				if !errors.Is(err, source.ErrRoleClosed) {
					t.Errorf("another node's %s: %v, want ErrRoleClosed", work, err)
				}
			}
		})
	}
}
