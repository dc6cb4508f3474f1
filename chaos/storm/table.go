package main

import "strings"

// table is figures that belong together.
type table struct {
	Title string     `json:"title"`
	Head  []string   `json:"head"`
	Rows  [][]string `json:"rows"`
}

// print writes a table for people; say aligns tabs.
func (t table) print(say func(format string, args ...any)) {
	say("  %s\n", t.Title)
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		say("    %s\n", strings.Join(row, "\t"))
	}
}
