package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/node/api"
)

const (
	// goodbyeTime bounds how long a node that stops takes to tell the others.
	goodbyeTime = 5 * time.Second
	// leaveTime bounds how long a node tries to leave its cluster.
	leaveTime = time.Minute
)

// errHasLeft ends a node that has left its cluster.
var errHasLeft = errors.New("the node has left its cluster")

// sayGoodbye waits for the end of ctx and tells the other nodes that this one
// goes. They ask it for nothing then, so that it is not mistaken for dead, and
// load balancers see that it is not ready, while it still answers.
func (n *Node) sayGoodbye(ctx context.Context) error {
	<-ctx.Done()
	n.stopping.Store(true)
	if len(n.peers.View().Members()) < 2 {
		return nil
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
	defer cancel()
	if err := n.peers.Leave(limited); err != nil {
		n.log.WarnContext(ctx, "the other nodes will find out by themselves that this one is gone", "err", err)
	}
	return nil
}

// Leave takes the node out of its cluster for good: its work stops, it hands
// over its leases and its leadership, it is no member any more, and then it ends.
// When that fails the work goes on as before. ErrConflict: it is the last member.
func (n *Node) Leave(ctx context.Context, _ api.LeaveRequest) error {
	if !n.leaving.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: the node is leaving already", api.ErrConflict)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime) // half a departure is none
	defer cancel()
	n.log.InfoContext(ctx, "leaving the cluster")
	resume := n.crew.rest()
	err := n.meta.Leave(ctx)
	if err == nil {
		err = setLeft(n.cfg.DataDir)
	}
	if err != nil {
		n.leaving.Store(false)
		resume()
		return asConflict(err)
	}
	n.stop(errHasLeft)
	return nil
}
