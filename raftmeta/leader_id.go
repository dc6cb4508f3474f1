package raftmeta

// Leader returns the node that leads as far as this one knows, "" for none. It
// is a hint: only a command or Confirm tells for certain.
func (m *Meta) Leader() NodeID {
	select {
	case <-m.started:
		_, id := m.raft.LeaderWithID()
		return NodeID(id)
	default:
		return ""
	}
}
