// Package router stands before the retriever: it asks the owner of a name's
// shard for the record, and falls back to the retriever of this node. On the
// owner's side it answers what other nodes ask.
//
// The way of a read by name (DESIGN.md §5):
//
//	this node owns the shard, or there is no ring   → local
//	an earlier answer is kept and still the newest  → hot, no hop
//	no live pack here can hold the name             → local: not packed, or absent
//	the owner is asked, with a time limit           → owner; hedge, when the next owner was faster
//	  a small record comes with the answer, and is kept
//	  of a large one the place comes: read here     → location
//	anything else                                   → fallback: local, as if nothing had been asked
//
// Invariants:
//   - An answer is a hint. It is served when it answers the question, does not
//     contradict itself, and this node's own view knows nothing newer; what is
//     stored where it points to has to be that very record. What nothing here can
//     contradict is believed: the index answered at, and of a header that comes
//     alone, for a HEAD, size and hash. The owner is asked
//     with the highest index that concerns the name here, so a read after a write
//     that this node has seen does not go back in time.
//   - A miss is never answered by another node's word: 404 and 410 come from this
//     node's own confirmed view. So does every error.
//   - No failure of another node is a failure of a read. It costs the hop's time
//     limit at most, once; reads are passed on once and never further.
//   - Any number of concurrent questions for one name make one hop.
//   - Hedges stay within their share of the hops, whatever the owners do.
//   - ServeRead looks in packs only. It asks neither quorum nor source nor
//     another node, and answers whether or not this node thinks it is an owner:
//     rings may differ for a moment.
//
// What an answer does not carry: the tenant and metadata fields of later
// formats. Neither is part of an HTTP answer.
//
// Not for: finding the owners (ring), connections (transport), HTTP (api), what
// is in packs (retriever).
package router
