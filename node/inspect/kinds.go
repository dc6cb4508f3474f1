package inspect

import "slices"

// How much a finding or a difference matters, in the words of the API.
const (
	Note       = "note"       // worth knowing; nothing has to be done
	Repairable = "repairable" // something waits for the cure; no content is in danger
	AtRisk     = "at-risk"    // content may be lost or unreadable until the cure
)

// The kinds of findings.
const (
	KindSuperseded    = "superseded"          // a newer generation of the cluster lives
	KindNoQuorum      = "no-quorum"           // nobody confirms the state: what is told may be old
	KindRebuild       = "rebuild-unfinished"  // the rebuild that began this generation goes on
	KindStoreDown     = "store-down"          // the store did not answer
	KindSourceDown    = "source-down"         // a source did not answer
	KindSourceMissing = "source-missing"      // a source of the cluster is not configured here
	KindMember        = "member-unreachable"  // a member is not seen
	KindLeaving       = "member-leaving"      // a member has begun to leave
	KindLease         = "lease-orphaned"      // a lease whose holder is no living member
	KindPause         = "pause-endless"       // a pause without an end
	KindNoBackup      = "backup-missing"      // there is no backup of the state
	KindOldBackup     = "backup-old"          // the newest one is old
	KindUpload        = "upload-uncommitted"  // an object was announced and is no pack
	KindMultipart     = "multipart-open"      // parts of an upload that nobody completes
	KindUnacked       = "pack-unacknowledged" // its rows are not all PACKED yet
	KindUnverified    = "pack-unverified"     // nobody has read it back
	KindStale         = "pack-stale"          // it was read back long ago
	KindDamaged       = "pack-damaged"        // reading it back found damage
	KindCutDeletion   = "deletion-cut"        // an original stands between hidden and removed
	KindFailedRows    = "rows-failed"         // rows with an archive_error
	KindQuarantined   = "object-quarantined"  // garbage that waits for its end
	KindKept          = "object-kept"         // an object without a pack that holds what nothing else does
	KindUnreadable    = "setting-unreadable"  // a replicated setting makes no sense
)

// The kinds of differences between sources, manifest and store.
const (
	KindPackMissing  = "pack-missing"        // the store has no object
	KindPackSize     = "pack-size"           // the object has another size
	KindPackReplaced = "pack-replaced"       // another version stands in its place
	KindPackShadowed = "pack-shadowed"       // its version is there, under a newer one
	KindPackNoCopy   = "pack-without-copy"   // the manifest names no object for it
	KindCatalog      = "catalog-damaged"     // its list of records can't be read
	KindForgotten    = "pack-forgotten"      // a whole pack that the manifest does not know
	KindForeign      = "object-foreign"      // an object under packs/ that is no pack of this cluster
	KindUnlisted     = "quarantine-unlisted" // an object in quarantine that nobody will delete
	KindUnquarantine = "quarantine-lost"     // an object that should be in quarantine and is not
	KindRowUnknown   = "row-unknown-pack"    // its pack is none of the manifest's
	KindRowPackless  = "row-without-pack"    // archived, as it says, and names no pack
	KindRowClaimed   = "row-claimed"         // a deletion that was cut holds it
	KindRowAbsent    = "row-without-record"  // its pack has no record of it
	KindRowDead      = "row-of-dead-record"  // its pack's record of it is dead
	KindRowBehind    = "row-behind"          // it is in an older state than the archive
	KindRowElsewhere = "row-elsewhere"       // it names another pack with the same version
	KindRowDiffers   = "row-differs"         // its name, size, time or checksum is not the record's
	KindNoRow        = "record-without-row"  // the source system has removed the row
	KindNoSource     = "record-of-no-source" // records of a source that this node does not have
)

// Kinds returns every kind of finding.
func Kinds() []string {
	return []string{
		KindSuperseded, KindNoQuorum, KindRebuild, KindStoreDown, KindSourceDown, KindSourceMissing, KindMember, KindLeaving,
		KindLease, KindPause, KindNoBackup, KindOldBackup, KindUpload, KindMultipart, KindUnacked, KindUnverified, KindStale,
		KindDamaged, KindCutDeletion, KindFailedRows, KindQuarantined, KindKept, KindUnreadable,
	}
}

// DifferenceKinds returns every kind of difference.
func DifferenceKinds() []string {
	return []string{
		KindPackMissing, KindPackSize, KindPackReplaced, KindPackShadowed, KindPackNoCopy, KindDamaged, KindCatalog, KindForgotten,
		KindForeign, KindUnlisted, KindUnquarantine, KindRowUnknown, KindRowPackless, KindRowClaimed, KindRowAbsent, KindRowDead,
		KindRowBehind, KindRowElsewhere, KindRowDiffers, KindNoRow, KindNoSource,
	}
}

// severities in rising order.
var severities = [...]string{Note, Repairable, AtRisk}

// weight orders severities, the worst first.
func weight(severity string) int { return len(severities) - slices.Index(severities[:], severity) }
