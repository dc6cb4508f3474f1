package store

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Checks that callers ask for by name.
const (
	CheckTransport = "transport"
	CheckRead      = "read credentials"
	CheckClock     = "clock"
)

// The other checks of access.
const (
	checkRoles     = "separate credentials"
	checkOverwrite = "overwriting"
)

// checkCredentials names the check of one role's credentials.
func checkCredentials(r ProbeRole) string { return string(r) + " credentials" }

// judgeTransport says what protects the requests on their way to endpoint, ""
// for Amazon's.
func judgeTransport(endpoint string, ownCA bool) Finding {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http":
		if ownCA {
			return Finding{Check: CheckTransport, Seen: "https, certificates checked against the configured file alone"}
		}
		return Finding{Check: CheckTransport, Seen: "https, certificates checked against the system's authorities"}
	case u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback():
		return Finding{Check: CheckTransport, Seen: "plain http, on this machine"}
	}
	return Finding{
		Check: CheckTransport, Level: LevelWarn, Seen: "plain http to " + endpoint,
		Means: "whoever is on the way reads every file, and can change what is read and written",
		Set:   "take an https endpoint in store.url, and store.ca_file when its certificate is your own authority's",
	}
}

// reach makes one harmless request as each role, and reports whether more can
// be tried.
func (p *probing) reach(ctx context.Context) bool {
	requests := map[ProbeRole]func(context.Context) error{
		ProbeRead: func(ctx context.Context) error {
			_, err := p.get(ctx, p.pack("absent"), nil)
			return err
		},
		ProbeWrite: func(ctx context.Context) error {
			_, err := p.put(ctx, ProbeWrite, p.pack("first"), probeBytes(1000), nil)
			return err
		},
		ProbeCollect: func(ctx context.Context) error {
			_, err := p.clients[ProbeCollect].ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &p.bucket, Prefix: &p.folder})
			return err
		},
	}
	ok := true
	for _, r := range []ProbeRole{ProbeRead, ProbeWrite, ProbeCollect} {
		if p.has(r) {
			ok = p.reached(r, p.within(ctx, requests[r])) && ok
		}
	}
	p.separate()
	return ok
}

// reached judges the answer to a role's first request.
func (p *probing) reached(r ProbeRole, err error) bool {
	f := Finding{Check: checkCredentials(r), Seen: "accepted"}
	if id := p.keyIDs[r]; id != "" {
		f.Seen = "accepted, access key " + id
	}
	defer func() { p.add(f) }()
	switch {
	case r == ProbeRead && err == nil:
		f.Level, f.Seen = LevelBad, "an object that nobody made was found"
		f.Means = "what answers is no object store, or one with something before it that makes answers up"
		f.Set = "correct the endpoint in store.url"
		return false
	case err == nil, r == ProbeRead && errCode(err) == "NoSuchKey":
		return true
	case r == ProbeRead && errStatus(err) == http.StatusNotFound && errCode(err) != "NoSuchBucket":
		f.Level, f.Seen = LevelBad, "asked for an object that is not there: "+probeExplain(err)
		f.Means = "desnode takes nothing but NoSuchKey for a missing object: 404 alone may come from anything on the way"
		f.Set = "correct the endpoint in store.url"
		return false
	case r == ProbeRead && probeDenied(err):
		// Without s3:ListBucket, S3 forbids what is missing.
		f.Level, f.Seen = LevelWarn, "asked for an object that is not there: "+probeExplain(err)
		f.Means = "a missing object can't be told from a forbidden one: a node can't form a cluster on an empty store, and reads of a pack that was replaced answer 503 until the manifest is read again"
		f.Set = "grant s3:ListBucket to the credentials to read (deploy/s3/read.json); if that is granted, s3:GetObject is missing"
		return true
	}
	f.Level, f.Seen = LevelBad, probeExplain(err)
	f.Means = "a node that needs to " + string(r) + " can't work with this store"
	f.Set = probeRemedy(err)
	return false
}

// separate says when one key does the work of several roles.
func (p *probing) separate() {
	if !p.has(ProbeWrite) && !p.has(ProbeCollect) {
		return
	}
	byKey := map[string][]string{}
	for _, r := range []ProbeRole{ProbeRead, ProbeWrite, ProbeCollect} {
		if id := p.keyIDs[r]; id != "" {
			byKey[id] = append(byKey[id], "to "+string(r))
		}
	}
	f := Finding{Check: checkRoles, Seen: "an access key for each role"}
	for id, roles := range byKey {
		if len(roles) > 1 {
			f.Level, f.Seen = LevelWarn, fmt.Sprintf("the same access key %s %s", id, strings.Join(roles, " and "))
			f.Means = "whoever takes over a node that has it can do all of that: a node that only reads needs nothing by which packs change or go"
			f.Set = "make credentials for each role with the policies of deploy/s3 and name them in store.credentials"
		}
	}
	p.add(f)
}

// rights tries what each role must and must not be able to do.
func (p *probing) rights(ctx context.Context) {
	first, err := p.put(ctx, ProbeWrite, p.pack("rights"), probeBytes(10), nil)
	if err != nil {
		p.failed(checkCredentials(ProbeWrite), "a second small object", err)
		return
	}
	if _, err := p.get(ctx, first.key, nil); err != nil {
		p.failed(checkCredentials(ProbeRead), "read what was written", err)
	}
	p.overwriting(ctx, first)
	for _, t := range []struct {
		role, owner ProbeRole // owner: whose right it is
		what        string
		try         func(context.Context) error
	}{
		{ProbeRead, ProbeWrite, "create objects", p.createBy(ProbeRead)},
		{ProbeRead, ProbeCollect, "delete objects", p.deleteBy(ProbeRead, first)},
		{ProbeWrite, ProbeCollect, "delete objects", p.deleteBy(ProbeWrite, first)},
		{ProbeCollect, ProbeWrite, "create packs", p.createBy(ProbeCollect)},
	} {
		if p.has(t.role) && p.keyIDs[t.role] != p.keyIDs[t.owner] {
			p.tooMuch(ctx, t.role, t.what, t.try)
		}
	}
}

// createBy creates an object as a role.
func (p *probing) createBy(r ProbeRole) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := p.put(ctx, r, p.pack("by-"+string(r)), probeBytes(10), nil)
		return err
	}
}

// deleteBy deletes an object as a role.
func (p *probing) deleteBy(r ProbeRole, o probeObject) func(context.Context) error {
	return func(ctx context.Context) error {
		out, err := p.clients[r].DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &p.bucket, Key: &o.key})
		if err == nil && aws.ToString(out.VersionId) != "" {
			p.keep(o.key, aws.ToString(out.VersionId)) // the marker of the deletion
		}
		return err
	}
}

// tooMuch tries what a role should be refused.
func (p *probing) tooMuch(ctx context.Context, r ProbeRole, what string, try func(context.Context) error) {
	f := Finding{Check: checkCredentials(r), Seen: "can't " + what}
	switch err := p.within(ctx, try); {
	case err == nil:
		f.Level, f.Seen = LevelWarn, "can "+what
		f.Means = fmt.Sprintf("more than a node needs that has these credentials to %s: whoever takes it over can harm the archive", r)
		f.Set = fmt.Sprintf("give these credentials deploy/s3/%s.json and nothing else", r)
	case !probeDenied(err):
		f.Level, f.Seen = LevelUntold, fmt.Sprintf("whether they can %s: %s", what, probeExplain(err))
	}
	p.add(f)
}

// overwriting tries to replace an object without a condition.
func (p *probing) overwriting(ctx context.Context, o probeObject) {
	f := Finding{Check: checkOverwrite, Seen: "refused, also without a condition"}
	again, err := p.put(ctx, ProbeWrite, o.key, probeBytes(11), nil)
	switch {
	case err == nil && again.version != "" && again.version != o.version:
		f.Seen = "the credentials to write can put another version over an object; the one before stays"
	case err == nil:
		f.Level, f.Seen = LevelWarn, "the credentials to write can replace objects"
		f.Means = "desnode never does, but whoever has the credentials can destroy packs"
		f.Set = "switch versioning on, or refuse it where the server can: deploy/s3/no-overwrite.json"
	case !probeDenied(err) && !probeRefused(err):
		f.Level, f.Seen = LevelUntold, probeExplain(err)
	}
	p.add(f)
}
