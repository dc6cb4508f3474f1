// Package rig is what the programs that break a cluster share: nodes as
// processes that are started, frozen, killed and asked; clusters of them over a
// folder or over real servers; hosts in network namespaces; files whose bytes
// follow from a seed; waiting.
//
// Not for: judging. What must hold is each program's own business, and nothing
// here asks a node what is right. Nothing of the product is imported.
//
// A Node's lives are its owner's: Start, Kill, Stop, Freeze and Thaw are called
// by one goroutine at a time, and reads beside them keep to the Base they know.
package rig
