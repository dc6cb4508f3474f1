// Package packer turns MARKED rows into committed packs: it plans ranges,
// takes a lease on each, builds the pack in a local spool file, uploads it and
// commits it to the manifest (DESIGN.md §4, steps 2 to 6). Acknowledging the
// rows is the keeper's one function, called here right after the commit.
//
// Not for: choosing rows to archive (marker), verifying or deleting (keeper).
// There is no recovery code here: what a crash leaves behind is either rows
// that are still MARKED, which are planned again, or a committed pack, which
// the keeper acknowledges, or an object that was announced and never committed,
// which the keeper collects.
//
// Several nodes plan by themselves, each from its own count, and leases keep two
// from building the same. They begin at different cuts, look at their newest view
// before they ask, and count anew what another has packed into since: so clashes
// are few, and what they leave is no pack of its own.
//
// Invariants:
//   - No pack is built of a cut in whose range another pack was committed since
//     its rows were counted.
//   - A round asks for no more than a few leases in vain.
//   - A record enters a pack only if the file was opened with the row's size
//     and time and was read to its end unchanged. Everything else is cut away.
//   - A row is asked for in the manifest before it is packed; what lives in a
//     pack already is acknowledged again, not packed twice. A row that was marked
//     before is compared by content, as far as its file is still there.
//   - An object's key is announced before its first byte is sent, and every
//     attempt sends the same sealed bytes.
//   - A failure of the store, the spool disk, the database or a root is never
//     charged to a row.
//   - Memory does not grow with the number of rows or with their sizes; the
//     spool file is removed however a build ends.
package packer
