// Package keeper looks after packs once they are committed: it acknowledges
// their rows, reads them back, deletes originals that are proven safe, and
// collects objects that no pack will ever own.
//
// There is no recovery path beside the normal one. Each step may be cut
// anywhere and repeated by any node; Run finds what is unfinished in the
// newest view of the manifest and does it, under a lease.
//
// Invariants, each a test:
//
//   - A record is live only if its row was MARKED at that version or was
//     PACKED by this very pack. All other records are dead before the pack is
//     acknowledged.
//
//   - An error of the store or of a database never means "missing". Only the
//     store's own "not found" and the folder's own "no such file" do.
//
//   - Verification never deletes. It records what it found.
//
//   - At every moment a file's content is at its path, or under its quarantine
//     name beside it, or in a pack that was verified within the last 24 hours.
//
//   - An original is unlinked only after its bytes, read again under the
//     quarantine name, hashed to what the pack's catalog says.
//
//   - A quarantined original whose deletion was cut is never forgotten: the
//     audit log names it before it is hidden, and the next pass over the log
//     finishes it or puts it back.
//
//   - No object is moved or deleted unless it was announced, its token is
//     fenced, no pack owns it, it is older than 24 hours, and each file in it is
//     proven to be elsewhere: the manifest may have been rolled back.
//
//   - An original that a process has open for writing is neither hidden nor
//     unlinked, where the file system has leases (source.Quarantine).
//
//   - An original is hidden only while its size and time are those that its row
//     lists, and unlinked only while its row still is as it was judged.
//
//   - No original is deleted while some row's file is unknown.
//
// What remains open: a holder stopped for longer than its lease between its
// last check and the unlink, and a writer on a file system without leases,
// cannot be seen by any check.
//
// Not for: building packs (packer), reading files (retriever), deciding who
// works (raftmeta's leases).
package keeper
