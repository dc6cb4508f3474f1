// Package bench is the load of `desnode bench`: files that exist as a rule
// only, clients that read them back, and what a process has used meanwhile.
//
// Invariant: everything about file i (its name, size, time and every byte)
// follows from i and the rule, so that an archive of any size can be made and
// checked without a disk to keep the originals on.
//
// Not for: production; nothing but `desnode bench` and tests use it. Running
// the node under load is node/cli's part.
package bench
