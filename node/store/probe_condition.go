package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// The checks of conditions.
const (
	checkCreate   = "conditional create"
	checkComplete = "conditional complete"
	checkDelete   = "conditional delete"
	checkMove     = "moving"
)

// onlyNew is the condition that there is no object yet.
func onlyNew(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") }

// noConditionalCreate says what follows when a condition is not obeyed.
func noConditionalCreate(check, seen string) Finding {
	return Finding{
		Check: check, Level: LevelWarn, Seen: seen,
		Means: "desnode asks before it writes instead, which another writer can slip between; it never deletes originals with such a store (archive.delete_source is refused)",
		Set:   "take a server or version that obeys If-None-Match: * if originals are to be deleted",
	}
}

// conditionalCreate checks If-None-Match: *, first in peace and then in a race.
func (p *probing) conditionalCreate(ctx context.Context) {
	key := p.pack("create")
	if _, err := p.put(ctx, ProbeWrite, key, probeBytes(10), onlyNew); err != nil {
		if probeUnknown(err) || errStatus(err) == http.StatusBadRequest {
			p.add(noConditionalCreate(checkCreate, "If-None-Match is not supported: "+probeExplain(err)))
			return
		}
		p.failed(checkCreate, "a put with If-None-Match: *", err)
		return
	}
	_, err := p.put(ctx, ProbeWrite, key, probeBytes(11), onlyNew)
	switch {
	case err == nil:
		p.add(noConditionalCreate(checkCreate, "a second put with If-None-Match: * replaced the object"))
		return
	case !probeRefused(err):
		p.failed(checkCreate, "a second put with If-None-Match: *", err)
		return
	}
	p.race(ctx)
}

// race lets many writers create one object at once.
func (p *probing) race(ctx context.Context) {
	key := p.pack("race")
	errs := make([]error, probeRacers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = p.put(ctx, ProbeWrite, key, probeBytes(100+i), onlyNew) })
	}
	wg.Wait()
	var winners []int
	var odd error
	for i, err := range errs {
		switch {
		case err == nil:
			winners = append(winners, i)
		case !probeRefused(err):
			odd = errors.Join(odd, err)
		}
	}
	g, err := p.get(ctx, key, nil)
	switch {
	case len(winners) > 1:
		p.add(Finding{
			Check: checkCreate, Level: LevelBad, Seen: fmt.Sprintf("%d of %d writers at once were all told that they created the object", len(winners), probeRacers),
			Means: "the condition holds in peace and fails in a race: two packs could be written at one key, and one of them lost",
			Set:   "never set archive.delete_source with this store; take a server whose conditional create holds in a race",
		})
	case odd != nil:
		p.failed(checkCreate, fmt.Sprintf("%d writers at once", probeRacers), odd)
	case len(winners) == 0:
		p.add(Finding{
			Check: checkCreate, Level: LevelWarn, Seen: fmt.Sprintf("of %d writers at once none created the object", probeRacers),
			Means: "desnode tries again; it costs requests", Set: "",
		})
	case err != nil:
		p.failed(checkCreate, "read what the winner wrote", err)
	case !bytes.Equal(g.body, probeBytes(100+winners[0])):
		p.add(Finding{
			Check: checkCreate, Level: LevelBad, Seen: fmt.Sprintf("the object of %d writers at once is not the winner's", probeRacers),
			Means: "an object can be replaced after its writer was told that it stands", Set: "take another server",
		})
	default:
		p.add(Finding{Check: checkCreate, Seen: fmt.Sprintf("obeyed, also by %d writers at once: one won", probeRacers)})
	}
}

// conditionalComplete checks that the last step of a multipart upload does not
// replace an object.
func (p *probing) conditionalComplete(ctx context.Context) {
	key := p.pack("complete")
	first, err := p.put(ctx, ProbeWrite, key, probeBytes(10), nil)
	if err != nil {
		p.failed(checkComplete, "put", err)
		return
	}
	id, part, err := p.startUpload(ctx, key, probeBytes(20))
	if err != nil {
		p.failed(checkComplete, "start a multipart upload", err)
		return
	}
	var out *s3.CompleteMultipartUploadOutput
	err = p.within(ctx, func(ctx context.Context) (err error) {
		out, err = p.clients[ProbeWrite].CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &p.bucket, Key: &key, UploadId: &id, IfNoneMatch: aws.String("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{part}},
		})
		return err
	})
	if err == nil {
		p.keep(key, aws.ToString(out.VersionId))
	}
	g, errGet := p.get(ctx, key, nil)
	switch {
	case err == nil:
		p.add(noConditionalCreate(checkComplete, "CompleteMultipartUpload with If-None-Match: * replaced the object"))
	case probeUnknown(err) || errStatus(err) == http.StatusBadRequest:
		p.add(noConditionalCreate(checkComplete, "not supported: "+probeExplain(err)))
	case !probeRefused(err):
		p.failed(checkComplete, "CompleteMultipartUpload with If-None-Match: *", err)
	case errGet != nil || g.etag != first.etag:
		p.add(noConditionalCreate(checkComplete, "refused, and the object was replaced nevertheless"))
	default:
		p.add(Finding{Check: checkComplete, Seen: "obeyed"})
	}
	if err := p.abort(ctx, key, id); err != nil && !notThere(err) {
		p.failed(checkComplete, "abort the upload", err)
	}
}

// conditionalDelete checks If-Match on DELETE, without which an original on S3
// can't be deleted from a bucket without versions.
func (p *probing) conditionalDelete(ctx context.Context) {
	o, err := p.put(ctx, ProbeWrite, p.pack("delete"), probeBytes(10), nil)
	if err != nil {
		p.failed(checkDelete, "put", err)
		return
	}
	remove := func(etag string) error {
		return p.within(ctx, func(ctx context.Context) error {
			out, err := p.clients[ProbeCollect].DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &p.bucket, Key: &o.key, IfMatch: &etag})
			if err == nil && aws.ToString(out.VersionId) != "" {
				p.keep(o.key, aws.ToString(out.VersionId))
			}
			return err
		})
	}
	f := Finding{Check: checkDelete, Seen: "If-Match is obeyed"}
	lacks := func(seen string) {
		f.Level, f.Seen = LevelWarn, seen
		f.Means = "in a bucket like this without versions, originals can't be deleted exactly: desnode leaves them; packs are not touched by this"
		f.Set = "switch versioning on in buckets whose originals are to be deleted"
	}
	wrong := remove(`"` + strings.Repeat("0", 32) + `"`)
	_, gone := p.get(ctx, o.key, nil)
	switch {
	case wrong == nil && gone != nil:
		lacks("a delete with If-Match and another ETag deleted the object")
	case wrong == nil:
		lacks("a delete with If-Match and another ETag was answered as done")
	case probeUnknown(wrong), errStatus(wrong) == http.StatusBadRequest:
		lacks("If-Match is not supported: " + probeExplain(wrong))
	case !probeRefused(wrong):
		p.failed(checkDelete, "a delete with If-Match and another ETag", wrong)
		return
	default:
		if err := remove(o.etag); err != nil {
			lacks("a delete with If-Match and the object's own ETag: " + probeExplain(err))
		}
	}
	p.add(f)
}

// moving does what the collection of garbage does: copy, look, delete.
func (p *probing) moving(ctx context.Context) {
	o, err := p.put(ctx, ProbeWrite, p.pack("move"), probeBytes(1000), nil)
	if err != nil {
		p.failed(checkMove, "put", err)
		return
	}
	to := p.quarantine("move")
	err = p.within(ctx, func(ctx context.Context) error {
		out, err := p.clients[ProbeCollect].CopyObject(ctx, &s3.CopyObjectInput{
			Bucket: &p.bucket, Key: &to, CopySource: aws.String(p.bucket + "/" + (&url.URL{Path: o.key}).EscapedPath()), CopySourceIfMatch: &o.etag,
		})
		if err == nil {
			p.keep(to, aws.ToString(out.VersionId))
		}
		return err
	})
	if err != nil {
		p.failed(checkMove, "copy", err)
		return
	}
	g, err := p.get(ctx, to, nil)
	if err == nil && !bytes.Equal(g.body, probeBytes(1000)) {
		err = errors.New("the copy differs")
	}
	if err != nil {
		p.failed(checkMove, "read the copy", err)
		return
	}
	err = p.within(ctx, func(ctx context.Context) error {
		_, err := p.clients[ProbeCollect].DeleteObject(ctx, deletion(p.bucket, probeMade{o.key, o.version}))
		return err
	})
	if err != nil {
		p.failed(checkMove, "delete", err)
		return
	}
	if _, err := p.get(ctx, o.key, nil); !notThere(err) {
		p.failed(checkMove, "read what was deleted", errors.Join(err, errors.New("the object is there still")))
		return
	}
	p.add(Finding{Check: checkMove, Seen: "copied inside the server, and the first deleted"})
}

// deletion is the request to delete that version, or the object when the
// bucket has none.
func deletion(bucket string, o probeMade) *s3.DeleteObjectInput {
	in := &s3.DeleteObjectInput{Bucket: &bucket, Key: &o.key}
	if o.version != "" {
		in.VersionId = &o.version
	}
	return in
}
