package rig

// Host is a network namespace of its own, joined to the others' by a bridge.
type Host struct {
	ns   string // its name for `ip netns`
	addr string // on the bridge
	link string // the bridge's end of its cable
}
