package rig

// Host is a network namespace of its own, joined to the others' by a bridge.
type Host struct {
	ns   string // its name for `ip netns`
	addr string // on the bridge
	link string // the bridge's end of its cable
}

// Addr is the host's address, which the others reach it at.
func (h *Host) Addr() string { return h.addr }
