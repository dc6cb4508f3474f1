// Package peers knows who the other nodes of the cluster are, where they are
// and how they are let in. It joins transport, ring/gossip and, by the interface
// Meta, the state machine.
//
// Not for: what the state machine agrees on (raftmeta), bytes and keys on the
// wire (transport), rumours (ring/gossip), which node answers a read
// (node/router).
//
// # How it is used
//
//	err := peers.Form(dir, cluster, node, nil)       // a cluster of one: or
//	admitted, err := peers.Join(ctx, peers.JoinRequest{…})
//
//	p, err := peers.Open(peers.Config{Dir: dir, …})  // sockets are bound, nothing runs
//	meta, err := raftmeta.Open(ctx, raftmeta.Config{Transport: p.RaftTransport(), Peers: p, …})
//	p.SetMeta(meta)
//	p.SetReader(router)
//	err = p.Run(ctx)                                 // ends after meta.Run has ended
//	err = p.Close()                                  // also when Run was never called
//
// # Files
//
// In Config.Dir, each replaced as a whole:
//
//	identity     who the node is: certificate, key, cluster secret (transport.Identity).
//	             Its being there says that Form or Join has ended
//	authority    the CA with its sealed key, a copy of the setting "authority"
//	gossip-keys  the gossip keys, newest version this node has seen
//	addresses    where this node is and where the others were last
//	joined       what Join was told, for a Join that is repeated
//	peers        the gossip addresses of peers (ring/gossip)
//
// # What the state machine holds
//
// The setting "authority" is JSON, {"ca": DER, "sealed": bytes}: any member opens
// it by the cluster secret and issues certificates, so the founder may die. The
// setting "gossip-keys" is sealed by the same secret: JSON, see keyset. The node
// that formed the cluster writes both; any member writes them again when a
// confirmed state lacks them.
//
// # In the store
//
// Where there is a Rendezvous, each object nodes/<node id>/<n> is one place of one
// node, sealed by the cluster secret; n counts from 1 without gaps. A cluster of
// one writes and reads none. Others write one at each change of their address,
// after a look for the newest of their own, and read those of members that are
// found nowhere else.
//
// # Invariants
//
//   - Whoever was removed is refused on every plane and in gossip as soon as this
//     node's state machine says so. Whoever is unknown is let in: its certificate
//     was issued after its admission was committed, so it is a member that this
//     node has not heard of yet.
//   - A certificate is issued only to a member, or to a node whose token has been
//     redeemed by a committed command.
//   - Every step of forming and joining can be cut and repeated under the same
//     ids, and a repeated join takes no second use of its token.
//   - Gossip keys have a version that only grows. A key is used only after every
//     living member has added it, and forgotten only after every living member
//     uses the next one. Whoever was away fetches them over mutual TLS.
//   - What a node says of its own place outranks what others say of it.
package peers
