package s3policy_test

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	s3policy "github.com/datavision/desnode/deploy/s3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func render(t *testing.T, p s3policy.Policy) s3policy.Document {
	t.Helper()
	d, err := s3policy.Identity(p, "archive", "des/")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPoliciesNameTheirPlaceAndNoMore(t *testing.T) {
	for _, p := range s3policy.Policies() {
		t.Run(string(p), func(t *testing.T) {
			sids := map[string]bool{}
			for _, s := range render(t, p).Statement {
				if sids[s.Sid] {
					t.Errorf("two statements are called %s", s.Sid)
				}
				sids[s.Sid] = true
				if want := map[bool]string{true: "Deny", false: "Allow"}[p == s3policy.NoOverwrite]; s.Effect != want {
					t.Errorf("%s: effect %s, want %s", s.Sid, s.Effect, want)
				}
				for _, r := range s.Resource {
					probe := p == s3policy.SourceDelete && r == "arn:aws:s3:::archive/.desnode-probe"
					if r != "arn:aws:s3:::archive" && !probe && !strings.HasPrefix(r, "arn:aws:s3:::archive/des/") {
						t.Errorf("%s: resource %s lies outside the bucket's prefix", s.Sid, r)
					}
				}
				for _, a := range s.Action {
					if strings.ContainsAny(a, "*?") {
						t.Errorf("%s: %s says more than one right", s.Sid, a)
					}
					if on := strings.Contains(s.Resource[0], "/"); on == (strings.Contains(a, "Bucket") || strings.Contains(a, "Configuration")) {
						t.Errorf("%s: %s is not a right on %s", s.Sid, a, s.Resource[0])
					}
				}
			}
		})
	}
}

// TestReadmeSaysWhyOfEveryRight holds the table of README.md against the files.
func TestReadmeSaysWhyOfEveryRight(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(s3:[A-Za-z]+)` \\| ([^|]+) \\| [^|]+ \\|$").FindAllStringSubmatch(string(b), -1) {
		listed[row[1]] = strings.Split(row[2], ", ")
	}
	granted := map[string][]string{}
	for _, p := range s3policy.Policies() {
		for _, s := range render(t, p).Statement {
			for _, a := range s.Action {
				if s.Effect == "Allow" && !slices.Contains(granted[a], string(p)) {
					granted[a] = append(granted[a], string(p))
				}
			}
		}
	}
	for a, in := range granted {
		if !slices.Equal(listed[a], in) {
			t.Errorf("README.md lists %s for %v, the policies grant it in %v", a, listed[a], in)
		}
	}
	for a := range listed {
		if granted[a] == nil {
			t.Errorf("README.md explains %s, which no policy grants", a)
		}
	}
}

func TestTemplatesAreOfNoUseUnrendered(t *testing.T) {
	for _, p := range s3policy.Policies() {
		b, err := os.ReadFile(string(p) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var d s3policy.Document
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		for _, s := range d.Statement {
			for _, r := range s.Resource {
				if !strings.HasPrefix(r, "arn:aws:s3:::@BUCKET@") {
					t.Errorf("%s: %s names a bucket", p, r)
				}
			}
		}
	}
}

func TestPlacesAreChecked(t *testing.T) {
	for _, tc := range []struct{ name, bucket, prefix string }{
		{"no bucket", "", ""},
		{"wildcard bucket", "a*c", ""},
		{"bucket that leaves its place", `archive/*","arn:aws:s3:::other`, ""},
		{"upper case", "Archive", ""},
		{"prefix without a slash", "archive", "des"},
		{"wildcard prefix", "archive", "*/"},
		{"one unknown character", "archive", "d?s/"},
		{"variable", "archive", "${aws:username}/"},
		{"quote", "archive", `a"/`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d, err := s3policy.Identity(s3policy.Read, tc.bucket, tc.prefix); !errors.Is(err, s3policy.ErrPlace) {
				t.Errorf("got %v, %v, want ErrPlace", d, err)
			}
		})
	}
}

func TestBucketPolicyNamesWhoIsGrantedWhat(t *testing.T) {
	d, err := s3policy.Bucket([]s3policy.Grant{{s3policy.Read, "anna"}, {s3policy.Collect, "olga"}}, "archive", "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Statement []struct {
			Sid       string
			Principal map[string]string
			Action    []string
		}
	}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	for _, s := range back.Statement {
		deletes := slices.Contains(s.Action, "s3:DeleteObject")
		if who := s.Principal["AWS"]; who == "" || deletes && who != "olga" {
			t.Errorf("%s is granted to %q: %v", s.Sid, who, s.Action)
		}
	}
	if want := len(render(t, s3policy.Read).Statement) + len(render(t, s3policy.Collect).Statement); len(back.Statement) != want {
		t.Errorf("%d statements, want %d", len(back.Statement), want)
	}
}
