package main

import (
	"path/filepath"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// cluster is a cluster of a trial, which is told what is wrong with it.
type cluster struct {
	*rig.Cluster
	t *trial

	// patience is how long the last steps of archiving may take after the run.
	patience time.Duration
}

// newCluster makes the folders of a cluster in the trial's. common is YAML for
// every node, such as the archive's settings.
func newCluster(t *trial, name, common string) (*cluster, error) {
	base, err := rig.NewCluster(t.bin, filepath.Join(t.dir, name), common, t.logf)
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: base, t: t, patience: 30 * time.Second}, nil
}
