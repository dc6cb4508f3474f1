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
//   - Of a pack of an earlier life of the cluster, which a rebuild has found, a
//     record is dead only when its row lists another file by now, no pack has the
//     row, and that file stands; or when its row was acknowledged, at a later
//     version, to an older pack, which has what it lists (acknowledge_earlier.go).
//     A database that lost or forgot rows, whatever it says, makes no record dead.
//
//   - Before the rebuild that begins this life is recorded as done, the keeper
//     begins nothing by itself: not all packs are known.
//
//   - A life that is over, or may be, moves and deletes nothing: Config.Current is
//     asked before each collection, each expiry and each pack's deletions.
//
//   - What is moved to quarantine or deleted from it stands in the audit log before.
//
//   - An error of the store or of a database never means "missing". Only the
//     store's own "not found" and the folder's own "no such file" do.
//
//   - Verification never deletes. It records what it found. What reads find
//     damaged is verified ahead of its turn, once an hour at most.
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
//   - An original is unlinked only while its record is what is served under its
//     name: a table that was put back from a backup may list an older version.
//
//   - No original is deleted while some row's file is unknown.
//
//   - The first verification of a pack is not its packer's own, unless no other
//     node keeps packs.
//
//   - Originals in folders are deleted on one host, which has seen them as their
//     rows list them. No other host says that a file is missing, claims its row or
//     writes down which file it reaches (host.go).
//
// What another node has under way is seen in the newest view and not asked for;
// what it has left half done is found by the rows' claims, and by the quarantined
// files beside the originals. The audit log is each node's own: a node that comes
// back settles what its log still names, whoever has finished it.
//
// A key whose object never came stays listed for a week, as one in quarantine
// does: a PUT that was on its way brings an object that is known. One that is
// later still leaves an object that only a LIST finds.
//
// What remains open: a holder stopped for longer than its lease between its
// last check and the unlink, and a writer on a file system without leases,
// cannot be seen by any check. A host gives device numbers anew when it boots or
// mounts: a second row's file id from before is not recognized then, unless its
// path or its folders show that it reaches the same file. A quarantined file of
// a dead node stays hidden when its row has moved on meanwhile, until that node
// comes back; its content is in the pack.
//
// Not for: building packs (packer), reading files (retriever), deciding who
// works (raftmeta's leases).
package keeper
