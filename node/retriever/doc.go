// Package retriever answers reads: it finds the live record of a name in the
// manifest's packs, brings it from the store, verifies it and hands it out. A
// file that is not packed yet comes from its source.
//
// The order of a read (DESIGN.md §5): packs whose range holds the name's hash,
// newest first → each one's index (memory, else one request) → the record
// (memory, else one request) → header, name and hash checked. Requests to the
// store for a read that one pack covers: 2 cold, 1 with the index in memory,
// 0 with the record in memory. Any number of concurrent misses for one index or
// one record make one request.
//
// Invariants:
//   - Versions of a name are ordered by seq and by nothing else; the walk over
//     packs stops only when no remaining pack can hold a newer one.
//   - ErrNotFound and ErrGone are returned only after the manifest has been
//     confirmed, and ErrNotFound only after every source said so as well. An
//     error of the store or of a source is ErrUnavailable.
//   - A pack whose index or record cannot be read ends the look-up: no older
//     version and no source stands in for what it may hold. Only when its object
//     is missing is a newer view asked first.
//   - That an object is missing, replaced or too short is corrupt only when it is
//     proven (see damage.go), else unavailable.
//   - A record counts only where manifest and index place it, so that bytes of
//     another pack are corrupt, not a name that is absent.
//   - A hit asks neither for confirmation nor a source.
//   - Content up to 1 MiB is verified as a whole before it is handed out, more
//     of it piece by piece while it is read: no unverified byte leaves.
//   - What another node answered is served while it is provably the newest in
//     this node's own view: its pack is live there and its ordinal is not dead,
//     and no covering pack with a MaxSeq above its seq was added after the index
//     answered at; a node that has not applied that index yet believes it. So a
//     merge, a tombstone or a removal ends it as soon as this node knows. Why
//     that is enough stands in foreign.go. It shares the data cache and its cap.
//   - Other nodes are answered from packs and this node's view alone; what they
//     are told of absence is no more than a hint to them.
//   - Both caches keep to their caps after every insertion. Packs never change,
//     so what is cached needs no expiry; it goes when its pack leaves the view.
//
// Not for: HTTP (api), asking other nodes (router), repairing what is corrupt.
package retriever
