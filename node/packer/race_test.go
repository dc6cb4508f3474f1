//go:build race

package packer

// raceDetector: the embedded database takes ten times as long under it.
const raceDetector = true
