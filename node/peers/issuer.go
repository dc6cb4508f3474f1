package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

// issuer lets nodes in and signs their certificates. Every member can: the
// state machine has the CA's key, and each member the secret that opens it.
type issuer struct{ p *Peers }

// Verifier implements transport.Issuer. The state is confirmed, since a token
// may be seconds old and a revoked one must not be taken.
func (i issuer) Verifier(ctx context.Context, id transport.TokenID) (v transport.Verifier, err error) {
	view, err := i.p.meta.Confirm(ctx)
	if err != nil {
		return v, err
	}
	token, ok := view.Token(id.String())
	if !ok || len(token.Verifier) != len(v) {
		return v, transport.ErrToken
	}
	copy(v[:], token.Verifier)
	return v, nil
}

// Redeem implements transport.Issuer. The node is a member before it gets its
// certificate, so nobody meets a certificate of a node that never was one.
func (i issuer) Redeem(ctx context.Context, r transport.Redemption) (*transport.Admission, error) {
	a, err := i.redeem(ctx, r)
	if err != nil {
		i.p.metrics.tokens.WithLabelValues(resultError).Inc()
		i.p.log.WarnContext(ctx, "a node was not let in", "joiner", r.Node, "remote", r.Remote, "token", r.Token.String(), "error", err.Error())
		return nil, err
	}
	i.p.metrics.tokens.WithLabelValues(resultOK).Inc()
	i.p.log.InfoContext(ctx, "a node joins", "joiner", r.Node, "remote", r.Remote, "token", r.Token.String())
	return a, nil
}

func (i issuer) redeem(ctx context.Context, r transport.Redemption) (*transport.Admission, error) {
	p := i.p
	ca, err := p.authority() // first: without it a use of the token would be lost
	if err != nil {
		return nil, err
	}
	err = p.meta.Redeem(ctx, r.Token.String(), raftmeta.Member{ID: raftmeta.NodeID(r.Node)}, p.cfg.Now())
	if err != nil {
		return nil, asTransport(err)
	}
	der, err := ca.Issue(r.CSR, r.Node, p.cfg.Now())
	if err != nil {
		return nil, err
	}
	p.metrics.certificates.WithLabelValues("joiner").Inc()
	settings, err := p.cfg.Settings()
	if err != nil {
		return nil, fmt.Errorf("what a joiner is told: %w", err)
	}
	keys := *p.keys.Load()
	told, err := json.Marshal(letter{Settings: settings, Keys: keys, Places: p.book.places()})
	if err != nil {
		return nil, err
	}
	return &transport.Admission{
		Cluster: p.id.Cluster(), Certificate: der, CA: ca.Certificate(), Secret: p.id.Secret(),
		GossipKeys: keys.Keys, Settings: told,
	}, nil
}

// asTransport puts the state machine's refusals into transport's words, which
// the joiner is told.
func asTransport(err error) error {
	for _, k := range []struct{ from, to error }{
		{raftmeta.ErrNoToken, transport.ErrToken},
		{raftmeta.ErrTokenExpired, transport.ErrTokenExpired},
		{raftmeta.ErrTokenUsed, transport.ErrTokenUsed},
		{raftmeta.ErrConflict, transport.ErrAlreadyMember},
		{raftmeta.ErrRemoved, transport.ErrNotMember},
	} {
		if errors.Is(err, k.from) {
			return fmt.Errorf("%w: %w", k.to, err)
		}
	}
	return err
}

// Renew implements transport.Issuer.
func (i issuer) Renew(ctx context.Context, node string, csr []byte) ([]byte, error) {
	der, err := i.p.issue(ctx, node, csr)
	if err == nil {
		i.p.metrics.certificates.WithLabelValues("member").Inc()
		i.p.log.InfoContext(ctx, "a member's certificate is renewed", "member", node)
	}
	return der, err
}

// issue signs a member's certificate request.
func (p *Peers) issue(ctx context.Context, node string, csr []byte) ([]byte, error) {
	v, err := p.meta.Confirm(ctx)
	if err != nil {
		return nil, err
	}
	if _, member := v.Member(raftmeta.NodeID(node)); !member {
		return nil, transport.ErrNotMember
	}
	ca, err := p.authority()
	if err != nil {
		return nil, err
	}
	return ca.Issue(csr, node, p.cfg.Now())
}

// authority opens the CA as the state machine holds it: ErrNoAuthority.
func (p *Peers) authority() (*transport.Authority, error) {
	b, _, ok := p.meta.View().Setting(authoritySetting)
	if !ok {
		return nil, ErrNoAuthority
	}
	var a authority
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("setting %s: %w: %w", authoritySetting, ErrMalformed, err)
	}
	return p.open(a)
}

func (p *Peers) open(a authority) (*transport.Authority, error) {
	return transport.OpenAuthority(p.id.Cluster(), a.CA, a.Sealed, p.id.Secret())
}

// keepAuthority keeps a copy of the CA in the dir, for the day on which all
// certificates have expired and no state machine has a leader.
func (p *Peers) keepAuthority(v *raftmeta.View) error {
	b, _, ok := v.Setting(authoritySetting)
	if !ok {
		return nil
	}
	var kept, a authority
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("setting %s: %w: %w", authoritySetting, ErrMalformed, err)
	}
	err := missingIsNil(readJSON(p.path(authorityFile), &kept))
	if err == nil && bytes.Equal(kept.CA, a.CA) && bytes.Equal(kept.Sealed, a.Sealed) {
		return nil
	}
	return writeJSON(p.path(authorityFile), a)
}

// keepCertificate renews this node's certificate when its time has come.
func (p *Peers) keepCertificate(ctx context.Context) error {
	p.id.Keep(ctx, p.log, p.askCertificate)
	return nil
}

// askCertificate gets this node's next certificate: signed here, if a quorum
// confirms that it is a member; else by whichever member answers, since this
// node's own certificate may be what keeps the quorum from answering. When all
// certificates have expired, nobody's word can be had, and what the node keeps
// itself must do; the others still judge by its membership.
func (p *Peers) askCertificate(ctx context.Context, csr []byte) ([]byte, error) {
	self := p.id.Node()
	limited, cancel := context.WithTimeout(ctx, confirmTime)
	der, err := p.issue(limited, self, csr)
	cancel()
	if err == nil {
		p.metrics.certificates.WithLabelValues("itself").Inc()
		return der, nil
	}
	if errors.Is(err, transport.ErrNotMember) {
		return nil, err
	}
	errs := []error{err}
	for _, at := range p.book.places() {
		if at.Node == self {
			continue
		}
		der, err := p.endpoint.Renew(ctx, at.Node, at.Cluster, csr)
		if err == nil {
			return der, nil
		}
		errs = append(errs, err)
	}
	if p.removed(self) || p.cfg.Now().Before(p.id.Expires()) {
		return nil, errors.Join(errs...)
	}
	var kept authority
	if err := readJSON(p.path(authorityFile), &kept); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	ca, err := p.open(kept)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	p.log.WarnContext(ctx, "this node's certificate had expired and nobody could be asked: it has signed a new one itself")
	p.metrics.certificates.WithLabelValues("itself").Inc()
	return ca.Issue(csr, self, p.cfg.Now())
}

// confirmTime bounds how long a renewal waits for a quorum before it asks
// members one by one.
const confirmTime = 10 * time.Second

// CreateToken makes a join token that is good for ttl and for so many nodes;
// uses 0: no bound. It is known to the cluster, durably, on return.
func (p *Peers) CreateToken(ctx context.Context, ttl time.Duration, uses uint16) (transport.Token, error) {
	token := transport.NewToken(p.id.Pin(), p.cfg.Now().Add(ttl).Truncate(time.Second), uses)
	verifier, err := token.Verifier()
	if err != nil {
		return transport.Token{}, err
	}
	err = p.meta.PutToken(ctx, raftmeta.JoinToken{ID: token.ID.String(), Verifier: verifier[:], Expires: token.Expires, Uses: uses})
	if err != nil {
		return transport.Token{}, fmt.Errorf("create a join token: %w", err)
	}
	return token, nil
}
