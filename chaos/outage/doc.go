// Package outage takes the source's database and the store away from a running
// node, in every way that networks and servers know, while files are archived
// and read, and checks that reads keep their promises and that the work goes on
// after: nothing lost, nothing double, no half an object taken for a pack.
//
// It is all tests: `go test ./chaos/outage` takes each away for seconds,
// `make outage-test` for a minute. The node is the built binary, the servers
// are real, all on loopback.
//
// Not for: killing the node (chaos/killtest does), several nodes.
package outage
