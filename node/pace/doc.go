// Package pace says how fast and when work may go on: the limits that an
// operator sets (a second's rate, a day's budget, time windows), pauses, and an
// automatic slow-down while the database or the store suffers.
//
// A worker asks its Work for a Grant before each step, does at most what is
// granted, and ends the grant with what it did. While a pause, a closed window
// or a used-up day stands in the way it gets a *Held, which says why and until
// when; a second's rate and the slow-down are waited for inside Take.
//
// Limits, pauses and a day's use are replicated settings, so that they hold
// for the cluster and survive restarts. Of a second's rate each node takes its
// share, the rate divided by the nodes at work: asking the others for each step
// would cost more than the share of an idle node that is left unused. The
// slow-down is each node's own: it follows what that node does and sees.
//
// Not for: choosing what is done (marker, packer, keeper), limits on reads.
//
// Invariants:
//   - A day's use is recorded before the work is done: a crash counts too much,
//     never too little. At most one Raft command is made for a step of up to
//     1000 files, and none while no day's budget is set.
//   - A day begins at local midnight in the settings' zone; a window's hours are
//     wall-clock hours in its zone. A day or a night with a change of the clock
//     is as long as it is.
//   - A file larger than a limit goes on: the first file of a day is granted
//     whatever its size, and the rate waits afterwards.
//   - A pause outranks everything: nothing that asks for work to begin at once
//     goes round it.
//   - No part of the package reads a clock but the one handed in.
package pace
