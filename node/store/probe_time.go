package store

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The checks of time, and of keys and lists.
const (
	checkLatency = "latency"
	checkKeys    = "keys"
	checkList    = "list after put"
)

// Bounds of what is found about times. S3 refuses requests that were signed
// more than 15 minutes off.
const (
	clockWarn   = time.Minute
	clockBad    = 14 * time.Minute
	slowAnswer  = 500 * time.Millisecond
	latencyRuns = 5
)

// clock compares the server's clock with ours, by all answers there were.
func (p *probing) clock() {
	var offs []time.Duration
	for _, a := range p.wire.all() {
		if !a.date.IsZero() {
			// Date is cut to seconds, and was set somewhere between.
			offs = append(offs, a.date.Add(500*time.Millisecond).Sub(a.sent.Add(a.took/2)))
		}
	}
	if len(offs) == 0 {
		p.add(Finding{Check: CheckClock, Level: LevelUntold, Seen: "the server's answers carry no date"})
		return
	}
	slices.Sort(offs)
	p.add(judgeClock(offs[len(offs)/2]))
}

// judgeClock judges by how much the server's clock is ahead of ours.
func judgeClock(ahead time.Duration) Finding {
	off, side := ahead.Abs(), "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	f := Finding{Check: CheckClock, Seen: "the server's is ours, to a second or so"}
	if off > 2*time.Second {
		f.Seen = fmt.Sprintf("the server's is %s %s ours", off.Round(time.Second), side)
	}
	switch {
	case off >= clockBad:
		f.Level = LevelBad
		f.Means = "S3 refuses requests that are signed 15 minutes off"
		f.Set = "set this machine's clock, or the server's (NTP)"
	case off >= clockWarn:
		f.Level = LevelWarn
		f.Means = "at 15 minutes S3 refuses every request; times in logs and of objects don't fit together"
		f.Set = "set this machine's clock, or the server's (NTP)"
	}
	return f
}

// latency gives the usual time of small requests, by the answers so far and a
// few more.
func (p *probing) latency(ctx context.Context) {
	key := p.pack("latency")
	for range latencyRuns {
		o, err := p.put(ctx, ProbeWrite, key, probeBytes(4096), nil)
		if err == nil {
			_, err = p.get(ctx, o.key, nil)
		}
		if err != nil && !probeDenied(err) { // a policy may refuse to overwrite
			p.failed(checkLatency, "a small put and get", err)
			return
		}
	}
	p.add(judgeLatency(p.wire.all()))
}

func judgeLatency(answers []probeAnswer) Finding {
	median := func(method string) time.Duration {
		var took []time.Duration
		for _, a := range answers {
			if a.method == method && a.status/100 == 2 {
				took = append(took, a.took)
			}
		}
		if len(took) == 0 {
			return 0
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	get, put := median(http.MethodGet), median(http.MethodPut)
	f := Finding{Check: checkLatency, Seen: fmt.Sprintf("usually %s for a small get and %s for a small put", short(get), short(put))}
	if get > slowAnswer {
		f.Level = LevelWarn
		f.Means = "a file that is in no cache takes about twice that to its first byte"
		f.Set = "take a store nearer to the nodes, or larger caches (cache.index, cache.data)"
	}
	return f
}

// short gives two or three figures of a duration.
func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// longestKey is as long as the longest key of ours below the prefix: the
// quarantine's, with numbers of many digits.
const longestKey = "packs/ffffffffffffffff-64/18446744073709551615-18446744073709551615-0123456789abcdef0123456789abcdef.des"

// keys checks that keys come back as they went, long and odd ones too.
func (p *probing) keys(ctx context.Context) {
	ok := true
	for _, k := range []struct{ name, key string }{
		{"as long as desnode's own", p.folder + longestKey},
		{"with a space, a plus, a percent sign and letters outside ASCII", p.pack("odd a+b%41&c=é ł.des")},
		{"in both cases", p.pack("Case")},
		{"in both cases", p.pack("case")},
	} {
		want := []byte(k.key)
		_, err := p.put(ctx, ProbeWrite, k.key, want, nil)
		if err != nil {
			ok = false
			p.failed(checkKeys, "a key "+k.name, err)
			continue
		}
		if g, err := p.get(ctx, k.key, nil); err != nil || !bytes.Equal(g.body, want) {
			ok = false
			p.failed(checkKeys, "read back a key "+k.name, err)
		}
	}
	if g, err := p.get(ctx, p.pack("Case"), nil); err == nil && !bytes.HasSuffix(g.body, []byte("Case")) {
		ok = false
		p.add(Finding{
			Check: checkKeys, Level: LevelWarn, Seen: "keys that differ in case alone are one object",
			Means: "desnode's own keys don't; originals on this server that do overwrite each other",
			Set:   "keep the server's objects on a file system that knows case",
		})
	}
	if longest := len(p.prefix) + len("quarantine/2026-01-02/") + len(longestKey); longest > 1024 {
		ok = false
		p.add(Finding{
			Check: checkKeys, Level: LevelBad, Seen: fmt.Sprintf("with this prefix desnode's keys reach %d bytes; S3 allows 1024", longest),
			Means: "packs can't be written", Set: "take a shorter prefix in store.url",
		})
	}
	if ok {
		p.add(Finding{Check: checkKeys, Seen: "come back as they went, long and odd ones too"})
	}
}

// listing checks that a list shows what was written just before, and no more
// what was deleted.
func (p *probing) listing(ctx context.Context) {
	o, err := p.put(ctx, ProbeWrite, p.pack("listed/a+b é"), probeBytes(10), nil)
	if err != nil {
		p.failed(checkList, "put", err)
		return
	}
	prefix := p.pack("listed/")
	list := func() (keys []string, err error) {
		err = p.within(ctx, func(ctx context.Context) error {
			out, err := p.clients[ProbeCollect].ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &p.bucket, Prefix: &prefix})
			if err != nil {
				return err
			}
			for _, e := range out.Contents {
				keys = append(keys, aws.ToString(e.Key))
			}
			return nil
		})
		return keys, err
	}
	there, err := list()
	if err == nil {
		err = p.within(ctx, func(ctx context.Context) error {
			_, err := p.clients[ProbeCollect].DeleteObject(ctx, deletion(p.bucket, probeMade{o.key, o.version}))
			return err
		})
	}
	var after []string
	if err == nil {
		after, err = list()
	}
	f := Finding{Check: checkList, Seen: "up to date"}
	switch {
	case err != nil:
		p.failed(checkList, "list", err)
		return
	case !slices.Equal(there, []string{o.key}):
		f.Level, f.Seen = LevelWarn, fmt.Sprintf("an object that was just written is listed as [%s]", strings.Join(there, ", "))
	case len(after) > 0:
		f.Level, f.Seen = LevelWarn, "an object that was just deleted is listed"
	}
	if f.Level != LevelOK {
		f.Means = "desnode works without lists; a rebuild of the manifest from the store needs them, and has to wait until they are right"
		f.Set = "see the server's documentation on consistency"
	}
	p.add(f)
}
