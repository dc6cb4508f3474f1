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
		v.Members, v.Removed = list(v.Members), list(v.Removed)
		for i := range v.Members {
			v.Members[i].Work = list(v.Members[i].Work)
		}
		return v
	case RingInfo:
		v.Members, v.Mismatched = list(v.Members), list(v.Mismatched)
		for i := range v.Owners {
			v.Owners[i].Fallbacks = list(v.Owners[i].Fallbacks)
		}
		return v
	case TokenList:
		v.Tokens = list(v.Tokens)
		for i := range v.Tokens {
			v.Tokens[i].UsedBy = list(v.Tokens[i].UsedBy)
		}
		return v
	case Backlog:
		v.Sources = list(v.Sources)
		for i := range v.Sources {
			v.Sources[i].Buckets = list(v.Sources[i].Buckets)
		}
		return v
	case Unfinished:
		v.Findings = list(v.Findings)
		return v
	case BackupList:
		v.Backups = list(v.Backups)
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
