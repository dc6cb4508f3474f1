package node

import "github.com/prometheus/client_golang/prometheus"

// clusterCollector shows what the cluster agrees on, as this node sees it.
type clusterCollector struct{ node *Node }

var (
	clusterMembers = prometheus.NewDesc("des_cluster_members", "Members of the cluster: known to the state machine, and seen alive by gossip.", []string{"state"}, nil)
	clusterVoters  = prometheus.NewDesc("des_cluster_voters", "Voters of Raft's configuration.", nil, nil)
	clusterLeader  = prometheus.NewDesc("des_cluster_leader", "1 on the node that leads.", nil, nil)
	clusterLed     = prometheus.NewDesc("des_cluster_has_leader", "1 while this node knows a leader; without one nothing is written and nothing is said to be missing.", nil, nil)
	clusterApplied = prometheus.NewDesc("des_cluster_applied_index", "Raft index that this node has applied; how far a node is behind shows beside the others'.", nil, nil)
	clusterLeases  = prometheus.NewDesc("des_cluster_leases", "Live leases by job.", []string{"job"}, nil)
	clusterWaits   = prometheus.NewDesc("des_cluster_voters_wait", "1 on the leader while a change of the voters waits, for instance for a node to catch up; its log says for what.", nil, nil)

	clusterGeneration = prometheus.NewDesc("des_cluster_generation", "Number of the cluster's life: 1 when formed, one more at each restore or rebuild.", nil, nil)
	clusterSuperseded = prometheus.NewDesc("des_cluster_superseded", "1 on a node that found a newer generation of its cluster: it does no work any more.", nil, nil)
	clusterRebuilding = prometheus.NewDesc("des_cluster_rebuilding", "1 while the manifest is not whole yet after a restore or rebuild.", nil, nil)
)

func (clusterCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{clusterMembers, clusterVoters, clusterLeader, clusterLed, clusterApplied, clusterLeases, clusterWaits, clusterGeneration, clusterSuperseded, clusterRebuilding} {
		ch <- d
	}
}

func (c clusterCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.node
	show := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	members, leader, v := n.memberCounts(), n.meta.Leader(), n.meta.View()
	show(clusterMembers, float64(members.Known), "known")
	show(clusterMembers, float64(members.Alive), "alive")
	show(clusterVoters, float64(n.voters()))
	show(clusterLeader, oneIf(leader == n.id.Node))
	show(clusterLed, oneIf(leader != ""))
	show(clusterApplied, float64(v.Applied()))
	show(clusterWaits, oneIf(n.meta.VotersWait() != ""))
	show(clusterGeneration, float64(v.Generation()))
	show(clusterSuperseded, oneIf(n.outdated() != nil))
	show(clusterRebuilding, oneIf(v.Generation() > 0 && !v.RebuildDone(v.Generation())))
	leases := map[string]int{}
	for _, l := range v.Leases() {
		leases[string(l.Job.Kind)]++
	}
	for job, count := range leases {
		show(clusterLeases, float64(count), job)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
