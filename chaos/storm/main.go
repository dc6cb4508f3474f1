// Command storm runs a cluster under load and faults of every kind, and holds
// what is served, stored and deleted against a ledger that no node has seen.
package main

func main() {}
