// Package ring says which nodes own which shard: a pure function of a set of
// members and a Config, over github.com/buraksezer/consistent.
//
// Ownership is a hint, never a permission: an owner keeps a shard's indexes and
// hot records warm, and any node may serve any file. So two nodes with
// different rings do double work, never wrong work.
//
// Not for: learning who the members are (ring/gossip), addresses, hashing of
// names: a shard is the leading bits of a name's hash and comes from the caller.
//
// Invariants:
//   - The same set of members and the same Config give the same Ring, on every
//     machine, in whatever order and however often the members are named. A
//     golden test holds that over versions of the library and of this package;
//     what changes it raises Format.
//   - A Ring with members names an owner for every shard, and never changes.
//   - Owners(shard)[1] is Owner(shard) of the ring without Owners(shard)[0].
//   - Looking up takes no lock and allocates nothing.
//
// DESIGN.md in this folder has the placement study, the chosen parameters and
// the rejected options.
package ring
