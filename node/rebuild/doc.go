// Package rebuild brings a cluster back from its store: it begins a new life of
// it, a generation, and makes the manifest anew from what earlier lives have left
// there. Restore and rebuild are one function; a restore has a base state.
//
// A life begins in three steps. Claim takes the next generation by a conditional
// create. Its caller forms a cluster of one under that generation. Run then does,
// while the node serves reads already (a hit is served, a miss is not known yet):
//
//	base         adopts the packs, uploads and settings of the base state
//	packs        lists packs/ and adopts each whole pack that the state does not
//	             know, by its footer; notes open uploads and what is in quarantine
//	fence        waits until every source refuses earlier lives, then lists again
//	rows         writes lost state columns back from catalogs, if that was asked for
//	acknowledge  has packs acknowledged of which nobody knows whether they were
//	done         is recorded, and only then is anything marked, packed, deleted or
//	             collected (raftmeta refuses the leases before)
//
// Not for: reading payload (verification does, before anything is deleted),
// deciding which records are dead (keeper), making the base (backup), the node's
// identity.
//
// # Invariants, each a test
//
//   - Two lives never share a generation: who loses the claim, or is overtaken,
//     gets ErrSuperseded and nothing else. To go on takes the operator's word.
//
//   - The listing that counts begins after every source has refused writers of
//     earlier lives. Whatever they archived was uploaded before that, so it is
//     listed.
//
//   - An error of the store never means that an object is missing, no pack, or
//     read: the rebuild waits, and says what for.
//
//   - Objects that are no whole pack of this cluster are told and left as they are:
//     not adopted, not announced as garbage, also when the base knows them as
//     uploads that were under way. A pack that the base names and the store does
//     not list stays in the manifest: its files are missed, not forgotten.
//
//   - Without a base every whole object counts, committed or not: equal versions
//     are harmless, and seq decides between others.
//
//   - A base's fences and dead records count only if it is of the life right before
//     this one: another life between may have adopted what was dead, and deleted
//     originals on its word. Of lives before its own it fences only what it knows:
//     a pack that was away while its life began counts when it is there again.
//
//   - Newer packs are adopted before older ones. While a rebuild runs a read may
//     still find the version of the base before a newer one of the store; the node
//     says of each hit that a newer version may exist.
//
//   - An object under this life's own number ends it: another life has had it.
//
//   - A row is written back by its newest record only, and only as what it lists.
//
//   - No payload is read: footers, catalogs, and nothing else.
//
//   - Each step finds in the state what it has done before. The plan, a replicated
//     setting, says what was asked for, so any start of any member goes on.
//
// # Failure table
//
// TestCutEverywhere makes each effect fail in each way; this is what it finds.
//
//	cut                                   what follows
//	before or in the claim's PUT          claimed again by the same node; another one takes the next
//	after the claim, nothing formed       the same node finds its claim; a wiped dir takes the next,
//	                                      and the claim between stays empty
//	formed, no plan yet                   the caller says again what is asked for; the rest is not begun
//	base adopted in part                  adopted again, whole: known packs change nothing
//	settings restored in part             those that stand are left, the others follow
//	base adopted, plan not saved          the base is read once more
//	packs adopted in part                 listed again; footers of the unknown ones are read
//	a merged pack adopted, and not        stays live beside it: equal versions
//	what it stands for
//	an object gone since the listing      listed again
//	store down                            waits; hits on what is adopted are served
//	a source down                         waits at the fence; hits are served; not recorded as done
//	a source lost for good                take it out of the configuration; its packs stay
//	rows written back in part             all catalogs and rows are read again, none is written twice;
//	                                      the cost of a cut is that of the reading
//	a pack can't be acknowledged          after a few rounds it is left to the keeper, which goes on
//	                                      by the same rules; its range is not packed before
//	lease lost                            the holder of the next one goes on
//	overtaken by a newer life             ErrSuperseded; nothing was destroyed
//
// # Limits
//
// A row's original is found absent as Originals says it is: below a root that is
// there and not empty. A node that has another folder mounted there writes
// DELETED_SOURCE for a file that stands elsewhere: such an original is never
// deleted, and nothing else comes of it.
//
// In a life without a base, a record lives again that was dead because its row was
// deleted by the source system, or not acknowledged at its version, before the
// row went on: its file is served under its name as it was, until a newer version
// is archived.
package rebuild
