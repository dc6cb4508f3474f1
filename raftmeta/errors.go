package raftmeta

import "errors"

// Errors of this package, returned wrapped; compare with errors.Is. Any other
// error of a command (a context's end included) means that its outcome is
// unknown: repeat it.
var (
	// ErrClash: another live lease, or work already done, stands in the way of
	// this job. Somebody else does it, or nobody needs to.
	ErrClash = errors.New("job clashes with a live lease")
	// ErrUnacknowledged: the range, or the pack, has not been acknowledged yet.
	ErrUnacknowledged = errors.New("pack not yet acknowledged")
	// ErrStale: the lease with that token is not live (any more): its holder
	// has been fenced and must stop.
	ErrStale = errors.New("lease is not live")
	// ErrNoUpload: the pack's key was never announced, or has been forgotten.
	ErrNoUpload = errors.New("upload was not announced")
	// ErrInUse: the upload's lease is live, so it may still be committed.
	ErrInUse = errors.New("upload may still be committed")
	// ErrUnconfirmed: no leader confirmed that this node is up to date in time.
	ErrUnconfirmed = errors.New("not confirmed by the leader")
	// ErrNotLeader: no node that may write answered in time. What was tried before
	// that may yet be committed.
	ErrNotLeader = errors.New("not the leader")
	// ErrLagging: the command was committed, and what else the error holds is its
	// answer, but this node's view does not show it yet.
	ErrLagging = errors.New("committed, but not yet applied here")
	// ErrConflict: the condition of the command does not hold: another setting,
	// another pack with the same id or token, another cluster's form.
	ErrConflict = errors.New("conflicts with the present state")
	// ErrUnknownPack: the manifest has no such pack.
	ErrUnknownPack = errors.New("no such pack in the manifest")
	// ErrNotMember: the node is not a member of the cluster.
	ErrNotMember = errors.New("not a member of the cluster")
	// ErrRemoved: the node was removed from the cluster; its id never comes back.
	ErrRemoved = errors.New("removed from the cluster")
	// ErrVoteNeeded: without the node the cluster could not agree on anything.
	ErrVoteNeeded = errors.New("the node's vote is needed")
	// ErrLastMember: nobody would be left in the cluster.
	ErrLastMember = errors.New("the last member of the cluster")
	// ErrNoToken: there is no such join token, or it was revoked.
	ErrNoToken = errors.New("no such join token")
	// ErrTokenExpired: the join token's time is over.
	ErrTokenExpired = errors.New("join token expired")
	// ErrTokenUsed: as many nodes as the join token allows have joined by it.
	ErrTokenUsed = errors.New("join token used up")
	// ErrRebuilding: the rebuild that begins this generation is not done yet, so
	// nothing is marked, packed, deleted, collected or backed up.
	ErrRebuilding = errors.New("this generation is being rebuilt")
	// ErrRebuilt: the rebuild of this generation is recorded as done; nothing is
	// adopted after that.
	ErrRebuilt = errors.New("this generation is rebuilt already")
	// ErrInvalid: the command contradicts itself; repeating it is useless.
	ErrInvalid = errors.New("invalid command")
	// ErrStateLost: Dir is empty although this node was in the cluster before. To
	// form the cluster again would issue its tokens a second time.
	ErrStateLost = errors.New("the cluster's state is lost")
	// ErrRolledBack: a voter's data dir was put back from an older copy, this
	// node's or the leader's: what was committed may be lost from the log.
	ErrRolledBack = errors.New("the Raft log went back in time")
	// ErrLocked: another process uses the data dir.
	ErrLocked = errors.New("another node uses this data dir")
	// ErrOtherNode: the data dir belongs to a node with another id.
	ErrOtherNode = errors.New("the data dir belongs to another node")
	// ErrOtherCluster: the data dir, or the leader, belongs to another cluster
	// or another generation of it.
	ErrOtherCluster = errors.New("the data dir belongs to another cluster")
	// ErrUnknownCommand: the log or a snapshot holds what only a newer version
	// of desnode understands. The state machine stops there, and Run ends.
	ErrUnknownCommand = errors.New("written by a newer version of desnode")
	// ErrSnapshot: a snapshot of the state is cut or damaged.
	ErrSnapshot = errors.New("corrupt snapshot")
	// ErrNoState: the data dir holds nothing that is known to be committed.
	ErrNoState = errors.New("no committed state in the data dir")
	// ErrStorage: the Raft log could not be written or read.
	ErrStorage = errors.New("storage of the Raft log")
	// ErrClosed: Run has ended, or is about to.
	ErrClosed = errors.New("raftmeta is closed")
)
