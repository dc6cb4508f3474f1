package rebuild

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// PlanSetting is the replicated setting that keeps the plan: what was asked for
// and what is behind us, so that any start goes on where this one was cut.
const PlanSetting = "rebuild/plan"

// Plan is what a rebuild was asked to do, and how far it has come.
type Plan struct {
	Base   string `json:"base,omitempty"`   // "": there is none
	Source bool   `json:"source,omitempty"` // the rows' state columns are written back

	BaseDone bool `json:"base_done,omitempty"` // the base is adopted and needed no more
	RowsDone bool `json:"rows_done,omitempty"` // of every pack that was known when it was set
	// Dead is what the base says about objects that it does not name.
	Dead *deadTokens `json:"dead,omitempty"`
}

// PlanOf returns the plan of the rebuild that began the view's generation;
// false: none has begun.
func PlanOf(v *raftmeta.View) (p Plan, begun bool, err error) {
	_, _, begun = v.Setting(PlanSetting)
	p, _, err = planOf(v)
	return p, begun, err
}

func planOf(v *raftmeta.View) (p Plan, modIndex uint64, err error) {
	b, modIndex, ok := v.Setting(PlanSetting)
	if !ok {
		return Plan{}, 0, nil
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return Plan{}, 0, fmt.Errorf("setting %s: %w", PlanSetting, err)
	}
	return p, modIndex, nil
}

// deadTokens are those under which the base knows objects that are no packs, and
// never were: announced, their leases over, not committed. Of an object that it
// does not know it says nothing, even if the token is behind it: its state may
// have been put back, or the object was away while its own life began.
type deadTokens struct {
	Garbage []desformat.Token `json:"garbage,omitempty"`
}

// deadOf returns what base says of tokens; nil: nothing that counts. A life
// between base's and ours may have adopted, acknowledged and relied on a pack
// that was dead in base's.
func deadOf(base *raftmeta.View, generation uint64) *deadTokens {
	if base.Generation()+1 != generation {
		return nil
	}
	d := &deadTokens{}
	for _, u := range base.Uploads() {
		if base.Garbage(u) {
			d.Garbage = append(d.Garbage, u.Token)
		}
	}
	return d
}

// has reports whether an object under token t is no pack.
func (d *deadTokens) has(t desformat.Token) bool {
	return d != nil && slices.Contains(d.Garbage, t)
}

// begin returns the plan, made and stored now when there is none yet.
func (r *Rebuild) begin(ctx context.Context, v *raftmeta.View) (Plan, error) {
	p, modIndex, err := planOf(v)
	if err != nil {
		return Plan{}, err
	}
	asked := Plan{Base: r.cfg.Base, Source: r.cfg.Source}
	switch {
	case modIndex == 0:
		p = asked
	case asked.Base != "" && asked.Base != p.Base:
		return Plan{}, fmt.Errorf("from %s, not from %s: %w", orNothing(p.Base), asked.Base, ErrPlan)
	case asked.Source && !p.Source:
		p.Source = true
	default:
		return p, nil
	}
	return p, r.save(ctx, p)
}

func orNothing(base string) string {
	if base == "" {
		return "the packs alone"
	}
	return base
}

// save stores the plan. Only the holder of the lease does.
func (r *Rebuild) save(ctx context.Context, p Plan) error {
	v, err := r.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return err
	}
	_, modIndex, err := planOf(v)
	if err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := r.cfg.Commands.Set(ctx, PlanSetting, b, modIndex); err != nil {
		return fmt.Errorf("setting %s: %w", PlanSetting, err)
	}
	return nil
}

// adoptBase takes over what the base says. It is repeated whole when cut.
func (r *Rebuild) adoptBase(ctx context.Context, p *Plan) error {
	r.progress.enter(PhaseBase)
	base, err := r.cfg.OpenBase(ctx, p.Base)
	if err != nil {
		return fmt.Errorf("base %s: %w", p.Base, err)
	}
	v := r.cfg.Manifest.View()
	switch {
	case base.Cluster() != v.Cluster():
		return fmt.Errorf("base %s: it is of cluster %s: %w", p.Base, base.Cluster(), ErrBase)
	case base.Generation() >= v.Generation():
		return fmt.Errorf("base %s: it is of generation %d, this life is %d: %w", p.Base, base.Generation(), v.Generation(), ErrBase)
	}
	p.Dead = deadOf(base, v.Generation())
	var adoption raftmeta.Adoption
	for _, u := range base.Uploads() {
		if p.Dead.has(u.Token) { // others may have been committed since: what is there tells
			adoption.Uploads = append(adoption.Uploads, u)
		}
	}
	for pack := range base.Packs() {
		adoption.Packs = append(adoption.Packs, fromBase(pack, p.Dead != nil))
	}
	slices.SortFunc(adoption.Packs, func(a, b raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) }) // reads go on meanwhile
	if err := r.cfg.Commands.Adopt(ctx, adoption); err != nil {
		return fmt.Errorf("base %s: %w", p.Base, err)
	}
	r.progress.add(func(s *Progress) { s.FromBase = len(adoption.Packs); s.Uploads += len(adoption.Uploads) })
	if err := r.restoreSettings(ctx, base); err != nil {
		return fmt.Errorf("base %s: %w", p.Base, err)
	}
	p.BaseDone = true
	r.log.InfoContext(ctx, "base adopted", "base", p.Base, "generation", base.Generation(), "applied", base.Applied(),
		"packs", len(adoption.Packs), "uploads", len(adoption.Uploads))
	return r.save(ctx, *p)
}

// fromBase returns the entry to adopt. Dead records are believed only when the
// base is of the life right before ours: another one between may have judged
// the pack anew, and relied on a record that was dead before.
func fromBase(p *raftmeta.Pack, believed bool) raftmeta.Pack {
	out := *p
	if !believed && len(out.Dead) > 0 {
		out.Acknowledged, out.Dead = false, nil
	}
	return out
}

// restoreSettings takes over the base's settings that this life has no word on.
func (r *Rebuild) restoreSettings(ctx context.Context, base *raftmeta.View) error {
	for key, value := range base.Settings("") {
		if strings.HasPrefix(key, "rebuild") || !r.cfg.RestoreSetting(key) { // how the base's own life began
			continue
		}
		if _, _, known := r.cfg.Manifest.View().Setting(key); known {
			continue
		}
		err := r.cfg.Commands.Set(ctx, key, value, 0)
		if err != nil && !errors.Is(err, raftmeta.ErrConflict) { // somebody has set it meanwhile
			return fmt.Errorf("setting %s: %w", key, err)
		}
	}
	return nil
}
