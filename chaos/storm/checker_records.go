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
// explains. listed is what each pack lists, dead which of its records reads
// skip.
func weigh(s *scene, packs []packInfo, listed map[string][]record, dead deadRecords) {
	live := map[listedAs][]string{} // ids of packs
	for _, p := range packs {
		records := listed[p.ID]
		if len(records) != p.Records {
			s.verdict.breach(strangeRecords, "pack %s lists %d records, the manifest says %d", p.ID, len(records), p.Records)
		}
		for _, r := range records {
			at := listedAs{r.Name, r.SHA256}
			switch {
			case explained(s.ledger, r) == nil:
				s.verdict.breach(strangeRecords, "pack %s holds a %s %q of SHA-256 %s", p.ID, r.Type, r.Name, r.SHA256)
			case !dead[p.ID][r.Ordinal]:
				live[at] = append(live[at], p.ID)
			}
		}
	}
	places := make([]listedAs, 0, len(live))
	for at := range live {
		places = append(places, at)
	}
	slices.SortFunc(places, func(a, b listedAs) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.sum, b.sum)) })
	for _, at := range places {
		if len(live[at]) > 1 {
			s.verdict.breach(doublePacks, "%s is live in packs %v", at.name, live[at])
		}
	}
	for _, f := range s.ledger.all() {
		st := s.ledger.state(f)
		for i := range st.versions {
			v := &st.versions[i]
			if at := (listedAs{f.name, hex.EncodeToString(v.sum[:])}); v.pack != "" && !slices.Contains(live[at], v.pack) {
				s.verdict.breach(strangeRecords, "the row of %s, version %d, named pack %s, where it does not live", f.name, v.number, v.pack)
			}
		}
	}
}

// explained returns the version that a record holds, or nil.
func explained(l *ledger, r record) *version {
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
