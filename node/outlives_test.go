package node

import "testing"

// What is about files and work outlives the life it was set in. What another
// process, host or configuration has to say anew does not: a base may be older
// than the last move of deletions to another host, and the file ids in the rows
// are that one's.
func TestSettingsThatOutliveTheirLife(t *testing.T) {
	for key, want := range map[string]bool{
		"keeper/quarantine": true,
		"keeper/host":       false,
		storeKey:            false,
		sourcesKey:          false,
		flushKey:            false,
	} {
		if got := outlives(key); got != want {
			t.Errorf("outlives(%q) = %t, want %t", key, got, want)
		}
	}
}
