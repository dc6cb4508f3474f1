// Package safety proves the first promise: nothing is lost. It holds tests only.
//
// A harness runs the real marker, packer, keeper and retriever over a source, a
// store, a manifest and a disk whose every outside effect passes one gate
// (effects_test.go). A schedule says what becomes of one or two of the effects:
// not applied and errored, applied and errored, a crash before, a crash after.
// A crash ends the whole node: its memory and all that no flush has promised to
// keep are lost, a new node starts on what is durable, and is let finish.
// TestCrashPoint… run every schedule of a small archive and hold the invariants
// (invariants_test.go) after each effect and at the end.
//
// What is real: all code of marker, packer, keeper, retriever, backup and
// rebuild, the pack format, and raftmeta's state machine with its commands as
// they stand in the log (raftmeta.Local: without Raft below it). What is not:
// rows, originals, objects and the disk are kept in memory, by fakes that are
// held to the contracts: the rows by sourcetest, the store by storetest, the
// originals by comparing them with source.Folders over real files. Time is
// virtual.
//
// Invariants of the harness:
//
//   - No effect is missed: complete_test.go fails when a method that leads out
//     of the write path does not pass the gate, or its code calls the operating
//     system by itself.
//   - After its crash a node has no effect any more, and forgets everything.
//   - A schedule names the n-th call of an effect, so that it means the same in
//     every run; one that did not come to pass fails the test.
package safety
