package api

// filled puts empty lists in the place of nil ones, since the contract knows no
// null.
func filled(v any) any {
	switch v := v.(type) {
	case Status:
		v.Work, v.Sources, v.Uploads, v.Pauses = list(v.Work), list(v.Sources), list(v.Uploads), list(v.Pauses)
		v.StoreCalls = mapped(v.StoreCalls)
		v.Pace.Reasons, v.Pace.Work = list(v.Pace.Reasons), list(v.Pace.Work)
		for i := range v.Sources {
			v.Sources[i].States, v.Sources[i].Roots = mapped(v.Sources[i].States), list(v.Sources[i].Roots)
		}
		return v
	case Throttle:
		v.Reasons, v.Work = list(v.Reasons), list(v.Work)
		return v
	case PackList:
		v.Packs = list(v.Packs)
		for i := range v.Packs {
			v.Packs[i].Copies = list(v.Packs[i].Copies)
		}
		return v
	case LeaseList:
		v.Leases = list(v.Leases)
		return v
	case MemberList:
		v.Members = list(v.Members)
		return v
	case Backlog:
		v.Sources = list(v.Sources)
		for i := range v.Sources {
			v.Sources[i].Buckets = list(v.Sources[i].Buckets)
		}
		return v
	case FailedPage:
		v.Rows = list(v.Rows)
		return v
	case ArchiveEvent:
		if v.DryRun != nil {
			dry := *v.DryRun
			dry.Rest, dry.Failures, dry.Pauses = list(dry.Rest), list(dry.Failures), list(dry.Pauses)
			v.DryRun = &dry
		}
		return v
	}
	return v
}

func list[E any](s []E) []E {
	if s == nil {
		return []E{}
	}
	return s
}

func mapped[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}
