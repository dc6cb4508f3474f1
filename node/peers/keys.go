package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

// loadKeys reads the keys that this node used last.
func (p *Peers) loadKeys() error {
	var s keyset
	if err := readJSON(p.path(keysFile), &s); err != nil {
		return fmt.Errorf("gossip keys: %w", err)
	}
	ring, err := newKeyRing(s)
	if err != nil {
		return err
	}
	p.ring = ring
	p.keys.Store(&s)
	p.metrics.keysVersion.Set(float64(s.Version))
	return nil
}

// adopt uses newer keys than this node has; older ones change nothing. They are
// put on disk first, so that a restart without a quorum finds them. A disk that
// refuses does not keep the node from understanding the others: restarted, it
// would ask them for the keys.
func (p *Peers) adopt(s keyset) error {
	p.keysMu.Lock()
	defer p.keysMu.Unlock()
	if s.Version <= p.keys.Load().Version {
		return nil
	}
	want, err := s.keys()
	if err != nil {
		return err
	}
	if err := writeJSON(p.path(keysFile), s); err != nil {
		p.log.Error("the gossip keys are not kept in the data dir", "version", s.Version, "error", err.Error())
	}
	if err := turn(p.ring, want); err != nil {
		return fmt.Errorf("use the gossip keys: %w", err)
	}
	p.keys.Store(&s)
	p.metrics.keysVersion.Set(float64(s.Version))
	p.log.Info("gossip keys change", "version", s.Version, "phase", string(s.Phase))
	p.gossip.Rejoin() // whoever did not understand this node may now
	return nil
}

// adoptSetting uses the keys of the state machine when they are newer.
func (p *Peers) adoptSetting(v *raftmeta.View) error {
	s, _, ok, err := p.keysOf(v)
	if err != nil || !ok {
		return err
	}
	return p.adopt(s)
}

// keysOf reads the keys of the state machine.
func (p *Peers) keysOf(v *raftmeta.View) (s keyset, modIndex uint64, ok bool, err error) {
	sealed, modIndex, ok := v.Setting(keysSetting)
	if !ok {
		return s, 0, false, nil
	}
	s, err = openKeys(p.id.Secret(), p.id.Cluster(), sealed)
	return s, modIndex, true, err
}

// Rotation says how far a rotation of the gossip key is.
type Rotation struct {
	Phase string // adding, using, removing
	Done  int    // living members that do what the phase asks for
	Of    int    // living members
}

// rotationPoll is how often members are asked whether they have followed.
const rotationPoll = 500 * time.Millisecond

// RotateGossipKey has all members read a new key, then send with it, then
// forget the old one. Between the phases it waits for every member that is
// alive; whoever is away fetches the keys when it returns. One that was cut, by
// whatever, goes on where it was when it is called again. progress is called
// from this goroutine.
func (p *Peers) RotateGossipKey(ctx context.Context, progress func(Rotation)) error {
	v, err := p.meta.Confirm(ctx)
	if err != nil {
		return fmt.Errorf("rotate the gossip key: %w", err)
	}
	s, _, ok, err := p.keysOf(v)
	if err == nil && !ok {
		err = ErrNoAuthority
	}
	if err != nil {
		return fmt.Errorf("rotate the gossip key: %w", err)
	}
	rotation := s.Rotation
	if s.Phase == phaseSteady {
		rotation = uuid.NewString()
	}
	for _, step := range []struct {
		name string
		from phase
		next func(s keyset) keyset
	}{
		{"adding", phaseSteady, func(s keyset) keyset { s.Phase, s.Keys = phaseAdding, [][]byte{s.Keys[0], newKey()}; return s }},
		{"using", phaseAdding, func(s keyset) keyset { s.Phase, s.Keys = phaseUsing, [][]byte{s.Keys[1], s.Keys[0]}; return s }},
		{"removing", phaseUsing, func(s keyset) keyset { s.Phase, s.Keys = phaseSteady, s.Keys[:1]; return s }},
	} {
		version, err := p.step(ctx, rotation, step.from, step.next)
		if err == nil {
			err = p.awaitKeys(ctx, version, step.name, progress)
		}
		if err != nil {
			return fmt.Errorf("rotate the gossip key, %s: %w", step.name, err)
		}
	}
	return nil
}

// errRotation: somebody else has taken another step meanwhile.
var errRotation = errors.New("another rotation is under way; repeat it")

// step takes one step of a rotation, unless it has been taken, and returns the
// version that members must have at least.
func (p *Peers) step(ctx context.Context, rotation string, from phase, next func(keyset) keyset) (version uint64, err error) {
	for {
		s, modIndex, ok, err := p.keysOf(p.meta.View())
		switch {
		case err != nil:
			return 0, err
		case !ok:
			return 0, ErrNoAuthority
		case s.Phase != from && s.Rotation == rotation:
			return s.Version, nil // this step is behind it
		case s.Phase != from || from != phaseSteady && s.Rotation != rotation:
			return 0, errRotation
		case from == phaseSteady && s.Rotation == rotation:
			return s.Version, nil // all of it is done
		}
		n := next(s)
		n.Version, n.Rotation = s.Version+1, rotation
		sealed, err := n.seal(p.id.Secret(), p.id.Cluster())
		if err != nil {
			return 0, err
		}
		err = p.meta.Set(ctx, keysSetting, sealed, modIndex)
		if err == nil {
			return n.Version, p.adopt(n)
		}
		if !errors.Is(err, raftmeta.ErrConflict) {
			return 0, err
		}
		if _, err := p.meta.Confirm(ctx); err != nil { // so that what was in the way is seen here
			return 0, err
		}
	}
}

// awaitKeys waits until every living member uses that version of the keys.
func (p *Peers) awaitKeys(ctx context.Context, version uint64, name string, progress func(Rotation)) error {
	done := map[string]bool{p.id.Node(): true}
	told := Rotation{}
	for {
		r := Rotation{Phase: name}
		for _, m := range p.View().Members() {
			node := string(m.ID)
			if !done[node] {
				w, err := p.greetNode(ctx, node)
				if err != nil {
					p.log.DebugContext(ctx, "a member was not asked for its keys", "member", node, "error", err.Error())
				}
				done[node] = err == nil && w.Keys >= version
			}
			r.Of++
			if done[node] {
				r.Done++
			}
		}
		if r != told {
			progress(r)
			told = r
		}
		if r.Done == r.Of {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(rotationPoll):
		}
	}
}

// settle writes what the founder's dir holds into the state machine, as long as
// that lacks it: the CA and the gossip keys. Then it tells the state machine what
// this node is like, and ends. ErrOtherCA.
func (p *Peers) settle(ctx context.Context) error {
	for {
		changed := p.meta.Changed()
		done, err := p.settleOnce(ctx)
		switch {
		case done, ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrOtherCA):
			return err
		case err != nil:
			p.log.WarnContext(ctx, "the cluster does not know all of this node yet", "error", err.Error())
			changed = nil
		}
		wait := time.NewTimer(settlePause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-wait.C:
		}
		wait.Stop()
	}
}

// settlePause is how long after a failure it is tried again.
const settlePause = 5 * time.Second

func (p *Peers) settleOnce(ctx context.Context) (done bool, err error) {
	v := p.meta.View()
	if _, member := v.Member(p.Node()); !member { // the cluster is not formed, or its state not read yet
		return false, nil
	}
	if _, _, ok := v.Setting(authoritySetting); !ok {
		return false, p.setOnce(ctx, authoritySetting, p.authorityOfDir)
	}
	if err := p.checkAuthority(); err != nil {
		return false, err
	}
	if _, _, ok := v.Setting(keysSetting); !ok {
		return false, p.setOnce(ctx, keysSetting, func() ([]byte, error) {
			return p.keys.Load().seal(p.id.Secret(), p.id.Cluster())
		})
	}
	// Announce looks before it writes; what it looks at must not be from before
	// this node's last move.
	if _, err := p.meta.Confirm(ctx); err != nil {
		return false, err
	}
	self, _, _ := p.book.own()
	err = p.meta.Announce(ctx, raftmeta.Member{
		ID: p.Node(), Zone: p.cfg.Zone, Version: p.cfg.Version, HTTP: p.cfg.HTTP, Cluster: self.Cluster, Work: p.cfg.Work,
	})
	return err == nil, err
}

// setOnce creates a setting that a confirmed state lacks.
func (p *Peers) setOnce(ctx context.Context, key string, value func() ([]byte, error)) error {
	v, err := p.meta.Confirm(ctx)
	if err != nil {
		return err
	}
	if _, _, ok := v.Setting(key); ok {
		return nil
	}
	b, err := value()
	if err == nil && b != nil {
		err = p.meta.Set(ctx, key, b, 0)
	}
	if errors.Is(err, raftmeta.ErrConflict) {
		return nil // another member was faster
	}
	return err
}

// authorityOfDir returns the CA as Form left it; nil: another node has it.
func (p *Peers) authorityOfDir() ([]byte, error) {
	var a authority
	if err := readJSON(p.path(authorityFile), &a); err != nil {
		return nil, missingIsNil(err)
	}
	if _, err := transport.OpenAuthority(p.id.Cluster(), a.CA, a.Sealed, p.id.Secret()); err != nil {
		return nil, fmt.Errorf("the CA in the data dir: %w", err)
	}
	return json.Marshal(a)
}

// checkAuthority holds this node's identity against the cluster's CA.
func (p *Peers) checkAuthority() error {
	ca, err := p.authority()
	if errors.Is(err, transport.ErrSealed) {
		return fmt.Errorf("%w: %w", ErrOtherCA, err)
	}
	if err != nil {
		return err
	}
	if ca.Pin() != p.id.Pin() {
		return ErrOtherCA
	}
	return nil
}
