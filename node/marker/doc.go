// Package marker moves old rows of the sources from ACTIVE to MARKED, which
// hands them to the packer and freezes their names (DESIGN.md §4, step 1).
//
// Rows that can never be archived, by their name or their path, become FAILED
// at once with a code that says why. Rows that changed since they were listed
// are left for the next round.
//
// Not for: reading files, deciding what goes into which pack, retrying failed
// attempts.
//
// Invariants: rows are marked only under the source's marking lease; the served
// name is checked before it is written; no more than a bounded backlog of
// MARKED rows is left waiting, whichever nodes mark, so that a pause of the
// packer never turns the whole table MARKED; no row is marked that its pace did
// not grant before.
package marker
