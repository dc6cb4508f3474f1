//go:build !race

package desformat

// raceEnabled: the race detector takes a multiple of memory and time.
const raceEnabled = false
