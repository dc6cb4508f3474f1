// Package backup writes the cluster's state to the object store on a schedule,
// forgets old backups, and reads them for a restore.
//
// A backup is the state machine's snapshot text (see raftmeta) in one zstd
// frame, at backups/<generation>-<Raft index, 20 digits>. Which backups exist is
// a replicated setting, so that nothing is listed in steady state; only a
// restore, and the first backup of a new generation, list backups/.
//
// Not for: the packs themselves, which are their own backup, and the customer's
// database. Packs that were committed after a backup are found again by their
// footers (node/rebuild): a backup saves time, acknowledgements and settings,
// and no file depends on one.
//
// Invariants, each a test:
//
//   - A key stands in the setting before the object is put there, and until it
//     has been deleted. Cut anywhere, later backups delete what was left, for a
//     day, as it may be written late.
//
//   - A listed backup was in the store whole when it was listed, and nobody
//     deletes it before it is taken off the list, for ever.
//
//   - The newest backup is never dropped. A node that a newer life of the cluster
//     has superseded neither writes nor deletes one (Config.Current).
//
//   - No backup is written of a state that is being rebuilt: the newest one
//     would know less than those before it.
//
//   - A damaged backup is named and refused; an error of the store is never
//     taken for damage.
//
// What it lets a thief do. A backup holds the names of nodes, their addresses,
// the store's and sources' settings without their secrets, pack ids and keys;
// no file names, no content, no cluster secret. The CA key and the gossip keys in
// it are sealed by the cluster secret, join tokens are kept as verifiers. Who
// reads it learns how the archive is laid out and can join nothing. Who can
// write to the store could put a backup of his own there: it decides nothing by
// itself, an operator chooses what is restored, but what it says of dead records
// is believed then. Rights to write below backups/ are as precious as those to
// packs/.
package backup
