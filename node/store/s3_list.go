package store

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// List calls f for each object whose key begins with prefix and is greater
// than after. It asks with the credentials to collect. What others keep below
// the store's prefix under keys that are none of ours is passed over.
func (s *S3) List(ctx context.Context, prefix, after string, f func(Object) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l := bucketList{s: s, prefix: prefix, after: after, each: f}
	versions, err := s.versioned(ctx)
	if err != nil {
		return err
	}
	if versions {
		return l.versions(ctx)
	}
	return l.objects(ctx)
}

// versioned tells whether objects of the bucket have version ids.
func (s *S3) versioned(ctx context.Context) (bool, error) {
	out, err := s.collect.GetBucketVersioning(as(ctx, KindList, ClassGet), &s3.GetBucketVersioningInput{Bucket: &s.target.bucket})
	if unsupported(err) {
		return false, nil
	}
	if err != nil {
		return false, s.explain(ctx, call{op: "list: ask for versioning", role: s.collect, right: "s3:GetBucketVersioning"}, err)
	}
	return out.Status == types.BucketVersioningStatusEnabled || out.Status == types.BucketVersioningStatusSuspended, nil
}

// bucketList is one call of List.
type bucketList struct {
	s             *S3
	prefix, after string
	each          func(Object) error
}

func (l *bucketList) call() call {
	return call{op: fmt.Sprintf("list %q", l.prefix), role: l.s.collect, right: rightList}
}

// visit hands on one object, if it is one of those asked for. The server is
// asked for no others, but for keys that are no objects of ours, and for those
// after a key that it can't be told.
func (l *bucketList) visit(full, version string, size *int64, modified *time.Time) error {
	key, ok := l.s.target.own(full)
	if !ok || !strings.HasPrefix(key, l.prefix) || key <= l.after {
		return nil
	}
	// HEAD tells whole seconds.
	return l.each(Object{Key: key, Size: aws.ToInt64(size), Version: version, Modified: aws.ToTime(modified).Truncate(time.Second)})
}

// start is the greatest key not above after that can stand in a URL, with the
// store's prefix.
func (l *bucketList) start() *string {
	valid := l.after
	for i, r := range l.after {
		if r == utf8.RuneError {
			valid = l.after[:i]
			break
		}
	}
	if valid == "" {
		return nil
	}
	return aws.String(l.s.target.prefix + valid)
}

func (l *bucketList) objects(ctx context.Context) error {
	pages := s3.NewListObjectsV2Paginator(l.s.collect, &s3.ListObjectsV2Input{
		Bucket: &l.s.target.bucket, Prefix: aws.String(l.s.target.prefix + l.prefix), StartAfter: l.start(),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(as(ctx, KindList, ClassPut))
		if err != nil {
			return l.s.explain(ctx, l.call(), err)
		}
		for _, o := range page.Contents {
			if err := l.visit(aws.ToString(o.Key), aws.ToString(o.ETag), o.Size, o.LastModified); err != nil {
				return err
			}
		}
	}
	return nil
}

// versions lists where objects have version ids, which the plain listing
// leaves out.
func (l *bucketList) versions(ctx context.Context) error {
	pages := s3.NewListObjectVersionsPaginator(l.s.collect, &s3.ListObjectVersionsInput{
		Bucket: &l.s.target.bucket, Prefix: aws.String(l.s.target.prefix + l.prefix), KeyMarker: l.start(),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(as(ctx, KindList, ClassPut))
		if err != nil {
			return l.s.explain(ctx, l.call(), err)
		}
		for _, o := range page.Versions {
			if !aws.ToBool(o.IsLatest) {
				continue
			}
			if err := l.visit(aws.ToString(o.Key), versionOf(o.VersionId, o.ETag), o.Size, o.LastModified); err != nil {
				return err
			}
		}
	}
	return nil
}

// Upload is a multipart upload that was begun and neither completed nor
// aborted. A store bills its parts and shows them nowhere else.
type Upload struct {
	Key   string
	ID    string
	Begun time.Time // by the store's clock
}

// Uploader is a store that can have open uploads.
type Uploader interface {
	// Uploads calls f for each open upload to a key that begins with prefix, in
	// no promised order, until f returns an error, which it returns.
	Uploads(ctx context.Context, prefix string, f func(Upload) error) error
	// Abort ends an upload and frees its parts. Aborting what is not there is no
	// error. A Put whose upload is aborted under it fails.
	Abort(ctx context.Context, u Upload) error
}

var _ Uploader = (*S3)(nil)

// Uploads calls f for each open upload.
func (s *S3) Uploads(ctx context.Context, prefix string, f func(Upload) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	pages := s3.NewListMultipartUploadsPaginator(s.collect, &s3.ListMultipartUploadsInput{
		Bucket: &s.target.bucket, Prefix: aws.String(s.target.prefix + prefix),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(as(ctx, KindList, ClassPut))
		if err != nil {
			return s.explain(ctx, call{op: fmt.Sprintf("list uploads %q", prefix), role: s.collect, right: "s3:ListBucketMultipartUploads"}, err)
		}
		for _, u := range page.Uploads {
			key, ok := s.target.own(aws.ToString(u.Key))
			if !ok || !strings.HasPrefix(key, prefix) {
				continue
			}
			if err := f(Upload{Key: key, ID: aws.ToString(u.UploadId), Begun: aws.ToTime(u.Initiated)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Abort ends an open upload.
func (s *S3) Abort(ctx context.Context, u Upload) error {
	full, err := s.key(ctx, u.Key)
	if err != nil {
		return err
	}
	return s.abort(ctx, s.collect, u.Key, full, u.ID)
}

// abort ends an upload with the credentials of a role.
func (s *S3) abort(ctx context.Context, r s3Role, key, full, id string) error {
	_, err := r.AbortMultipartUpload(as(ctx, KindDelete, ClassFree), &s3.AbortMultipartUploadInput{Bucket: &s.target.bucket, Key: &full, UploadId: &id})
	if err != nil && errCode(err) != "NoSuchUpload" {
		return s.explain(ctx, call{"abort the upload of", key, r, "s3:AbortMultipartUpload"}, err)
	}
	return nil
}
