// Package s3policy holds the least-privilege policies for desnode's S3
// credentials, and renders them for a bucket.
//
// The policies are the JSON files beside this one, with @BUCKET@ and @PREFIX@
// in place of names, which no server accepts: a policy that was not rendered
// grants nothing. README.md says what each right is for. Tests hold them
// against a real server and against that text.
//
// Not for: talking to a server.
package s3policy

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

//go:embed *.json
var files embed.FS

// Policy names one of the policies.
type Policy string

// The policies.
const (
	Read         Policy = "read"          // every node
	Write        Policy = "write"         // nodes that pack
	Collect      Policy = "collect"       // nodes that keep
	SourceRead   Policy = "source-read"   // nodes that read originals from S3
	SourceDelete Policy = "source-delete" // nodes that delete originals on S3
	// NoOverwrite refuses every put over an object, whoever asks. It is a bucket
	// policy, for servers that know the condition key s3:if-none-match (AWS).
	NoOverwrite Policy = "no-overwrite"
)

// Policies returns every policy.
func Policies() []Policy {
	return []Policy{Read, Write, Collect, SourceRead, SourceDelete, NoOverwrite}
}

// ErrPlace is what is wrong with a bucket's name or a prefix.
var ErrPlace = errors.New("invalid bucket or prefix")

// Document is a policy of S3.
type Document struct {
	Version   string      `json:"Version"`
	Statement []Statement `json:"Statement"`
}

// Statement is one statement of a policy.
type Statement struct {
	Sid       string                       `json:"Sid"`
	Effect    string                       `json:"Effect"`
	Principal any                          `json:"Principal,omitempty"`
	Action    Words                        `json:"Action"`
	Resource  Words                        `json:"Resource"`
	Condition map[string]map[string]string `json:"Condition,omitempty"`
}

// Words is one word or a list of them.
type Words []string

// UnmarshalJSON takes a string or a list of strings.
func (w *Words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = Words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	// Wildcards, variables and quotes of policies are not among these.
	prefixName = regexp.MustCompile(`^[A-Za-z0-9!_.()/=+-]*$`)
)

// Identity returns the policy for a user or role of its own. prefix is what
// stands before the keys: empty, or with a slash at its end.
func Identity(p Policy, bucket, prefix string) (Document, error) {
	if !bucketName.MatchString(bucket) {
		return Document{}, fmt.Errorf("%w: bucket %q", ErrPlace, bucket)
	}
	if !prefixName.MatchString(prefix) || prefix != "" && !strings.HasSuffix(prefix, "/") {
		return Document{}, fmt.Errorf("%w: prefix %q must end with a slash and hold plain characters alone", ErrPlace, prefix)
	}
	b, err := files.ReadFile(string(p) + ".json")
	if err != nil {
		return Document{}, fmt.Errorf("policy %q: %w", p, err)
	}
	text := strings.NewReplacer("@BUCKET@", bucket, "@PREFIX@", prefix).Replace(string(b))
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var d Document
	if err := dec.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("policy %q: %w", p, err)
	}
	return d, nil
}

// Grant gives a policy to a principal, as the server names it: an ARN on AWS, a
// user on others.
type Grant struct {
	Policy    Policy
	Principal string
}

// Bucket returns one policy of the bucket that makes all grants. A bucket has
// one policy only: keep statements of your own in it.
func Bucket(grants []Grant, bucket, prefix string) (Document, error) {
	all := Document{Version: "2012-10-17"}
	for _, g := range grants {
		d, err := Identity(g.Policy, bucket, prefix)
		if err != nil {
			return Document{}, err
		}
		for _, s := range d.Statement {
			s.Sid = strings.ReplaceAll(string(g.Policy), "-", "") + s.Sid
			s.Principal = map[string]string{"AWS": g.Principal}
			all.Statement = append(all.Statement, s)
		}
	}
	return all, nil
}
