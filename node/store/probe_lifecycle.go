package store

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// judgeLifecycle says what the rules of a bucket do to packs below prefix.
func judgeLifecycle(rules []types.LifecycleRule, prefix string) []Finding {
	var found []Finding
	aborts := false
	for i, r := range rules {
		if r.Status != types.ExpirationStatusEnabled {
			continue
		}
		name := aws.ToString(r.ID)
		if name == "" {
			name = fmt.Sprintf("number %d", i+1)
		}
		if !ruleReaches(r, prefix) {
			continue
		}
		if a := r.AbortIncompleteMultipartUpload; a != nil {
			aborts = true
			if days := aws.ToInt32(a.DaysAfterInitiation); days < 2 {
				found = append(found, Finding{
					Check: checkLifecycle, Level: LevelWarn, Seen: fmt.Sprintf("rule %q aborts uploads after %d days", name, days),
					Means: "a pack whose upload takes long, on a slow or broken line, is never finished",
					Set:   "let the rule abort after 7 days",
				})
			}
		}
		if expires(r.Expiration) {
			found = append(found, Finding{
				Check: checkLifecycle, Level: LevelBad, Seen: fmt.Sprintf("rule %q deletes objects below %q %s", name, prefix, when(r.Expiration)),
				Means: "the server deletes packs: archived files are lost",
				Set:   fmt.Sprintf("remove rule %q, or give it a prefix outside %q", name, prefix),
			})
		}
		for _, t := range r.Transitions {
			found = append(found, judgeTransition(name, t.StorageClass))
		}
	}
	if len(found) > 0 {
		return found
	}
	seen := "no rule touches packs"
	if aborts {
		seen += "; incomplete uploads are aborted"
	}
	return []Finding{{Check: checkLifecycle, Seen: seen}}
}

// judgeTransition says what moving packs to another storage class means.
func judgeTransition(rule string, class types.TransitionStorageClass) Finding {
	f := Finding{Check: checkLifecycle, Level: LevelWarn, Seen: fmt.Sprintf("rule %q moves packs to %s", rule, class)}
	switch class {
	case types.TransitionStorageClassGlacier, types.TransitionStorageClassDeepArchive:
		f.Level = LevelBad
		f.Means = "packs there can't be read without restoring them for hours: files can't be served, verified or compared before an original is deleted"
		f.Set = fmt.Sprintf("remove the transition from rule %q; GLACIER_IR is the coldest class that answers at once", rule)
	case types.TransitionStorageClassOnezoneIa:
		f.Means = "packs lie in one zone alone and go with it; each read and each early deletion costs extra"
		f.Set = "take STANDARD_IA or GLACIER_IR, which lie in several"
	default:
		f.Means = "each read and each early deletion costs extra; verifications read every pack about once a month"
		f.Set = "nothing if that was reckoned with"
	}
	return f
}

func expires(e *types.LifecycleExpiration) bool {
	return e != nil && (aws.ToInt32(e.Days) > 0 || e.Date != nil)
}

func when(e *types.LifecycleExpiration) string {
	if e.Date != nil {
		return "on " + e.Date.UTC().Format("2006-01-02")
	}
	return fmt.Sprintf("%d days after they were written", aws.ToInt32(e.Days))
}

// ruleReaches reports whether a rule can apply to an object of ours. Packs
// have no tags; they are of any size.
func ruleReaches(r types.LifecycleRule, prefix string) bool {
	of := aws.ToString(r.Prefix) //nolint:staticcheck // old rules have it still
	if f := r.Filter; f != nil {
		if f.Tag != nil || f.And != nil && len(f.And.Tags) > 0 {
			return false
		}
		if f.Prefix != nil {
			of = *f.Prefix
		}
		if f.And != nil && f.And.Prefix != nil {
			of = *f.And.Prefix
		}
	}
	if strings.HasPrefix(prefix, of) {
		return true
	}
	// A rule on a part of ours matters unless it is garbage's or the probe's.
	rest, below := strings.CutPrefix(of, prefix)
	return below && !strings.HasPrefix(rest, "quarantine/") && !strings.HasPrefix(rest, probePrefix)
}
