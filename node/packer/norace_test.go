//go:build !race

package packer

const raceDetector = false
