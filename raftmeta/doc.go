// Package raftmeta keeps what a cluster must agree on: the manifest of packs,
// leases with fencing tokens, announced uploads, settings and members, as a
// state machine over a Raft log.
//
// Not for: bytes of files, the ring, the network (it is handed a
// raft.Transport and Peers), deciding what work to do. It grants and refuses.
//
// Any node writes, confirms and holds leases: it asks the leader when it does
// not lead.
//
// Invariants, each held by the state machine and so on every node alike:
//
//   - A pack exists from its AddPack on, and AddPack succeeds only under the
//     live lease whose token the pack carries, for a key announced before.
//   - A token that once was fenced never becomes live again: it is the Raft
//     index of its grant. Garbage is only what hangs on a fenced token.
//   - Two packing leases never overlap, and no range with an unacknowledged
//     pack is leased for packing.
//   - Applying a command reads no clock, no randomness and no map order; the
//     same log gives the same bytes of snapshot.
//   - Every command may be repeated: the repetition changes nothing and is
//     answered like the first time.
//   - A command of a node that is no member changes nothing.
//   - A node that was removed never is a member again, and what it proposes
//     changes nothing. Nobody is removed while it votes.
//   - No change of the voters leaves a set of them of which no majority is alive.
//   - A generation that begins with a rebuild marks, packs, deletes, collects and
//     backs up nothing before the rebuild is recorded as done; until then, and
//     never after, packs and uploads of earlier generations are adopted. No copy
//     of an adopted pack counts as verified.
//   - A View never changes. What it answers belongs to one Raft index.
//
// DESIGN.md in this folder lists the crash windows and the rejected options.
package raftmeta
