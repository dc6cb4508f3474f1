package raftmeta

import (
	"context"
	"testing"

	"github.com/datavision/desnode/desformat"
)

func TestRestartResumes(t *testing.T) {
	n := startNode(t, testConfig(t))
	n.addPack("3a/8", packID(1))
	if err := n.AckPack(context.Background(), packID(1), []uint32{7, 3, 3}); err != nil {
		t.Fatal(err)
	}
	before := n.View()
	n.restart()
	p := n.View().Pack(packID(1))
	if p == nil || !p.Acknowledged || len(p.Dead) != 2 || !p.IsDead(3) || !p.IsDead(7) || p.IsDead(4) {
		t.Fatalf("after the restart: %+v", p)
	}
	if n.View().Cluster() != n.cfg.Cluster || n.View().ShardBits() != 10 || n.View().Generation() != 1 {
		t.Errorf("after the restart: %+v", n.View())
	}
	if n.View().Applied() < before.Applied() {
		t.Errorf("applied %d, before %d", n.View().Applied(), before.Applied())
	}
	if got := n.View().Covering(desformat.NameHash{0x3a}, nil); len(got) != 1 || got[0].ID != packID(1) {
		t.Errorf("covering: %v", got)
	}
}
