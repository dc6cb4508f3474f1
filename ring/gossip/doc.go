// Package gossip finds the nodes of a cluster that are alive, over
// hashicorp/memberlist, and keeps a ring of them: a View behind an atomic
// pointer, replaced at every change.
//
// Not for: who belongs to the cluster (the state machine says so and hands in
// who was removed), who may speak to whom (transport), placement (ring).
//
// What a node tells of itself is its metadata, at most 512 bytes:
//
//	 0  u8     version of this layout: 1
//	 1  u8     ring format, ring.Format
//	 2  [8]    digest of the node's ring, zero: none yet
//	10  fields, each once, types ascending, up to the end:
//	      u8     type: 1 cluster address, 2 HTTP address, 3 zone, 4 version of the program
//	      u8     length in bytes, 1 to 255
//	      [...]  printable UTF-8
//
// A reader skips types it does not know, so a new field needs no new version. A
// node whose version, ring format or id is another's is not made a member.
//
// The file of peers, replaced as a whole at every change, is text: the line
// "desnode peers 1", then a line "<node id> <ip:port>" for each peer.
//
// Invariants:
//   - The node's name is its persistent id. A node that returns at another
//     address is let in as soon as its old self counts as dead.
//   - Removed nodes are in no ring, whatever they gossip.
//   - Gossip is always encrypted; a message with another key, without one or
//     with another cluster's label is counted, logged and dropped.
//   - memberlist's callbacks take one short lock of ours and never wait.
//   - Peers ever seen are tried again every Rejoin until they are removed, so
//     two halves find each other however long they were apart.
//   - A View never changes.
//
// DESIGN.md in this folder has the crash windows and the rejected options.
package gossip
