// Package inspect tells what is unfinished in a cluster, mends of it what is safe
// to mend, and holds the sources' tables, the manifest and the store against each
// other. It is what `desnode recover` asks.
//
// Invariants, each a test:
//
//   - Unfinished and Compare change nothing, anywhere.
//   - A store, a source or a quorum that does not answer never means "missing":
//     Unfinished reports that it does not answer, Compare ends with the error.
//   - Nothing is done here that the upkeep does not do by the same functions and
//     under the same leases: Recover only asks for it now.
//   - What moves objects away or deletes them is done with Options.Yes alone, by
//     the rules of garbage, and each act stands in the audit log.
//   - What changes while a comparison goes on is no difference: each is looked at
//     again, in a newer view and a newer row, before it is reported.
//   - Compare reads no payload, and its memory is bounded by the manifest and a
//     few thousand rows, however many there are.
//
// Not for: the upkeep itself (keeper), making backups (backup), adopting packs
// that the manifest does not know (rebuild).
package inspect
