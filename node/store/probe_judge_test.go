package store

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestProbeJudgesLifecycleRules(t *testing.T) {
	days := func(n int32) *types.LifecycleExpiration { return &types.LifecycleExpiration{Days: &n} }
	below := func(prefix string) *types.LifecycleRuleFilter { return &types.LifecycleRuleFilter{Prefix: &prefix} }
	to := func(class types.TransitionStorageClass) []types.Transition {
		return []types.Transition{{Days: aws.Int32(30), StorageClass: class}}
	}
	at := time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)
	on := types.ExpirationStatusEnabled
	for _, tc := range []struct {
		name  string
		rule  types.LifecycleRule
		level Level
		seen  string
	}{
		{"expires everything", types.LifecycleRule{Status: on, Expiration: days(30)}, LevelBad, "30 days after"},
		{"expires by an empty filter", types.LifecycleRule{Status: on, Filter: &types.LifecycleRuleFilter{}, Expiration: days(30)}, LevelBad, "deletes"},
		{"expires on a date", types.LifecycleRule{Status: on, Expiration: &types.LifecycleExpiration{Date: &at}}, LevelBad, "on 2027-01-02"},
		{"expires ours", types.LifecycleRule{Status: on, Filter: below("des/"), Expiration: days(1)}, LevelBad, "deletes"},
		{"expires above ours", types.LifecycleRule{Status: on, Filter: below("de"), Expiration: days(1)}, LevelBad, "deletes"},
		{"expires a part of ours", types.LifecycleRule{Status: on, Filter: below("des/packs/00"), Expiration: days(1)}, LevelBad, "deletes"},
		{"expires by the old form", types.LifecycleRule{Status: on, Prefix: aws.String("des/"), Expiration: days(1)}, LevelBad, "deletes"}, //nolint:staticcheck // old rules have it still
		{"expires by several conditions", types.LifecycleRule{Status: on, Filter: &types.LifecycleRuleFilter{And: &types.LifecycleRuleAndOperator{Prefix: aws.String("des/"), ObjectSizeGreaterThan: aws.Int64(1 << 20)}}, Expiration: days(1)}, LevelBad, "deletes"},
		{"expires large objects", types.LifecycleRule{Status: on, Filter: &types.LifecycleRuleFilter{ObjectSizeGreaterThan: aws.Int64(1)}, Expiration: days(1)}, LevelBad, "deletes"},
		{"expires others", types.LifecycleRule{Status: on, Filter: below("logs/"), Expiration: days(1)}, LevelOK, "no rule"},
		{"expires a neighbour", types.LifecycleRule{Status: on, Filter: below("des-old/"), Expiration: days(1)}, LevelOK, "no rule"},
		{"expires what is tagged", types.LifecycleRule{Status: on, Filter: &types.LifecycleRuleFilter{Tag: &types.Tag{}}, Expiration: days(1)}, LevelOK, "no rule"},
		{"expires what is tagged below", types.LifecycleRule{Status: on, Filter: &types.LifecycleRuleFilter{And: &types.LifecycleRuleAndOperator{Prefix: aws.String("des/"), Tags: []types.Tag{{}}}}, Expiration: days(1)}, LevelOK, "no rule"},
		{"expires quarantine", types.LifecycleRule{Status: on, Filter: below("des/quarantine/"), Expiration: days(90)}, LevelOK, "no rule"},
		{"expires probes", types.LifecycleRule{Status: on, Filter: below("des/probe/"), Expiration: days(1)}, LevelOK, "no rule"},
		{"switched off", types.LifecycleRule{Status: types.ExpirationStatusDisabled, Expiration: days(1)}, LevelOK, "no rule"},
		{"only markers", types.LifecycleRule{Status: on, Expiration: &types.LifecycleExpiration{ExpiredObjectDeleteMarker: aws.Bool(true)}}, LevelOK, "no rule"},
		{"old versions", types.LifecycleRule{Status: on, NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(30)}}, LevelOK, "no rule"},
		{"freezes", types.LifecycleRule{Status: on, Transitions: to(types.TransitionStorageClassGlacier)}, LevelBad, "GLACIER"},
		{"freezes deeply", types.LifecycleRule{Status: on, Transitions: to(types.TransitionStorageClassDeepArchive)}, LevelBad, "DEEP_ARCHIVE"},
		{"one zone", types.LifecycleRule{Status: on, Transitions: to(types.TransitionStorageClassOnezoneIa)}, LevelWarn, "ONEZONE_IA"},
		{"cools", types.LifecycleRule{Status: on, Transitions: to(types.TransitionStorageClassGlacierIr)}, LevelWarn, "GLACIER_IR"},
		{"aborts soon", types.LifecycleRule{Status: on, AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(1)}}, LevelWarn, "aborts uploads after 1 days"},
		{"aborts late", types.LifecycleRule{Status: on, AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(7)}}, LevelOK, "incomplete uploads are aborted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, f := range judgeLifecycle([]types.LifecycleRule{tc.rule}, "des/") {
				if f.Level != tc.level || !strings.Contains(f.Seen, tc.seen) {
					t.Errorf("got %s, %q; want %s, %q", f.Level, f.Seen, tc.level, tc.seen)
				}
			}
		})
	}
}

func TestProbeJudgesTransport(t *testing.T) {
	for _, tc := range []struct {
		name     string
		endpoint string
		ownCA    bool
		level    Level
		seen     string
	}{
		{"Amazon", "", false, LevelOK, "the system's authorities"},
		{"https", "https://store.example:9000", false, LevelOK, "the system's authorities"},
		{"https with an authority of one's own", "https://store.example:9000", true, LevelOK, "the configured file"},
		{"http", "http://store.example:9000", false, LevelWarn, "plain http to http://store.example:9000"},
		{"http by address", "http://10.0.0.7", true, LevelWarn, "plain http"},
		{"http on this machine", "http://127.0.0.1:9000", false, LevelOK, "on this machine"},
		{"http on this machine by name", "http://localhost:9000", false, LevelOK, "on this machine"},
		{"http on this machine by IPv6", "http://[::1]:9000", false, LevelOK, "on this machine"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if f := judgeTransport(tc.endpoint, tc.ownCA); f.Level != tc.level || !strings.Contains(f.Seen, tc.seen) {
				t.Errorf("got %s, %q; want %s, %q", f.Level, f.Seen, tc.level, tc.seen)
			}
		})
	}
}

func TestProbeJudgesClocks(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ahead time.Duration
		level Level
		seen  string
	}{
		{"ours", time.Second, LevelOK, "is ours"},
		{"half a minute ahead", 30 * time.Second, LevelOK, "30s ahead of"},
		{"a minute behind", -time.Minute, LevelWarn, "1m0s behind"},
		{"almost refused", 14*time.Minute - time.Second, LevelWarn, "ahead of"},
		{"refused", 14 * time.Minute, LevelBad, "14m0s ahead of"},
		{"a day behind", -24 * time.Hour, LevelBad, "24h0m0s behind"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if f := judgeClock(tc.ahead); f.Level != tc.level || !strings.Contains(f.Seen, tc.seen) {
				t.Errorf("got %s, %q; want %s, %q", f.Level, f.Seen, tc.level, tc.seen)
			}
		})
	}
}

func TestProbeJudgesLatency(t *testing.T) {
	answers := func(took ...time.Duration) (all []probeAnswer) {
		for _, d := range took {
			all = append(all, probeAnswer{method: http.MethodGet, status: 200, took: d}, probeAnswer{method: http.MethodPut, status: 200, took: 2 * d})
		}
		return append(all, probeAnswer{method: http.MethodGet, status: 404, took: time.Hour})
	}
	quick, slow := answers(20*time.Millisecond, 900*time.Millisecond, 10*time.Millisecond), answers(600*time.Millisecond)
	if f := judgeLatency(quick); f.Level != LevelOK || f.Seen != "usually 20ms for a small get and 40ms for a small put" {
		t.Errorf("%+v", f)
	}
	if f := judgeLatency(slow); f.Level != LevelWarn {
		t.Errorf("%+v", f)
	}
}

func TestFindingsAsJSON(t *testing.T) {
	b, err := json.Marshal([]Finding{{Check: "clock", Level: LevelUntold, Seen: "nothing"}, {Check: "ranges", Level: LevelBad, Seen: "s", Means: "m", Set: "t"}})
	want := `[{"check":"clock","level":"untold","seen":"nothing"},{"check":"ranges","level":"bad","seen":"s","means":"m","set":"t"}]`
	if err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
}
