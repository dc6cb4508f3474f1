package node

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/datavision/desnode/raftmeta"
)

// flushKey is the setting by which one node asks all to mark and pack now what
// is eligible. What it says is for people; that it changes is what counts.
const flushKey = "flush"

// flushEvery is how long one request lasts: rows may become eligible meanwhile,
// and a node may begin to work.
const flushEvery = 5 * time.Second

type flushRequest struct {
	By raftmeta.NodeID `json:"by"`
	At time.Time       `json:"at"`
}

// flushAll makes every node mark and pack what is eligible, whatever the
// waiting times. The caller repeats it while there is something left to do.
func (n *Node) flushAll(ctx context.Context) error {
	n.flush()
	if len(n.meta.View().Members()) < 2 {
		return nil
	}
	b, err := json.Marshal(flushRequest{By: n.id.Node, At: n.now().UTC()})
	if err != nil {
		return err
	}
	_, modIndex, _ := n.meta.View().Setting(flushKey)
	limited, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	err = n.meta.Set(limited, flushKey, b, modIndex)
	switch {
	case errors.Is(err, raftmeta.ErrConflict):
		return nil // another node has just asked for the same
	case errors.Is(err, raftmeta.ErrNotLeader) && ctx.Err() == nil:
		return nil // no quorum: nothing is packed until there is one, and then it is asked again
	}
	return err
}

// flushTime bounds how long a request to all nodes waits for a leader.
const flushTime = 2 * time.Second

// flush makes this node do so.
func (n *Node) flush() {
	n.marker.Kick() // first: the packer waits for a marking that was asked for
	n.packer.Flush()
}

// followCluster does what the cluster's settings ask of this node, until ctx
// ends. A node that finds itself removed ends with ErrLeft.
func (n *Node) followCluster(ctx context.Context) error {
	_, flushed, _ := n.meta.View().Setting(flushKey)
	var kept [2]uint64 // mark of the settings in the data dir
	for {
		changed := n.meta.Changed() // before the look, so that no change is missed
		v := n.meta.View()
		if v.Removed(n.id.Node) {
			return n.wasRemoved()
		}
		if _, asked, _ := v.Setting(flushKey); asked != flushed {
			flushed = asked
			n.flush()
		}
		if mark := settingsMark(v); mark != kept {
			kept = mark
			if err := n.keepSettings(v); err != nil {
				n.log.ErrorContext(ctx, "the cluster's settings could not be kept in the data dir", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// heedRefusal ends a node that others refuse as removed: its state machine may
// never hear of it, and it would wait for a leader for ever.
func (n *Node) heedRefusal(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.peers.Refused():
		return n.wasRemoved()
	}
}

// wasRemoved ends a node that others have removed. One that leaves on its own
// ends otherwise.
func (n *Node) wasRemoved() error {
	if n.leaving.Load() {
		return nil
	}
	n.log.Error("this node was removed from the cluster")
	return errors.Join(ErrLeft, setLeft(n.cfg.DataDir))
}
