package peers

import "errors"

// Errors of this package, returned wrapped; compare with errors.Is. Those of a
// join are transport's: ErrToken, ErrTokenExpired, ErrTokenUsed, ErrCAChanged,
// ErrAlreadyMember, ErrNotMember, ErrUnavailable, ErrUnreachable.
var (
	// ErrConfig: a field of Config is missing or outside its range.
	ErrConfig = errors.New("invalid peers configuration")
	// ErrNoIdentity: the folder holds no identity: Form or Join comes first.
	ErrNoIdentity = errors.New("the node has no identity yet")
	// ErrOtherCluster: the folder belongs to a node of another cluster.
	ErrOtherCluster = errors.New("the data dir belongs to another cluster")
	// ErrOtherNode: the folder belongs to another node.
	ErrOtherNode = errors.New("the data dir belongs to another node")
	// ErrOtherCA: the identity is of another CA than the cluster's state: the
	// node's identity was lost and made anew. Nobody lets it in.
	ErrOtherCA = errors.New("the node's identity is not of this cluster's CA: bring back the file identity that was lost, or join with an empty data dir as a new node")
	// ErrMalformed: a file, a setting or a message is not what this package writes.
	ErrMalformed = errors.New("malformed")
	// ErrNoAuthority: the state machine does not hold the CA yet.
	ErrNoAuthority = errors.New("the cluster's CA is not known here yet")
	// ErrNotFound: a Rendezvous has no object at that key.
	ErrNotFound = errors.New("no such object")
)
