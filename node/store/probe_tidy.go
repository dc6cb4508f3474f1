package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const checkTidy = "tidying up"

// tidy removes what this probe and cut ones of before left, and says what it
// could not.
func (p *probing) tidy(ctx context.Context) {
	if p.worst(checkCredentials(ProbeCollect)) == LevelBad && len(p.made) == 0 {
		return // nothing was written, and nothing of before can be seen
	}
	if !p.has(ProbeCollect) {
		if len(p.made) > 0 {
			p.add(Finding{
				Check: checkTidy, Level: LevelWarn, Seen: fmt.Sprintf("%d small objects stay below %s", len(p.made), p.folder),
				Means: "without the credentials to collect a probe can't remove what it wrote; one that has them does, an hour on",
				Set:   "run desnode doctor on a node that keeps (work: keep)",
			})
		}
		return
	}
	left, err := p.sweep(ctx, p.folder, p.made)
	older, errOlder := p.sweepOlder(ctx)
	err = errors.Join(err, errOlder)
	if left+older > 0 || err != nil {
		p.add(Finding{
			Check: checkTidy, Level: LevelWarn, Seen: fmt.Sprintf("%d objects below %s could not be removed: %s", left+older, p.prefix+probePrefix, probeExplain(err)),
			Means: "garbage can't be collected from this store either: it grows",
			Set:   "grant the credentials to collect s3:DeleteObject and s3:DeleteObjectVersion (deploy/s3/collect.json); see object lock above",
		})
	}
}

// tidyAfter removes what a probe that was cut left, whatever ctx says.
func (p *probing) tidyAfter(ctx context.Context) {
	if ctx.Err() == nil || !p.has(ProbeCollect) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTidyTimeout)
	defer cancel()
	// What stays is removed by a later probe.
	_, _ = p.sweep(ctx, p.folder, p.made)
}

// sweep deletes those objects and every version of every object below folder,
// and aborts the uploads there. It returns how many objects it could not delete.
func (p *probing) sweep(ctx context.Context, folder string, known []probeMade) (int, error) {
	found := map[probeMade]bool{}
	errs := []error{p.listAll(ctx, folder, found), p.abortAll(ctx, folder)}
	for _, o := range known {
		// A server without versions lists them as version "null".
		if o.version != "" || !found[probeMade{o.key, "null"}] {
			found[o] = true
		}
	}
	left := 0
	for o := range found {
		err := p.within(ctx, func(ctx context.Context) error {
			_, err := p.clients[ProbeCollect].DeleteObject(ctx, deletion(p.bucket, o))
			return err
		})
		if err != nil && !notThere(err) {
			left++
			errs = append(errs, err)
		}
	}
	return left, firstOf(errs)
}

// firstOf returns the first error; the others are most likely the same.
func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// listAll adds every version below folder to found. Where versions can't be
// listed, the objects are.
func (p *probing) listAll(ctx context.Context, folder string, found map[probeMade]bool) error {
	versions := s3.NewListObjectVersionsPaginator(p.clients[ProbeCollect], &s3.ListObjectVersionsInput{Bucket: &p.bucket, Prefix: &folder})
	for versions.HasMorePages() {
		page, err := p.listVersions(ctx, versions)
		if err != nil {
			return p.listObjects(ctx, folder, found)
		}
		for _, o := range page {
			found[o] = true
		}
	}
	return nil
}

func (p *probing) listVersions(ctx context.Context, pages *s3.ListObjectVersionsPaginator) ([]probeMade, error) {
	ctx, cancel := context.WithTimeout(ctx, probeRequestTimeout)
	defer cancel()
	page, err := pages.NextPage(ctx)
	if err != nil {
		return nil, err
	}
	var all []probeMade
	for _, v := range page.Versions {
		all = append(all, probeMade{aws.ToString(v.Key), aws.ToString(v.VersionId)})
	}
	for _, v := range page.DeleteMarkers {
		all = append(all, probeMade{aws.ToString(v.Key), aws.ToString(v.VersionId)})
	}
	return all, nil
}

func (p *probing) listObjects(ctx context.Context, folder string, found map[probeMade]bool) error {
	pages := s3.NewListObjectsV2Paginator(p.clients[ProbeCollect], &s3.ListObjectsV2Input{Bucket: &p.bucket, Prefix: &folder})
	for pages.HasMorePages() {
		err := p.within(ctx, func(ctx context.Context) error {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, o := range page.Contents {
				found[probeMade{key: aws.ToString(o.Key)}] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *probing) abortAll(ctx context.Context, folder string) error {
	return p.within(ctx, func(ctx context.Context) error {
		out, err := p.clients[ProbeCollect].ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &p.bucket, Prefix: &folder})
		if err != nil {
			return err
		}
		for _, u := range out.Uploads {
			_, err := p.clients[ProbeCollect].AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &p.bucket, Key: u.Key, UploadId: u.UploadId})
			if err != nil && !notThere(err) {
				return err
			}
		}
		return nil
	})
}

// sweepOlder removes what probes left that began an hour ago or more.
func (p *probing) sweepOlder(ctx context.Context) (int, error) {
	all := p.prefix + probePrefix
	folders := map[string]bool{}
	collect := func(key string) {
		name, _, ok := strings.Cut(strings.TrimPrefix(key, all), "/")
		begun, _, _ := strings.Cut(name, "-")
		at, err := time.Parse(probeTimeLayout, begun)
		if ok && err == nil && p.now().Sub(at) >= probeForeignAge {
			folders[all+name+"/"] = true
		}
	}
	found := map[probeMade]bool{}
	if err := p.listAll(ctx, all, found); err != nil {
		return 0, err
	}
	for o := range found {
		collect(o.key)
	}
	err := p.within(ctx, func(ctx context.Context) error {
		out, err := p.clients[ProbeCollect].ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &p.bucket, Prefix: &all})
		if err != nil {
			return err
		}
		for _, u := range out.Uploads {
			collect(aws.ToString(u.Key))
		}
		return nil
	})
	errs, left := []error{err}, 0
	for folder := range folders {
		n, err := p.sweep(ctx, folder, nil)
		left += n
		errs = append(errs, err)
	}
	return left, firstOf(errs)
}
