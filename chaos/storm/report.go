package main

import (
	"io"
	"time"
)

// report is what a run came to.
type report struct {
	Seed     uint64    `json:"seed"`
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	OK       bool      `json:"ok"`
	Error    string    `json:"error,omitempty"` // why it could not go on
	Setting  []figure  `json:"setting"`         // versions, machine, nodes
	Bars     []bar     `json:"bars"`
	Figures  []figure  `json:"figures"`
	Timeline picture   `json:"timeline"`
}

type picture struct{}

// newReport sums a run up. It is called once, at its end; failed is why it
// could not go on, or nil. setting is versions, machine and shape of the cluster.
func newReport(s *scene, l *load, c *checker, setting []figure, failed error) *report {
	return &report{}
}

// write makes report.json and report.html in a folder.
func (r *report) write(dir string) error { return nil }

// print writes the verdict for people.
func (r *report) print(w io.Writer) {}
