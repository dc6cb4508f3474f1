package main

import (
	"cmp"
	"encoding/hex"
	"slices"
)

// listedAs is one version in the packs' own listings.
type listedAs struct {
	name string
	sum  string // in hex
}

// weigh counts versions that are in two live packs, and records that nothing
// explains.
//
// The manifest says how many records of a pack are dead, not which. So each
// pack must have as many dead ones as it lists versions that live elsewhere:
// their rows were seen to name another pack. Versions that no row was ever seen
// to name (they were changed before) may be dead everywhere; their copies but
// one must fit among the dead ones that are left.
func weigh(s *scene, packs []packInfo, listed map[string][]record) {
	places := map[listedAs][]string{} // ids of packs
	spare := map[string]int{}         // dead records that are not accounted for, by pack
	live := 0
	for _, p := range packs {
		records := listed[p.ID]
		if len(records) != p.Records {
			s.verdict.breach(strangeRecords, "pack %s lists %d records, the manifest says %d", p.ID, len(records), p.Records)
		}
		spare[p.ID] = p.Dead
		live += p.Records - p.Dead
		for _, r := range records {
			v := known(s.ledger, r)
			if v == nil {
				s.verdict.breach(strangeRecords, "pack %s holds a %s %q of SHA-256 %s", p.ID, r.Type, r.Name, r.SHA256)
				continue
			}
			places[listedAs{r.Name, r.SHA256}] = append(places[listedAs{r.Name, r.SHA256}], p.ID)
		}
	}
	if live > len(places) {
		s.verdict.breach(doublePacks, "%d live records of %d versions", live, len(places))
	}
	weighHomes(s, places)
	var homeless []listedAs
	for _, at := range sorted(places) {
		home := homeOf(s.ledger, at)
		if home == "" {
			homeless = append(homeless, at)
			continue
		}
		seen := false
		for _, pack := range places[at] {
			if pack == home && !seen {
				seen = true
				continue
			}
			if spare[pack]--; spare[pack] < 0 {
				s.verdict.breach(doublePacks, "%s is in pack %s and, live as well, in %s", at.name, home, pack)
			}
		}
	}
	for _, at := range homeless {
		room := 0
		for _, pack := range places[at] {
			room += min(1, max(0, spare[pack]))
		}
		if extra := len(places[at]) - 1; room < extra {
			s.verdict.breach(doublePacks, "%s is in packs %v, at most %d of them dead", at.name, places[at], room)
		}
	}
}

// weighHomes finds versions whose row names a pack that does not hold them.
func weighHomes(s *scene, places map[listedAs][]string) {
	for _, f := range s.ledger.all() {
		st := s.ledger.state(f)
		for i := range st.versions {
			v := &st.versions[i]
			at := listedAs{f.name, hex.EncodeToString(v.sum[:])}
			if v.pack != "" && !slices.Contains(places[at], v.pack) {
				s.verdict.breach(strangeRecords, "the row of %s, version %d, named pack %s, which does not list it", f.name, v.number, v.pack)
			}
		}
	}
}

// known returns the version that a record holds, or nil.
func known(l *ledger, r record) *version {
	f := l.named(r.Name)
	if f == nil || r.Type != "file" {
		return nil
	}
	sum, err := hex.DecodeString(r.SHA256)
	if err != nil || len(sum) != 32 {
		return nil
	}
	return l.state(f).holding([32]byte(sum))
}

// homeOf returns the pack that a version's row was seen to name, or "".
func homeOf(l *ledger, at listedAs) string {
	if v := known(l, record{"file", at.name, at.sum}); v != nil {
		return v.pack
	}
	return ""
}

func sorted(places map[listedAs][]string) []listedAs {
	keys := make([]listedAs, 0, len(places))
	for at := range places {
		keys = append(keys, at)
	}
	slices.SortFunc(keys, func(a, b listedAs) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.sum, b.sum)) })
	return keys
}
